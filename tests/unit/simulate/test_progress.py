"""Which tick counts as acknowledged: the last one below what the group has committed."""

from spendbrake.streams.simulate.progress import TickProgress


def test_a_tick_is_reached_once_the_commit_lies_past_its_offset() -> None:
    progress = TickProgress()
    for partition, offset, at in ((0, 10, 100.0), (0, 15, 105.0), (0, 16, 110.0), (1, 3, 100.0)):
        progress.sent(partition, offset, at)
    assert progress() == {}
    progress.committed({0: 10, 1: 3})
    assert progress() == {}, "the next offset is the tick's own"
    progress.committed({0: 16, 1: 4, 2: 9})
    assert progress() == {0: 105.0, 1: 100.0}
    progress.committed({0: 400})
    assert progress() == {0: 110.0, 1: 100.0}
