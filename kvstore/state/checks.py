"""What is wrong with a request whatever the state is. Services call these before they propose anything.

The order of checks and the errors are etcd's (api/v3rpc/key.go). What depends on state (leases, ignore_value on
a missing key, a range's revision) is checked at apply, in apply.py and txn.py.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kvstore import errors
from kvstore.pb.etcdserverpb_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.state.space import PUT_COST

_SORT_ORDERS = range(3)
_SORT_TARGETS = range(5)


def check_put(request: PutRequest) -> None:
    if not request.key:
        raise errors.EmptyKey
    if request.ignore_value and request.value:
        raise errors.ValueProvided
    if request.ignore_lease and request.lease:
        raise errors.LeaseProvided


def check_range(request: RangeRequest) -> None:
    if not request.key:
        raise errors.EmptyKey
    if request.sort_order not in _SORT_ORDERS or request.sort_target not in _SORT_TARGETS:
        raise errors.InvalidSortOption


def check_delete(request: DeleteRangeRequest) -> None:
    if not request.key:
        raise errors.EmptyKey


def check_txn(request: TxnRequest, max_ops: int) -> None:
    """A nested transaction has what its parent's longest list left of max_ops."""
    _check_shape(request, max_ops)
    _writes_of(request.success)
    _writes_of(request.failure)


def is_read_only(request: TxnRequest) -> bool:
    """Only ranges at the top level; a nested transaction counts as a write, as in etcd."""
    return all(op.WhichOneof("request") == "request_range" for ops in _branches(request) for op in ops)


def is_serializable(request: TxnRequest) -> bool:
    return all(
        op.WhichOneof("request") == "request_range" and op.request_range.serializable
        for ops in _branches(request)
        for op in ops
    )


def put_cost(request: TxnRequest) -> int:
    """What its puts may take at most, whichever way it goes; 0: it has none."""
    return max(sum(map(_cost, ops)) for ops in _branches(request))


def _cost(op: RequestOp) -> int:
    kind = op.WhichOneof("request")
    if kind == "request_put":
        return PUT_COST + len(op.request_put.key) + len(op.request_put.value)
    return put_cost(op.request_txn) if kind == "request_txn" else 0


def _branches(request: TxnRequest) -> tuple[Sequence[RequestOp], Sequence[RequestOp]]:
    return request.success, request.failure


def _check_shape(request: TxnRequest, max_ops: int) -> None:
    count = max(len(request.compare), len(request.success), len(request.failure))
    if count > max_ops:
        raise errors.TooManyOperations
    if any(not compare.key for compare in request.compare):
        raise errors.EmptyKey
    for ops in _branches(request):
        for op in ops:
            _check_op(op, max_ops - count)


def _check_op(op: RequestOp, max_ops: int) -> None:
    kind = op.WhichOneof("request")
    if kind == "request_range":
        check_range(op.request_range)
    elif kind == "request_put":
        check_put(op.request_put)
    elif kind == "request_delete_range":
        check_delete(op.request_delete_range)
    elif kind == "request_txn":
        _check_shape(op.request_txn, max_ops)
    else:
        raise errors.KeyNotFound  # etcd's own answer to an operation that says nothing


@dataclass(slots=True)
class _Writes:
    """What one list of operations may write, both branches of nested transactions included."""

    puts: list[bytes] = field(default_factory=list)  # sorted, each once
    deletes: list[tuple[bytes, bytes | None]] = field(default_factory=list)  # [start, end), None: no end


def _writes_of(ops: Iterable[RequestOp]) -> _Writes:
    """Raises DuplicateKey where a key could be written twice in one revision: put twice, or put and deleted,
    in either order and at any depth. The two branches of one nested transaction exclude one another, so what
    one puts the other may put or delete.

    Stricter than etcd in one case: a delete in a later nested transaction over a put in an earlier one.
    etcd lets it pass and writes the key twice in one revision.
    """
    put_by: dict[bytes, int] = {}  # key to the operation, by its place in the list
    deletes: list[tuple[int, bytes, bytes | None]] = []
    for place, op in enumerate(ops):
        writes = _writes_of_one(op)
        for key in writes.puts:
            if key in put_by:
                raise errors.DuplicateKey
            put_by[key] = place
        deletes += [(place, start, end) for start, end in writes.deletes]
    ordered = sorted(put_by)
    for place, start, end in deletes:
        for at in range(bisect.bisect_left(ordered, start), len(ordered)):
            if end is not None and ordered[at] >= end:
                break
            if put_by[ordered[at]] != place:
                raise errors.DuplicateKey
    return _Writes(ordered, [(start, end) for _, start, end in deletes])


def _writes_of_one(op: RequestOp) -> _Writes:
    kind = op.WhichOneof("request")
    if kind == "request_put":
        return _Writes([op.request_put.key])
    if kind == "request_delete_range":
        request = op.request_delete_range
        return _Writes([], [_interval(request.key, request.range_end)])
    if kind == "request_txn":
        then, otherwise = _writes_of(op.request_txn.success), _writes_of(op.request_txn.failure)
        return _Writes(list({*then.puts, *otherwise.puts}), then.deletes + otherwise.deletes)
    return _Writes()


def _interval(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == b"\0" else range_end
