"""Transactions: decide every branch, check every operation, only then run them in order.

Compares see the state before the transaction, those of nested transactions too. Checks run before the first
write, so a failing operation aborts the whole transaction and nothing of it is seen. Later ranges see earlier
puts, at revision + 1. (etcd server/etcdserver/txn/txn.go)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from kvstore import errors
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.state import ranges
from kvstore.state.mvcc import Keyspace
from kvstore.state.records import KV_AT
from kvstore.state.varint import field, varint

_HEADER, _EMPTY_HEADER = b"\x0a", b"\x0a\x00"
_SUCCEEDED, _RESPONSES = b"\x10\x01", b"\x1a"
_RANGE, _PUT, _DELETE, _TXN = b"\x0a", b"\x12", b"\x1a", b"\x22"
_MISSING = KeyValue()


class Writer(Protocol):
    """What a transaction needs of apply.py: the same puts and deletes as outside of one, already checked."""

    keyspace: Keyspace

    def write_put(self, request: PutRequest) -> bytes: ...

    def write_delete(self, request: DeleteRangeRequest) -> bytes: ...

    def lease_exists(self, lease_id: int) -> bool: ...


class Path:
    """Which branch each transaction of the tree takes, decided before anything is written."""

    __slots__ = ("nested", "ops", "succeeded")

    def __init__(self, keyspace: Keyspace, request: TxnRequest) -> None:
        self.succeeded = all(_holds(keyspace, compare) for compare in request.compare)
        self.ops: Sequence[RequestOp] = request.success if self.succeeded else request.failure
        self.nested = [
            Path(keyspace, op.request_txn) for op in self.ops if op.WhichOneof("request") == "request_txn"
        ]

    def operations(self) -> Iterator[RequestOp]:
        """Every operation that will run, in order, without the nested transactions themselves."""
        nested = iter(self.nested)
        for op in self.ops:
            if op.WhichOneof("request") == "request_txn":
                yield from next(nested).operations()
            else:
                yield op


def run(writer: Writer, request: TxnRequest) -> bytes:
    """Runs it and returns the TxnResponse without its header. On a StoreError nothing was written."""
    path = Path(writer.keyspace, request)
    for op in path.operations():
        if op.WhichOneof("request") == "request_put":
            _check_put(writer, op.request_put)
    _check_ranges(writer.keyspace, path)
    quotas = writer.keyspace.quotas
    if quotas is not None:
        quotas.admit_txn(writer.keyspace, list(path.operations()))
    return _run(writer, path)


def read_only(keyspace: Keyspace, request: TxnRequest) -> bytes:
    """The same for a transaction of ranges alone, which needs no log entry."""
    path = Path(keyspace, request)
    _check_ranges(keyspace, path)
    parts = [_SUCCEEDED] if path.succeeded else []
    keyspace.meter.ranges += len(path.ops)
    for op in path.ops:
        parts.append(_response(_RANGE, keyspace.read_revision, ranges.answer(keyspace, op.request_range)))
    return b"".join(parts)


def _check_put(writer: Writer, request: PutRequest) -> None:
    if (request.ignore_value or request.ignore_lease) and writer.keyspace.get(request.key) is None:
        raise errors.KeyNotFound
    if request.lease and not writer.lease_exists(request.lease):
        raise errors.LeaseNotFound


def _check_ranges(keyspace: Keyspace, path: Path) -> None:
    """Against the revision before the transaction. A negative revision is below any compaction; before the first one
    -1 still is the newest, because that is where etcd's compaction point stands then."""
    lowest = keyspace.compact_revision or -1
    for op in path.operations():
        if op.WhichOneof("request") != "request_range":
            continue
        revision = op.request_range.revision
        if revision > keyspace.revision:
            raise errors.FutureRevision
        if revision and revision < lowest:
            raise errors.Compacted(keyspace.compact_revision)


def _run(writer: Writer, path: Path) -> bytes:
    keyspace = writer.keyspace
    parts = [_SUCCEEDED] if path.succeeded else []
    nested = iter(path.nested)
    for op in path.ops:
        kind = op.WhichOneof("request")
        if kind == "request_range":
            keyspace.meter.ranges += 1
            body = ranges.answer(keyspace, op.request_range)
            parts.append(_response(_RANGE, keyspace.read_revision, body))
        elif kind == "request_put":
            body = writer.write_put(op.request_put)
            parts.append(_response(_PUT, keyspace.read_revision, body))
        elif kind == "request_delete_range":
            body = writer.write_delete(op.request_delete_range)
            parts.append(_response(_DELETE, keyspace.read_revision, body))
        elif kind == "request_txn":
            body = _run(writer, next(nested))
            parts.append(field(_RESPONSES, field(_TXN, _EMPTY_HEADER + body)))
    return b"".join(parts)


def _response(kind: bytes, revision: int, body: bytes) -> bytes:
    """One ResponseOp; its response's header carries the revision and nothing else."""
    return field(_RESPONSES, field(kind, field(_HEADER, b"\x18" + varint(revision)) + body))


def _holds(keyspace: Keyspace, compare: Compare) -> bool:
    """For every key of the range. A missing key compares as zeroes, except that no value compare holds: not
    even NOT_EQUAL."""
    met = False
    if compare.range_end:
        start, end = ranges.interval(compare.key, compare.range_end)
        for _, record in keyspace.scan(start, end):
            met = True
            if not _compares(compare, KeyValue.FromString(bytes(record[KV_AT:]))):
                return False
    else:
        kv = keyspace.get(compare.key)
        if kv is not None:
            return _compares(compare, KeyValue.FromString(bytes(kv)))
    return met or (compare.target != Compare.VALUE and _compares(compare, _MISSING))


def _compares(compare: Compare, kv: KeyValue) -> bool:
    """A target_union that is missing or of another target counts as zero; so does an unknown target on both
    sides; an unknown result always holds. All three as in etcd."""
    actual: int | bytes
    wanted: int | bytes
    target = compare.target
    if target == Compare.VALUE:
        actual, wanted = kv.value, compare.value
        sign = (actual > wanted) - (actual < wanted)
    else:
        if target == Compare.VERSION:
            actual, wanted = kv.version, compare.version
        elif target == Compare.CREATE:
            actual, wanted = kv.create_revision, compare.create_revision
        elif target == Compare.MOD:
            actual, wanted = kv.mod_revision, compare.mod_revision
        elif target == Compare.LEASE:
            actual, wanted = kv.lease, compare.lease
        else:
            actual = wanted = 0
        sign = (actual > wanted) - (actual < wanted)
    if compare.result == Compare.EQUAL:
        return sign == 0
    if compare.result == Compare.GREATER:
        return sign > 0
    if compare.result == Compare.LESS:
        return sign < 0
    return sign != 0 if compare.result == Compare.NOT_EQUAL else True
