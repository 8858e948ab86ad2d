"""Quotas on prefixes of the key space: what each allows, and what lies under its prefix now. Pure.

Use is the keys that are there and the bytes of their names and values; superseded versions are not counted. The key
space tells every write (mvcc.py), so use is exact at every index: it is stored with the applied index, and never
counted again but for a quota that is new. Prefixes may lie within one another; a key counts for all it begins with.

admit_*() is asked before a command has written anything. What would grow beyond a limit is refused; what shrinks, or
leaves the size as it is, never is, however far above its limit a prefix already is. Requests a second are not
counted here: they are the affair of whoever looks at a clock (kvstore/api/rates.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kvstore import errors
from kvstore.pb.etcdserverpb_pb2 import RequestOp
from kvstore.pb.internal_pb2 import QuotaRecord
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.pb.quota_pb2 import PrefixQuota
from kvstore.state.key_ranges import key_range
from kvstore.state.overlay import Latest
from kvstore.state.records import KV_AT
from kvstore.state.storage_process import QUOTAS

PREFIX_BYTES_MAX = 500
"""LMDB's limit, nearly; keys themselves may be longer."""
QUOTAS_MAX = 10_000
LIMITS = ("bytes", "keys", "qps")


class Tables(Protocol):
    def table(self, table: int) -> Iterator[tuple[bytes, bytes]]: ...


class Keys(Protocol):
    """What a transaction's growth is measured against (mvcc.py)."""

    def current(self, key: bytes) -> Latest | None: ...

    def latest_in(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Latest]]: ...


@dataclass(slots=True, eq=False)
class Quota:
    """A limit of 0 is none. refused: by limit, on this member since it started, what is replayed included."""

    prefix: bytes
    bytes_max: int = 0
    keys_max: int = 0
    qps_max: int = 0
    used_bytes: int = 0
    used_keys: int = 0
    outer: Quota | None = None  # of the longest other prefix that this one begins with
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LIMITS, 0))

    def exceeded(self, keys: int, size: int) -> tuple[str, str] | None:
        """(limit, what to say) where so many more keys and bytes are too many."""
        if keys > 0 and self.keys_max and self.used_keys + keys > self.keys_max:
            return "keys", self._told("keys", self.keys_max, self.used_keys, keys)
        if size > 0 and self.bytes_max and self.used_bytes + size > self.bytes_max:
            return "bytes", self._told("bytes", self.bytes_max, self.used_bytes, size)
        return None

    def _told(self, unit: str, limit: int, used: int, more: int) -> str:
        return f"quota on {shown(self.prefix)} exceeded: {limit} {unit} allowed, {used} in use, {more} more asked for"

    def record(self) -> QuotaRecord:
        return QuotaRecord(
            prefix=self.prefix,
            bytes_max=self.bytes_max,
            keys_max=self.keys_max,
            qps_max=self.qps_max,
            used_bytes=self.used_bytes,
            used_keys=self.used_keys,
        )

    def message(self) -> PrefixQuota:
        return PrefixQuota.FromString(self.record().SerializeToString())  # the same fields


