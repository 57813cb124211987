"""Leases in a Redis that loses everything: only calls that were under way may come on top of a cap."""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway_samples import NOW
from lease_desk import Desk, recount
from servers.valkey import Valkey
from spendbrake.actions.gateway.contract import SINCE, UNCOUNTED_S
from spendbrake.actions.gateway.lease import LEASE, MARGIN_S, REPORTED_WITHIN_S, Lease
from spendbrake.actions.gateway.store import AsyncStore


def test_a_cap_told_before_everything_was_lost_is_not_believed_again(valkey) -> None:
    """What was settled since is forgotten, and the word of then, written once more, does not count it."""
    at = Desk(valkey)
    at.close_down()
    at.tell(0, 100)
    assert at.guard.settle(at.reserve(60), 60, reported_at=at.now)
    at.client.flushall()
    at.close_down()
    at.tell(0, 100)
    at.now += 1
    assert (at.reserve(60).granted, at.reserve(60).code) == (False, "unavailable")
    at.now += REPORTED_WITHIN_S + MARGIN_S
    at.tell(60, 100)
    assert (at.reserve(41).granted, at.reserve(40).granted) == (False, True)


async def test_an_emptied_redis_is_noticed_by_its_writer_if_not_by_a_gateway(own_valkey: Valkey) -> None:
    store = AsyncStore.from_url(own_valkey.url)
    try:
        assert await store.since(NOW) == NOW
        assert await store.since(NOW + 5) == NOW
        own_valkey.restart()
        assert await store.since(NOW + 9) == NOW + 9
    finally:
        await store.aclose()
    with own_valkey.client() as client:
        at = Desk(client)
        at.close_down()
        at.now = NOW + 9 + UNCOUNTED_S
        at.tell(0, 100)
        assert at.reserve(100).granted, "it has heard of every lease since"


async def test_a_server_that_has_come_from_a_copy_has_not_had_its_contents_before(own_valkey: Valkey) -> None:
    """Valkey is killed, and loads what it had written a while ago: its marks are there, and vouch for nothing."""
    store = AsyncStore.from_url(own_valkey.url)
    with own_valkey.client() as client:
        at = Desk(client)
        at.close_down()
        at.tell(0, 100)
        at.guard.release(at.reserve(1))
        client.save()
        assert at.guard.settle(at.reserve(60), 60, reported_at=at.now)
    own_valkey.kill()
    own_valkey.start()
    with own_valkey.client() as client:
        assert client.hget("{sb}:m", SINCE) is not None
        again = Desk(client)
        again.now = NOW + 1
        assert again.reserve(60).code == "unavailable"
    try:
        assert await store.since(NOW + 9) == NOW + 1
        own_valkey.kill()
        own_valkey.start()
        assert await store.since(NOW + 9) == NOW + 9
        assert await store.since(NOW + 10) == NOW + 9
    finally:
        await store.aclose()


async def test_a_server_that_does_not_tell_who_it_is_is_believed_to_be_the_same(own_valkey: Valkey) -> None:
    with own_valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-info")
    store = AsyncStore.from_url(own_valkey.url)
    try:
        assert [await store.since(NOW), await store.since(NOW + 5)] == [NOW, NOW]
    finally:
        await store.aclose()


def test_script_and_contract_agree_on_how_long_a_call_may_be_uncounted() -> None:
    assert REPORTED_WITHIN_S + MARGIN_S == UNCOUNTED_S
    assert f"UNCOUNTED_S = {UNCOUNTED_S:.0f}\n" in LEASE.text.decode()


CAP = 1_000
SPEND: tuple[tuple, ...] = (("reserve", 400, 60), ("settle", 0, 400))
LOSE = ("lose", None, None)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 400), st.integers(5, 60)),
        st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 450)),
        st.tuples(st.just("release"), st.integers(0, 9), st.none()),
        st.tuples(st.just("wait"), st.floats(0, 40), st.none()),
        st.tuples(st.just("tell"), st.none(), st.none()),
        st.tuples(st.just("lose"), st.none(), st.none()),
        st.tuples(st.just("copy"), st.none(), st.none()),
        st.tuples(st.just("restore"), st.none(), st.none()),
    ),
    max_size=40,
)


