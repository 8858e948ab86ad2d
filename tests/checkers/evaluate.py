"""What a request must do and answer, written down a second time, from etcd's documentation of its API.

Naive on purpose: no encoding is spliced, nothing is cached. Shares no code with kvstore/state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from kvstore.pb import mvccpb_pb2
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from tests.checkers.history import KeyValue
from tests.checkers.timeline import Overlaid, View

LeaseExists = Callable[[int], bool]


class Refused(Exception):
    """The request fails; `args[0]` is the name of a class in kvstore/errors.py."""


class Effect(NamedTuple):
    """The versions it writes, in order, and its response without a header."""

    events: tuple[KeyValue, ...]
    response: Any


def run(request: Any, view: View, lease_exists: LeaseExists, compact_revision: int = 0) -> Effect:
    """A put, delete, transaction or range on the key space as it is in view. Raises Refused."""
    over = Overlaid(view)
    if isinstance(request, PutRequest):
        _check_put(request, over, lease_exists)
        response: Any = _put(request, over)
    elif isinstance(request, DeleteRangeRequest):
        response = _delete(request, over)
    elif isinstance(request, RangeRequest):
        _check_revision(request.revision, view.revision, compact_revision, zero=True)
        response = answer(request, over)
    elif isinstance(request, TxnRequest):
        path = _decide(request, over)
        for op in _flat(path):
            kind = op.WhichOneof("request")
            if kind == "request_put":
                _check_put(op.request_put, over, lease_exists)
        for op in _flat(path):
            if op.WhichOneof("request") == "request_range":
                _check_revision(op.request_range.revision, view.revision, compact_revision, zero=False)
        response = _txn(path, over)
    else:
        raise TypeError(f"no semantics for {type(request).__name__}")
    return Effect(tuple(over.events.values()), response)


def delete_keys(keys: Iterable[bytes], revision: int) -> tuple[KeyValue, ...]:
    """The tombstones of one revision."""
    return tuple(KeyValue(key, b"", 0, revision, 0, 0) for key in keys)


def proto(kv: KeyValue) -> mvccpb_pb2.KeyValue:
    return mvccpb_pb2.KeyValue(
        key=kv.key,
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        lease=kv.lease,
    )


def plain(kv: mvccpb_pb2.KeyValue) -> KeyValue:
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def interval(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """[start, end) of a request, end None: no end."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == b"\0" else range_end


def answer(request: RangeRequest, view: View) -> RangeResponse:
    start, end = interval(request.key, request.range_end)
    found = (view.at(request.revision) if request.revision > 0 else view).span(start, end)
    count = len(found)
    if request.count_only:
        return RangeResponse(count=count)
    bounds = (
        ("mod_revision", request.min_mod_revision, request.max_mod_revision),
        ("create_revision", request.min_create_revision, request.max_create_revision),
    )
    filtering = any(low or high for _, low, high in bounds)
    for name, low, high in bounds:
        found = [kv for kv in found if low <= getattr(kv, name) and (not high or getattr(kv, name) <= high)]
    order = request.sort_order
    if order == RangeRequest.NONE and request.sort_target != RangeRequest.KEY:
        order = RangeRequest.ASCEND
        if request.limit > 0 and not filtering:
            found = found[: request.limit + 1]
    if order != RangeRequest.NONE:
        name = ("key", "version", "create_revision", "mod_revision", "value")[request.sort_target]
        found = sorted(found, key=lambda kv: getattr(kv, name), reverse=order == RangeRequest.DESCEND)
    more = 0 < request.limit < len(found)
    if more:
        found = found[: request.limit]
    if request.keys_only:
        found = [kv._replace(value=b"") for kv in found]
    return RangeResponse(kvs=[proto(kv) for kv in found], more=more, count=count)


def _put(request: PutRequest, over: Overlaid) -> PutResponse:
    before = over.get(request.key)
    value, lease = request.value, request.lease
    if before is not None:
        value = before.value if request.ignore_value else value
        lease = before.lease if request.ignore_lease else lease
    revision = over.next_revision
    over.events[request.key] = KeyValue(
        request.key,
        value,
        before.create_revision if before else revision,
        revision,
        before.version + 1 if before else 1,
        lease,
    )
    if request.prev_kv and before is not None:
        return PutResponse(prev_kv=proto(before))
    return PutResponse()


