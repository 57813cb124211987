"""Which rows of several writers a partition is restored from."""

import numpy as np
import pytest

from spendbrake.schemas.decision import Stamp
from spendbrake.streams.engine.state.codec import pack
from spendbrake.streams.workers.partitions.choice import Version, choose


def version(offset: int, stands_on: int | None = None, epoch: int = 1) -> Version:
    meta = {} if stands_on is None else {"head": stands_on}
    return Version.parse(pack(Stamp(epoch=epoch, offset=offset), meta, {"it": np.array([offset])}))


def test_of_a_row_the_highest_stamp_holds_whoever_wrote_it() -> None:
    rows = {"block|0": {"a": version(9), "b": version(30), "c": version(10)}, "head|t": {"a": version(2)}}
    assert choose(rows) == {"block|0": version(30).value, "head|t": version(2).value}


def test_a_later_incarnation_of_the_log_is_higher_than_any_offset_of_an_earlier_one() -> None:
    assert choose({"head|t": {"a": version(90), "b": version(1, epoch=2)}}) == {"head|t": version(1, epoch=2).value}


def test_of_the_partitions_own_rows_each_holds() -> None:
    assert choose({"partition": {"a": version(9), "b": version(3)}}) == {
        "partition|a": version(9).value,
        "partition|b": version(3).value,
    }


@pytest.mark.parametrize("series", ["series|0|t|x", "children|7|t|x"])
def test_rows_whose_head_is_gone_give_way_to_the_newest_that_the_head_bears(series: str) -> None:
    rows = {
        "head|t|x": {"own": version(29)},
        series: {"ahead": version(39, 38), "own": version(29, 29), "old": version(9, 9)},
    }
    assert choose(rows)[series] == version(29, 29).value
    rows["head|t|x"]["ahead"] = version(38)
    assert choose(rows)[series] == version(39, 38).value


def test_rows_may_be_ahead_of_a_head_that_has_not_changed() -> None:
    rows = {"head|t": {"a": version(5)}, "series|0|t": {"a": version(50, 5)}}
    assert choose(rows)["series|0|t"] == version(50, 5).value


def test_rows_that_no_head_bears_are_not_there() -> None:
    assert set(choose({"head|t": {"own": version(29)}, "series|1|t": {"ahead": version(39, 38)}})) == {"head|t"}
    assert choose({"series|1|t": {"ahead": version(39, 38)}}) == {}


def test_rows_of_a_team_without_a_head_stand_alone() -> None:
    assert choose({"series|0|t": {"a": version(9)}}) == {"series|0|t": version(9).value}


def test_what_was_removed_is_not_there() -> None:
    assert choose({"head|t": {}, "series|0|t": {}}) == {}