@dataclass
class World:
    """What has truly happened: calls with their leases, what the owner has counted, and what Redis has forgotten."""

    at: Desk
    open: list[Lease] = field(default_factory=list)
    spent: list[tuple[float, int]] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)
    told: tuple[int, float] = (0, NOW)
    beyond: int = 0
    copied: dict[bytes, bytes] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    def reserve(self, amount: int, ttl_s: int) -> None:
        lease = self.at.reserve(amount, ttl_s=float(ttl_s))
        if lease.granted:
            self.open.append(lease)

    def settle(self, which: int, cost: int) -> None:
        if which < len(self.open):
            lease = self.open.pop(which)
            self.spent.append((self.at.now, cost))
            # What nobody held: the cost past what was held, all of it once the lease had ended or was forgotten.
            gone = lease.until <= self.at.now or lease.id in self.forgotten
            self.beyond += cost if gone else max(0, cost - lease.amount)
            self.at.guard.settle(lease, cost, reported_at=self.at.now)

    def release(self, which: int, _: None) -> None:
        if which < len(self.open):
            self.at.guard.release(self.open.pop(which))

    def wait(self, seconds: float, _: None) -> None:
        self.at.now += seconds

    def tell(self, *_: None) -> None:
        """The owner counts what was reported a margin ago: no earlier than it says."""
        seen = sum(cost for when, cost in self.spent if when + MARGIN_S <= self.at.now)
        self.told = seen, self.at.now
        self.at.tell(seen, CAP)

    def lose(self, *_: None) -> None:
        """Redis is emptied, and a writer that stood still in the middle of a pass goes on with it."""
        self.at.client.flushall()
        self.forgotten |= {lease.id for lease in self.open}
        self._go_on()

    def _go_on(self) -> None:
        self.at.close_down()
        seen, at = self.told
        self.at.tell(seen, CAP, at=at)

    def copy(self, *_: None) -> None:
        """What Redis writes to its disk now and then."""
        self.copied = {name: self.at.client.dump(name) for name in self.at.client.scan_iter()}
        self.known = {lease.id for lease in self.open}

    def restore(self, *_: None) -> None:
        """Redis is killed, and another server loads the copy."""
        self.at.client.flushall()
        for name, value in self.copied.items():
            self.at.client.restore(name, 0, value)
        self.at.client.hset("{sb}:m", "run", "0" * 40)
        self.forgotten |= {lease.id for lease in self.open} - self.known
        self._go_on()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves)
@example([*SPEND, *SPEND, LOSE, *SPEND])
@example([("copy", None, None), *SPEND, *SPEND, ("restore", None, None), *SPEND])
@example([*SPEND, *SPEND, LOSE, *SPEND, ("wait", 4.0, None), ("tell", None, None), *SPEND])
def test_the_cap_holds_for_any_order_of_calls_and_nothing_leaks(valkey, valkey_server: Valkey, made) -> None:
    valkey.flushall()
    world = World(Desk(valkey, payments=CAP))
    world.at.close_down()
    for name, one, two in made:
        getattr(world, name)(one, two)
        assert sum(cost for _, cost in world.spent) <= CAP + world.beyond
    assert all(each.drift == 0 for each in recount(valkey_server.url, world.at.now))
    world.at.reserve(0)  # its writer looks for that now and then
    world.at.now += 61 + REPORTED_WITHIN_S + MARGIN_S
    world.tell()
    spent = sum(cost for _, cost in world.spent)
    assert world.at.reserve(0).granted == (spent <= CAP)
    if spent < CAP:
        assert world.at.reserve(CAP - spent).granted, "all that is not spent can be had again"
        assert not world.at.reserve(1).granted
