"""No policy that the check lets pass and no log stops a worker: an exception would end each process that replays it."""

from random import Random

import pytest

from enginelog import START
from property.hostile import DAY, document, log
from spendbrake.schemas.control import PolicyVersion
from spendbrake.schemas.policy import PolicyFile
from spendbrake.streams.budgets.check import check
from spendbrake.streams.engine.caps import parent_caps, team_caps
from spendbrake.streams.engine.rules.book import RuleBook
from spendbrake.streams.engine.step import Engine, EngineSettings
from spendbrake.streams.offline.above import Above, Run
from spendbrake.streams.offline.replay import SECRET

STEP = 16


def book_of(rnd: Random) -> RuleBook:
    """Two versions of rules, each of which publishes."""
    book = RuleBook(1)
    for number, begins in ((1, 0.0), (2, START + rnd.randrange(1, 50) * DAY)):
        given = document(rnd)
        assert not [each for each in check(PolicyFile.model_validate(given)) if each.severity == "error"]
        book.add(PolicyVersion(version=number, valid_from=begins, published_at=0.0, digest="", document=given))
    return book


@pytest.mark.parametrize("seed", range(14))
def test_no_policy_and_no_log_stops_a_worker(seed: int) -> None:
    rnd = Random(seed)
    book = book_of(rnd)
    engine, above = Engine(book, EngineSettings(partitions=1, secrets=(SECRET,), dedupe_blocks=16)), Above(book, SECRET)
    state, records = engine.new_state(0, 1), list(log(rnd, 160))
    for first in range(0, len(records), STEP):
        outcome = engine.step(state, Run(records[first : first + STEP], first, "usage.v1"))
        for _ in above.take(outcome):
            pass
        caps = [*team_caps(state, book.at(state.now)), *parent_caps(above.state, book.at(above.state.now))]
        assert all(isinstance(cap.params["cap"], int | None) for _, cap in caps)
