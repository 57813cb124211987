"""What makes a start of a process its own."""

from spendbrake.streams.transport.store import split_key
from spendbrake.streams.workers.service import _writer


def test_no_two_starts_write_under_one_name() -> None:
    names = {_writer() for _ in range(100)}
    assert len(names) == 100
    assert {split_key(f"head|a@{name}".encode()) for name in names} == {("head|a", name) for name in names}
