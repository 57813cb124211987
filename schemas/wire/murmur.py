"""Kafka's murmur2: which partition a key belongs to, as Java's default partitioner has it. Knows no topic."""

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """Return the signed 32-bit hash that Kafka's Java client computes.

    Examples:
        >>> murmur2(b"foobar"), murmur2(b"21")
        (-790332482, -973932308)
    """
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = h * _M & _MASK ^ k
    if whole < length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    h ^= h >> 15
    return h - (1 << 32) if h & 0x80000000 else h


def partition_of(key: bytes, n: int) -> int:
    """Return the partition of `key` among `n`."""
    return (murmur2(key) & 0x7FFFFFFF) % n
