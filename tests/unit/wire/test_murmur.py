"""Keys go where Kafka's own clients send them."""

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as unsigned_murmur2
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.schemas.wire.murmur import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_kafkas_own_tests(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected


@given(st.binary())
def test_the_hash_is_that_of_another_client(key: bytes) -> None:
    assert murmur2(key) & 0xFFFFFFFF == unsigned_murmur2(key)


@given(st.binary(), st.integers(1, 64))
def test_the_partition_is_that_of_another_client(key: bytes, n: int) -> None:
    partitions = list(range(n))
    assert partition_of(key, n) == DefaultPartitioner()(key, partitions, partitions)
