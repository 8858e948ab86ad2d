"""Requests a second: buckets, shares, and what of a request counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.rates import RateLimits, TokenBucket, txn_keys
from kvstore.errors import PrefixQuotaExceeded
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.state.quotas import Quota, Quotas


def limits(members: int = 1, **rates: int) -> tuple[RateLimits, Quotas]:
    quotas = Quotas()
    for prefix, rate in rates.items():
        quotas.put_in(Quota(prefix.encode(), qps_max=rate))
    return RateLimits(quotas, lambda: members), quotas


def admitted(rates: RateLimits, key: bytes, now: float, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            rates.admit((key,), now)
        except PrefixQuotaExceeded:
            break
        count += 1
    return count


@given(
    rate=st.floats(0.1, 1000),
    gaps=st.lists(st.floats(0, 3), max_size=60),
)
def test_a_bucket_never_lets_through_more_than_its_rate_and_one_burst(rate: float, gaps: list[float]) -> None:
    now, taken = 0.0, 0
    bucket = TokenBucket(rate, now)
    for gap in gaps:
        now += gap
        while bucket.at(rate, now) >= 1.0:
            bucket.take()
            taken += 1
        assert taken <= max(rate, 1.0) + rate * now + 1e-6
        assert taken + 1 > rate * now - 1e-6 or max(gaps) > 1.0 / rate or rate < 1, "it wastes none"


def test_a_second_may_come_at_once_and_then_the_rate() -> None:
    rates, quotas = limits(p=10)
    assert admitted(rates, b"p1", 100.0, 50) == 10
    assert admitted(rates, b"p1", 100.05, 50) == 0
    assert admitted(rates, b"p1", 100.35, 50) == 3
    assert admitted(rates, b"p1", 1000.0, 50) == 10, "what is not used is kept for a second, no longer"
    assert admitted(rates, b"q", 1000.0, 50) == 50
    quota = quotas.get(b"p")
    assert quota is not None and quota.refused["qps"] == 4


def test_a_member_lets_through_its_share_and_says_so() -> None:
    rates, _ = limits(3, p=10)
    assert admitted(rates, b"p", 0.0, 50) == 3
    with pytest.raises(PrefixQuotaExceeded) as refused:
        rates.admit((b"p",), 0.0)
    assert refused.value.reason == (
        'quota on "p" exceeded: 10 requests a second allowed, 3.333 of them at this member, all in use; '
        "the next in 200 ms"
    )
    slow, _ = limits(5, p=1)
    assert admitted(slow, b"p", 0.0, 50) == 1, "a share below one is one now and then"
    assert admitted(slow, b"p", 4.9, 50) == 0
    assert admitted(slow, b"p", 5.0, 50) == 1


def test_of_several_quotas_all_must_have_room_and_none_is_charged_for_another() -> None:
    rates, _ = limits(p=4, px=2)
    assert admitted(rates, b"px", 0.0, 50) == 2
    assert admitted(rates, b"p", 0.0, 50) == 2, "what the inner one refused cost the outer one nothing"
    rates.admit((b"o",), 0.0)


def test_a_request_counts_once_for_each_quota() -> None:
    rates, _ = limits(p=2, q=2)
    keys = (b"p1", b"p2", b"p3", b"q")
    rates.admit(keys, 0.0)
    rates.admit(keys, 0.0)
    with pytest.raises(PrefixQuotaExceeded):
        rates.admit(keys, 0.0)


def test_a_rate_that_changes_counts_from_then_on_and_a_quota_that_went_is_forgotten() -> None:
    rates, quotas = limits(p=10)
    assert admitted(rates, b"p", 0.0, 50) == 10
    quotas.put_in(Quota(b"p", qps_max=2))
    assert admitted(rates, b"p", 0.5, 50) == 2
    quota = quotas.get(b"p")
    assert quota is not None
    quotas.take_out(quota)
    assert not quotas.rated and admitted(rates, b"p", 0.5, 50) == 50
    quotas.put_in(Quota(b"q", qps_max=1))
    assert admitted(rates, b"q", 0.5, 50) == 1
    assert set(rates._buckets) == {b"q"}


def test_every_key_that_a_transaction_names() -> None:
    inner = TxnRequest(
        compare=[Compare(key=b"c2")],
        success=[RequestOp(request_put=PutRequest(key=b"p"))],
        failure=[RequestOp(request_range=RangeRequest(key=b"r"))],
    )
    outer = TxnRequest(
        compare=[Compare(key=b"c1")],
        success=[RequestOp(request_txn=inner)],
        failure=[RequestOp(request_delete_range=DeleteRangeRequest(key=b"d")), RequestOp()],
    )
    assert sorted(txn_keys(outer)) == [b"c1", b"c2", b"d", b"p", b"r"]
