"""Holders of leases under chaos: many at once spend teams of their own down to a hard cap, one team after another.

Each call is held at the most it may cost, made, reported (until the broker has it) and settled (until Redis has it).
Then a team may have spent its cap and not a nano-dollar more, whoever was killed or frozen meanwhile. A Valkey that has
lost everything has forgotten leases: then the calls that were under way may come on top, and nothing else. Every other
team's Valkey is emptied in the midst of its cap, beside the faults of the storm.
"""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import redis
from confluent_kafka import Producer

from chaos.books.recount import price
from chaos.company import MODELS
from chaos.scene import Scene
from chaos.traffic import TOKENS, Traffic
from chaos.verdict import Verdict
from spendbrake.actions.gateway.guard import Guard
from spendbrake.actions.gateway.lease import Lease
from spendbrake.schemas.topics import USAGE
from spendbrake.schemas.usage import UsageEvent
from spendbrake.schemas.wire.avro import encode

HOLDERS = 6
MOST = 40_000_000
"""More than any call costs, nano-USD: the dearest of `TOKENS` costs 33 M."""
TTL_S = 600.0
CALL_S = 0.6
"""Longest call."""
PATIENCE_S, PAUSE_S = 120.0, 0.1


@dataclass
class Spent:
    """One team that has only leases to spend by.

    Attributes:
        costs: nano-USD of each call that was made.
        whole: Whether it was spent until Redis said that nothing is left.
        losses: How often Valkey has lost its contents meanwhile.
    """

    team: str
    cap: int
    costs: list[int] = field(default_factory=list)
    whole: bool = False
    losses: int = 0

    @property
    def over(self) -> int:
        """Return by how much the cap was passed, nano-USD."""
        return max(0, sum(self.costs) - self.cap)

    @property
    def bound(self) -> int:
        """Return by how much it may be passed: the calls under way whose leases were forgotten."""
        return self.losses * HOLDERS * MOST


