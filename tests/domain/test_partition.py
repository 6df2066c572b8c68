"""The partitioner gives what Kafka's Java client gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.record import murmur2, partition_of

JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""The vectors of the Java client's own test."""


@pytest.mark.parametrize(("key", "expected"), JAVA_VECTORS.items())
def test_murmur2_matches_the_java_client(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected
    assert partition_of(key, 64) == (expected & 0x7FFFFFFF) % 64


@given(st.binary(max_size=64), st.integers(1, 1000))
def test_partition_is_stable_and_in_range(key: bytes, partitions: int) -> None:
    found = partition_of(key, partitions)
    assert 0 <= found < partitions
    assert partition_of(key, partitions) == found


def test_keys_spread_evenly_over_partitions() -> None:
    counts = [0] * 64
    for number in range(64_000):
        counts[partition_of(b"anonymous-%d" % number, 64)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150
