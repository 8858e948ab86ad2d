"""kvstore/wire/pace.py: the token bucket, with literal times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvstore.wire.pace import Bucket


def test_a_bucket_allows_bursts_and_a_rate() -> None:
    bucket = Bucket(per_s=10, burst=3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.1), bucket.take(0.1)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_dear_events_take_more_and_a_refused_one_takes_nothing() -> None:
    bucket = Bucket(per_s=1, burst=10, now=0.0)
    assert [bucket.take(0.0, 7), bucket.take(0.0, 7), bucket.take(0.0, 3)] == [True, False, True]
    assert [bucket.take(2.5, 2.5), bucket.take(2.5, 0), bucket.take(2.5, 0.5)] == [True, True, False]


@given(st.lists(st.floats(0, 1), max_size=200))
def test_no_more_than_the_burst_and_the_rate_together(waits: list[float]) -> None:
    bucket, now, taken = Bucket(per_s=5, burst=4, now=0.0), 0.0, 0
    for wait in waits:
        now += wait
        taken += bucket.take(now)
        assert taken <= 4 + 5 * now + 1e-6