def _delete(request: DeleteRangeRequest, over: Overlaid) -> DeleteRangeResponse:
    found = over.span(*interval(request.key, request.range_end))
    for tombstone in delete_keys((kv.key for kv in found), over.next_revision):
        over.events[tombstone.key] = tombstone
    prev_kvs = [proto(kv) for kv in found] if request.prev_kv else []
    return DeleteRangeResponse(deleted=len(found), prev_kvs=prev_kvs)


class _Path(NamedTuple):
    succeeded: bool
    ops: list[RequestOp]
    nested: list[_Path]


def _decide(request: TxnRequest, view: View) -> _Path:
    succeeded = all(_holds(compare, view) for compare in request.compare)
    ops = list(request.success if succeeded else request.failure)
    nested = [_decide(op.request_txn, view) for op in ops if op.WhichOneof("request") == "request_txn"]
    return _Path(succeeded, ops, nested)


def _flat(path: _Path) -> list[RequestOp]:
    nested, found = iter(path.nested), list[RequestOp]()
    for op in path.ops:
        found += _flat(next(nested)) if op.WhichOneof("request") == "request_txn" else [op]
    return found


def _txn(path: _Path, over: Overlaid) -> TxnResponse:
    response, nested = TxnResponse(succeeded=path.succeeded), iter(path.nested)
    for op in path.ops:
        kind, part = op.WhichOneof("request"), response.responses.add()
        if kind == "request_range":
            part.response_range.CopyFrom(answer(op.request_range, over))
            part.response_range.header.revision = over.revision
        elif kind == "request_put":
            part.response_put.CopyFrom(_put(op.request_put, over))
            part.response_put.header.revision = over.revision
        elif kind == "request_delete_range":
            part.response_delete_range.CopyFrom(_delete(op.request_delete_range, over))
            part.response_delete_range.header.revision = over.revision
        else:
            part.response_txn.CopyFrom(_txn(next(nested), over))
            part.response_txn.header.SetInParent()
    return response


def _check_put(request: PutRequest, over: Overlaid, lease_exists: LeaseExists) -> None:
    if (request.ignore_value or request.ignore_lease) and over.get(request.key) is None:
        raise Refused("KeyNotFound")
    if request.lease and not lease_exists(request.lease):
        raise Refused("LeaseNotFound")


def _check_revision(revision: int, current: int, compact_revision: int, *, zero: bool) -> None:
    if revision > current:
        raise Refused("FutureRevision")
    lowest = compact_revision or -1  # where etcd's stands before the first compaction
    if revision < lowest and (revision > 0 if zero else revision != 0):
        raise Refused("Compacted")


_MISSING = KeyValue(b"", b"", 0, 0, 0, 0)


def _holds(compare: Compare, view: View) -> bool:
    if compare.range_end:
        found = view.span(*interval(compare.key, compare.range_end))
    else:
        kv = view.get(compare.key)
        found = [] if kv is None else [kv]
    if not found:
        return compare.target != Compare.VALUE and _compares(compare, _MISSING)
    return all(_compares(compare, kv) for kv in found)


def _compares(compare: Compare, kv: KeyValue) -> bool:
    actual: Any
    wanted: Any
    if compare.target == Compare.VALUE:
        actual, wanted = kv.value, compare.value
    elif compare.target == Compare.VERSION:
        actual, wanted = kv.version, compare.version
    elif compare.target == Compare.CREATE:
        actual, wanted = kv.create_revision, compare.create_revision
    elif compare.target == Compare.MOD:
        actual, wanted = kv.mod_revision, compare.mod_revision
    else:
        actual, wanted = kv.lease, compare.lease
    results = {
        Compare.EQUAL: actual == wanted,
        Compare.GREATER: actual > wanted,
        Compare.LESS: actual < wanted,
        Compare.NOT_EQUAL: actual != wanted,
    }
    return bool(results[compare.result])
