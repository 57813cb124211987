"""A reserve pays each grant once and never more than it has, whatever is asked, decided, crashed and replayed."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from enginelog import Record
from rollupslog import USD, calendar_of, cuts, internal
from spendbrake.schemas.command import KIND_HEADER, Command, Order
from spendbrake.schemas.wire.avro import decode, encode
from spendbrake.streams.engine.outcome import Outcome
from unit.parents.test_restart import KEYS, OF, RESERVES, busy_log, crashing

DESKS = ("acme", "bg-1", "bg-2")
NODES = (("bg-1", "acme"), ("bg-2", "acme"), ("ops", "bg-1"), ("ops", "bg-2"), ("t1", "acme"))
"""What is asked for, and at whose desk: `ops` has another after the file has changed."""
KINDS: tuple[Order, ...] = ("approve", "approve", "approve", "deny", "withdraw")
PEOPLE = (("fay", "finance"), ("eli", "engineering"), ("eli", "finance"), ("ada", "engineering"))


def ordered(log: Sequence[Record], seed: int) -> list[Record]:
    """The log with requests and decisions in between, of few people, some twice, some at a desk that is not theirs."""
    rnd, found, asked = random.Random(seed), list[Record](), list[Command]()
    for record in log:
        found.append(record)
        if rnd.random() < 0.2:
            asked.append(_request(rnd, record.at, len(asked)))
            found.append(_put(asked[-1], record.at, asked[-1].id.partition("/")[0]))
        if asked and rnd.random() < 0.2:
            about = rnd.choice(asked[-8:])
            found += [_decision(rnd, record.at, about, "approve", by, role) for by, role in PEOPLE[:2]]
        if asked and rnd.random() < 0.2:
            about = rnd.choice(asked[-5:])
            found.append(_decision(rnd, record.at, about, rnd.choice(KINDS), *rnd.choice(PEOPLE)))
    return found


def _request(rnd: random.Random, now: float, number: int) -> Command:
    node, desk = rnd.choice(NODES)
    money = rnd.randrange(1, 30) * USD if rnd.random() < 0.8 else 0
    return Command(
        id=f"{desk}/{number}", kind="request", node=node, home="t1" if node == "t1" else "", by="ada", role="operator",
        issued_at=now, amount=money, policy="" if money else "cap",
        expires_at=now + rnd.choice((600, 90_000, 40 * 86_400)),
    )  # fmt: skip


def _decision(rnd: random.Random, now: float, about: Command, kind: Order, by: str, role: str) -> Record:
    desk = about.id.partition("/")[0] if rnd.random() < 0.95 else rnd.choice(DESKS)
    one = Command(
        id=f"{kind}/{rnd.randrange(10**9)}", kind=kind, node=about.node, home=about.home, by=by, role=role,
        issued_at=now, request=about.id,
    )  # fmt: skip
    return _put(one, now, desk)


def _put(command: Command, now: float, desk: str) -> Record:
    return internal("command", now, desk.encode(), encode(command))


def granted(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, str, int]]:
    """The grants that desks have written, by id: desk, month of the desk, amount."""
    found = {}
    for out in (out for outcome in outcomes for out in outcome.records):
        if dict(out.headers).get(KIND_HEADER) == b"command":
            one = decode(Command, out.value or b"")
            desk = one.request.partition("/")[0]
            if one.kind == "grant":
                month = calendar_of(KEYS[desk == "bg-2"]).period_of(out.at)
                found[one.id] = desk, month, one.amount
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_reserve_never_pays_more_than_it_has_whatever_crashes(seed: int) -> None:
    log = ordered(busy_log(seed), seed)
    calm = OF.new_state(0, 1)
    found = granted([OF.step(calm, cut) for cut in cuts(log, 97)])
    state, outcomes, crashes = crashing(log, seed)
    assert crashes > 3
    assert granted(outcomes) == found
    paid: Counter[tuple[str, str]] = Counter()
    for desk, month, amount in found.values():
        paid[desk, month] += amount
    assert len(found) >= 8
    assert len(paid) >= 3
    for (desk, month), amount in paid.items():
        assert amount <= max(reserves.get(desk, 0) for reserves in RESERVES) * USD, (desk, month)
    for one in (calm, state):
        kept = {(desk, month): n for desk in DESKS for month, n in one.parents[desk].desk.paid.items() if n}
        assert kept == dict(paid)
