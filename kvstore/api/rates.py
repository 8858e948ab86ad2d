"""Requests a second on prefixes that have such a quota: a token bucket for each, on each member. `now` is passed in.

Pure.

A member lets through its share of a quota, an equal part for each member of the cluster: without asking anybody, and
so that all of them together never let through more. A client that talks to one member gets that member's share, and
no more. A bucket holds a second's worth, at least one request.

What counts: Range, RangeStream, Put, DeleteRange, Txn and each announcement, once for every quota whose prefix one of
its keys, or the beginning of one of its ranges, begins with; compares of a transaction too. What is refused for
something else counts as well. Watches, leases, locks and elections do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kvstore import errors
from kvstore.pb.etcdserverpb_pb2 import TxnRequest
from kvstore.state.quotas import Quota, Quotas, shown


class TokenBucket:
    """rate: tokens a second. It holds rate tokens, at least one, and is full at first."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = self._capacity
        self._at = now

    @property
    def _capacity(self) -> float:
        return max(self._rate, 1.0)

    def at(self, rate: float, now: float) -> float:
        """How many tokens there are now; from here on they come at this rate."""
        self._tokens += max(0.0, now - self._at) * self._rate
        self._rate, self._at = rate, now
        self._tokens = min(self._tokens, self._capacity)
        return self._tokens

    def take(self) -> None:
        """One of those that at() has seen."""
        self._tokens -= 1.0

    @property
    def wait_s(self) -> float:
        """Until there is one."""
        return max(0.0, (1.0 - self._tokens) / self._rate)


class RateLimits:
    def __init__(self, quotas: Quotas, member_count: Callable[[], int]) -> None:
        self._quotas = quotas
        self._member_count = member_count
        self._buckets: dict[bytes, TokenBucket] = {}

    def admit(self, keys: Iterable[bytes], now: float) -> None:
        """Counts one request on these keys, or none of it. Raises PrefixQuotaExceeded. With no quota that is rated
        nobody need ask."""
        asked = {quota.prefix: quota for key in keys for quota in self._rated(key)}
        if not asked:
            return
        members = max(1, self._member_count())
        buckets = []
        for prefix in sorted(asked):
            quota = asked[prefix]
            share = quota.qps_max / members
            bucket = self._bucket(prefix, share, now)
            if bucket.at(share, now) < 1.0:
                quota.refused["qps"] += 1
                raise errors.PrefixQuotaExceeded(_told(quota, share, bucket.wait_s))
            buckets.append(bucket)
        for bucket in buckets:
            bucket.take()

    def _rated(self, key: bytes) -> Iterator[Quota]:
        quota = self._quotas.innermost(key)
        while quota is not None:
            if quota.qps_max:
                yield quota
            quota = quota.outer

    def _bucket(self, prefix: bytes, rate: float, now: float) -> TokenBucket:
        bucket = self._buckets.get(prefix)
        if bucket is None:
            if len(self._buckets) >= self._quotas.rated:  # of quotas that are gone
                self._buckets = {old: kept for old, kept in self._buckets.items() if self._quotas.get(old)}
            bucket = self._buckets[prefix] = TokenBucket(rate, now)
        return bucket


def _told(quota: Quota, share: float, wait_s: float) -> str:
    text = f"quota on {shown(quota.prefix)} exceeded: {quota.qps_max} requests a second allowed"
    if share < quota.qps_max:
        text += f", {share:.4g} of them at this member"
    return f"{text}, all in use; the next in {max(1, round(wait_s * 1000))} ms"


def txn_keys(request: TxnRequest) -> Iterator[bytes]:
    """Of its compares and of both its branches, at every depth."""
    for compare in request.compare:
        yield compare.key
    for op in (*request.success, *request.failure):
        kind = op.WhichOneof("request")
        if kind == "request_txn":
            yield from txn_keys(op.request_txn)
        elif kind is not None:
            yield getattr(op, kind).key