class Quotas:
    def __init__(self) -> None:
        self.rated = 0
        """How many limit requests a second."""
        self._by_prefix: dict[bytes, Quota] = {}
        self._order: list[bytes] = []
        self._changed: dict[bytes, None] = {}  # since they were last stored, each once

    def load(self, store: Tables) -> None:
        """Takes over what is stored, at the start and after a snapshot came in."""
        self._by_prefix.clear()
        self._changed.clear()
        for prefix, value in store.table(QUOTAS):
            record = QuotaRecord.FromString(value)
            self._by_prefix[prefix] = Quota(
                prefix,
                record.bytes_max,
                record.keys_max,
                record.qps_max,
                record.used_bytes,
                record.used_keys,
            )
        self._arrange()

    def __len__(self) -> int:
        return len(self._order)

    def get(self, prefix: bytes) -> Quota | None:
        return self._by_prefix.get(prefix)

    def all(self) -> list[Quota]:
        """By prefix."""
        return [self._by_prefix[prefix] for prefix in self._order]

    def innermost(self, key: bytes) -> Quota | None:
        """Of the longest prefix that the key begins with; the others follow by `outer`.

        The last prefix at or before the key has all that the key begins with among its own beginnings: whatever
        sorts between one of those and the key begins with it as well."""
        at = bisect_right(self._order, key)
        quota = self._by_prefix[self._order[at - 1]] if at else None
        while quota is not None and not key.startswith(quota.prefix):
            quota = quota.outer
        return quota

    # Changing them

    def put_in(self, quota: Quota) -> None:
        self._by_prefix[quota.prefix] = quota
        self._changed[quota.prefix] = None
        self._arrange()

    def take_out(self, quota: Quota) -> None:
        del self._by_prefix[quota.prefix]
        self._changed.pop(quota.prefix, None)
        self._arrange()

    def _arrange(self) -> None:
        self._order = sorted(self._by_prefix)
        self.rated = 0
        quota: Quota | None = None
        for each in self.all():
            while quota is not None and not each.prefix.startswith(quota.prefix):
                quota = quota.outer
            each.outer, quota = quota, each
            self.rated += each.qps_max > 0

    def take_changed(self) -> Iterator[tuple[bytes, bytes]]:
        """(prefix, record) of each that changed since the last call, its use among that."""
        changed, self._changed = self._changed, {}
        for prefix in changed:
            yield prefix, self._by_prefix[prefix].record().SerializeToString()

    # What the key space tells

    def put(self, key: bytes, value_size: int, before: Latest | None) -> None:
        quota = self.innermost(key)
        if quota is not None:
            self._count(quota, *growth(key, value_size, before))

    def delete(self, key: bytes, before: Latest) -> None:
        quota = self.innermost(key)
        if quota is not None:
            self._count(quota, -1, -(len(key) + value_size_of(before)))

    def _count(self, quota: Quota | None, keys: int, size: int) -> None:
        if not keys and not size:
            return
        while quota is not None:
            quota.used_keys += keys
            quota.used_bytes += size
            self._changed[quota.prefix] = None
            quota = quota.outer

    # What commands ask first

    def admit_put(self, key: bytes, value_size: int, before: Latest | None) -> None:
        """Raises PrefixQuotaExceeded."""
        quota = self.innermost(key)
        if quota is None:
            return
        keys, size = growth(key, value_size, before)
        while quota is not None:
            _refuse(quota, quota.exceeded(keys, size))
            quota = quota.outer

    def admit_txn(self, keyspace: Keys, operations: Sequence[RequestOp]) -> None:
        """Of a transaction counts what it leaves behind, not what is there on the way: it may make its own room.
        No two of its operations write the same key (checks.py), but for deletes. Raises PrefixQuotaExceeded."""
        grown = _Growth(self)
        for op in operations:
            put = op.request_put
            if op.WhichOneof("request") == "request_put" and not put.ignore_value and self.innermost(put.key):
                grown.add(put.key, *growth(put.key, len(put.value), keyspace.current(put.key)))
        if grown.problem() is None:
            return
        for key, before in _doomed(keyspace, operations):
            grown.add(key, -1, -(len(key) + value_size_of(before)))
        problem = grown.problem()
        if problem is not None:
            _refuse(*problem)


class _Growth:
    """What several writes add to each quota."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._by_prefix: dict[bytes, tuple[int, int]] = {}

    def add(self, key: bytes, keys: int, size: int) -> None:
        quota = self._quotas.innermost(key)
        while quota is not None:
            before = self._by_prefix.get(quota.prefix, (0, 0))
            self._by_prefix[quota.prefix] = before[0] + keys, before[1] + size
            quota = quota.outer

    def problem(self) -> tuple[Quota, tuple[str, str]] | None:
        """The first by prefix, the same on every member."""
        for prefix in sorted(self._by_prefix):
            quota = self._quotas.get(prefix)
            assert quota is not None
            found = quota.exceeded(*self._by_prefix[prefix])
            if found is not None:
                return quota, found
        return None


def _doomed(keyspace: Keys, operations: Iterable[RequestOp]) -> Iterator[tuple[bytes, Latest]]:
    """What the operations delete, each key once."""
    seen: set[bytes] = set()
    for op in operations:
        if op.WhichOneof("request") == "request_delete_range":
            start, end = key_range(op.request_delete_range.key, op.request_delete_range.range_end)
            for key, before in keyspace.latest_in(start, end):
                if key not in seen:
                    seen.add(key)
                    yield key, before


def _refuse(quota: Quota, problem: tuple[str, str] | None) -> None:
    if problem is not None:
        limit, reason = problem
        quota.refused[limit] += 1
        raise errors.PrefixQuotaExceeded(reason)


def growth(key: bytes, value_size: int, before: Latest | None) -> tuple[int, int]:
    """(keys, bytes) that a put adds."""
    if before is None or not before.version:
        return 1, len(key) + value_size
    return 0, value_size - value_size_of(before)


def value_size_of(latest: Latest) -> int:
    return len(KeyValue.FromString(latest.record[KV_AT:]).value)


def shown(prefix: bytes) -> str:
    return '"' + prefix.decode("utf-8", "backslashreplace") + '"'