class Holders(threading.Thread):
    """Spends team after team while traffic goes on; each begins at its place of the stream.

    Args:
        calls: Of the traffic: the places are spread over them.
    """

    def __init__(self, scene: Scene, traffic: Traffic, calls: int) -> None:
        super().__init__(name="holders", daemon=True)
        company = scene.company
        self.spent = [Spent(team, company.budgets[team]) for team in company.lessees]
        self.records = 0
        self.failure: BaseException | None = None
        self._scene, self._traffic, self._calls = scene, traffic, calls
        self._guard = scene.guard(on_unavailable="closed")
        self._numbers = count()
        self._ending = threading.Event()

    def run(self) -> None:
        try:
            for number, spent in enumerate(self.spent):
                while self._traffic.sent.kinds["calls"] < number / len(self.spent) * self._calls:
                    if self._ending.wait(PAUSE_S):
                        return
                if not self._ending.is_set():
                    self._spend(spent)
        except BaseException as error:
            self.failure = error

    def last(self) -> None:
        """Begin no other team."""
        self._ending.set()

    def end(self) -> None:
        """Return once the last team is spent."""
        self.join(PATIENCE_S)
        self._guard.close()
        if self.failure is not None:
            raise self.failure

    def _spend(self, spent: Spent) -> None:
        loses = self.spent.index(spent) % 2 == 1
        desk = Desk(self._scene, self._guard, spent, self._numbers, loses=loses)
        desk.open()
        losses = self._scene.losses
        workers = [threading.Thread(target=desk.work, args=(n,), daemon=True) for n in range(HOLDERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE_S)
        spent.losses = self._scene.losses - losses
        self.records += desk.records
        spent.whole = desk.refused == HOLDERS
        if desk.failure is not None:
            raise desk.failure


class Desk:
    """One team's holders, and what they do for a call.

    Args:
        loses: Whether Valkey is emptied once half of the cap is spent.
    """

    def __init__(self, scene: Scene, guard: Guard, spent: Spent, numbers: Iterator[int], *, loses: bool) -> None:
        self._scene, self._loses = scene, loses
        self.refused, self.records = 0, 0
        self.failure: BaseException | None = None
        self._guard, self._spent, self._numbers = guard, spent, numbers
        self._key = f"key-{spent.team}"
        self._topic = scene.topic(USAGE.name)
        self._producer: dict[str, Any] = {
            "bootstrap.servers": scene.kafka.bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 0,
        }
        self._producer |= {"enable.idempotence": True, "log_level": 0}
        self._until = time.monotonic() + PATIENCE_S
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make one call, and wait until gateways have heard of its key's cap."""
        self._call(Producer(self._producer), random.Random(self._key))
        while self._goes_on():
            lease = self._guard.reserve(self._key, self._spent.cap + 1)
            self._guard.release(lease)
            if lease.status == 429 and lease.node == self._spent.team:
                return
            time.sleep(PAUSE_S)

    def work(self, number: int) -> None:
        """Hold, call, report and settle, until nothing is left."""
        chance, producer = random.Random(f"{self._key} {number}"), Producer(self._producer)
        try:
            while self._goes_on():
                lease = self._guard.reserve(self._key, MOST, ttl_s=TTL_S)
                if lease.granted:
                    assert lease.source == "redis", lease
                    time.sleep(chance.uniform(0, CALL_S))
                    self._settle(lease, self._call(producer, chance))
                    self._lose()
                elif lease.code == "budget_exceeded" and lease.node == self._spent.team:
                    with self._lock:
                        self.refused += 1
                    return
                else:
                    time.sleep(min(lease.retry_after or PAUSE_S, 1.0))
        except BaseException as error:
            self.failure = error

    def _lose(self) -> None:
        """Have Valkey emptied, once."""
        with self._lock:
            due = self._loses and 2 * sum(self._spent.costs) >= self._spent.cap
            self._loses = self._loses and not due
        if due:
            self._scene.losses += 1
            with contextlib.suppress(redis.ConnectionError):  # it is away: that is a loss as well
                self._scene.servers.valkey.empty()

    def _goes_on(self) -> bool:
        return time.monotonic() < self._until

    def _call(self, producer: Producer, chance: random.Random) -> int:
        provider, model = chance.choice(MODELS)
        tokens, cached, output = chance.choice(TOKENS)
        event = UsageEvent(
            request_id=f"leased-{next(self._numbers)}",
            time=time.time(),
            api_key_id=self._key,
            provider=provider,
            model=model,
            team=self._spent.team,
            input_tokens=tokens,
            cache_read_tokens=cached,
            output_tokens=output,
        )
        cost = price(event)
        self._spent.costs.append(cost)
        self._report(producer, encode(event))
        return cost

    def _report(self, producer: Producer, value: bytes) -> None:
        """Send a record, and return once the broker has it."""
        answers: list[object] = []
        producer.produce(
            self._topic, value, self._spent.team.encode(), on_delivery=lambda error, message: answers.append(error)
        )
        producer.flush(PATIENCE_S)
        assert answers == [None], f"not reported: {answers}"
        with self._lock:
            self.records += 1

    def _settle(self, lease: Lease, cost: int) -> None:
        reported_at = time.time()
        while not self._guard.settle(lease, cost, reported_at=reported_at):
            assert self._goes_on(), "not settled"
            time.sleep(PAUSE_S)


def judge(verdict: Verdict, spent: list[Spent], counted: dict[str, int], exported_usd: float) -> dict[str, object]:
    """Note where a cap did not hold, or more is counted than was spent; return the figures.

    Args:
        counted: nano-USD by team, as the recount has it.
        exported_usd: The highest bound that workers told.
    """
    begun = [each for each in spent if each.costs]
    for each in begun:
        if each.over > each.bound:
            verdict.problems.append(f"{each.team}: {each.over} nano-USD past its cap, bound {each.bound}")
        if each.over > exported_usd * 1e9:
            verdict.problems.append(f"{each.team}: {each.over} nano-USD past its cap, told bound {exported_usd} USD")
        if each.whole and sum(each.costs) <= each.cap - MOST:
            verdict.problems.append(f"{each.team}: refused with {each.cap - sum(each.costs)} nano-USD left")
        verdict.differ(f"cost of {each.team}, which leases know", counted.get(each.team, 0), sum(each.costs))
    whole = [each for each in begun if each.whole]
    if not whole or 2 * len(whole) < len(begun):
        verdict.problems.append(f"only {len(whole)} of the {len(begun)} caps that were begun were spent by leases")
    return {
        "caps": len(whole),
        "calls": sum(len(each.costs) for each in begun),
        "losses": sum(each.losses for each in begun),
        "most_over_usd": max((each.over for each in begun), default=0) / 1e9,
        "bound_of_it_usd": max((each.bound for each in begun if each.over), default=0) / 1e9,
        "exported_bound_usd": exported_usd,
    }
