"""Requests from arguments: keys and ranges, operations, comparisons. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvstore.pb import etcdserverpb_pb2 as pb

Key = str | bytes
SortOrder = Literal["ascend", "descend"]
SortTarget = Literal["key", "version", "create", "mod", "value"]

EVERYTHING = b"\0"
_SORT_ORDERS = {"ascend": pb.RangeRequest.ASCEND, "descend": pb.RangeRequest.DESCEND}
_SORT_TARGETS = {
    "key": pb.RangeRequest.KEY,
    "version": pb.RangeRequest.VERSION,
    "create": pb.RangeRequest.CREATE,
    "mod": pb.RangeRequest.MOD,
    "value": pb.RangeRequest.VALUE,
}


@dataclass(frozen=True, slots=True)
class Compare:
    """One condition of a transaction. Made by comparing: `Compare.version("k") == 0`."""

    message: pb.Compare

    @staticmethod
    def version(key: Key, **scope: bool | Key | None) -> Comparable:
        """How often the key was written since it was created; 0: it does not exist."""
        return Comparable("version", pb.Compare.VERSION, key, **scope)

    @staticmethod
    def create_revision(key: Key, **scope: bool | Key | None) -> Comparable:
        return Comparable("create_revision", pb.Compare.CREATE, key, **scope)

    @staticmethod
    def mod_revision(key: Key, **scope: bool | Key | None) -> Comparable:
        return Comparable("mod_revision", pb.Compare.MOD, key, **scope)

    @staticmethod
    def value(key: Key, **scope: bool | Key | None) -> Comparable:
        """False for a key that does not exist, whatever it is compared with, != included."""
        return Comparable("value", pb.Compare.VALUE, key, **scope)

    @staticmethod
    def lease(key: Key, **scope: bool | Key | None) -> Comparable:
        return Comparable("lease", pb.Compare.LEASE, key, **scope)


class Comparable:
    """The left side of a comparison. With prefix=True or range_end it must hold for every key of the range."""

    def __init__(
        self, field: str, target: pb.Compare.CompareTarget, key: Key, **scope: bool | Key | None
    ) -> None:
        unknown = scope.keys() - {"prefix", "range_end"}
        if unknown:
            raise TypeError(f"unknown argument {sorted(unknown)[0]!r}")
        range_end = scope.get("range_end")
        if isinstance(range_end, bool):
            raise TypeError("range_end is a key")
        self._field = field
        self._target = target
        self._key, self._range_end = key_range(key, range_end=range_end, prefix=bool(scope.get("prefix")))

    def __eq__(self, operand: object) -> Compare:  # type: ignore[override]
        return self._compare(pb.Compare.EQUAL, operand)

    def __ne__(self, operand: object) -> Compare:  # type: ignore[override]
        return self._compare(pb.Compare.NOT_EQUAL, operand)

    def __gt__(self, operand: object) -> Compare:
        return self._compare(pb.Compare.GREATER, operand)

    def __lt__(self, operand: object) -> Compare:
        return self._compare(pb.Compare.LESS, operand)

    __hash__ = None  # type: ignore[assignment]

    def _compare(self, result: pb.Compare.CompareResult, operand: object) -> Compare:
        message = pb.Compare(result=result, target=self._target, key=self._key, range_end=self._range_end)
        if self._field == "value":
            if not isinstance(operand, str | bytes):
                raise TypeError(f"a value is compared with str or bytes, not {type(operand).__name__}")
            message.value = to_bytes(operand)
        else:
            if not isinstance(operand, int):
                raise TypeError(f"a {self._field} is compared with int, not {type(operand).__name__}")
            setattr(message, self._field, operand)
        return Compare(message)


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of a transaction; the arguments are those of the client's methods."""

    message: pb.RequestOp

    @staticmethod
    def get(
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
        sort_order: SortOrder | None = None,
        sort_target: SortTarget | None = None,
    ) -> Op:
        request = range_request(
            key,
            range_end=range_end,
            prefix=prefix,
            from_key=from_key,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
            sort_order=sort_order,
            sort_target=sort_target,
        )
        return Op(pb.RequestOp(request_range=request))

    @staticmethod
    def put(
        key: Key,
        value: str | bytes = b"",
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> Op:
        request = put_request(
            key,
            value,
            lease=lease,
            prev_kv=prev_kv,
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )
        return Op(pb.RequestOp(request_put=request))

    @staticmethod
    def delete(
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
        prev_kv: bool = False,
    ) -> Op:
        request = delete_request(key, range_end=range_end, prefix=prefix, from_key=from_key, prev_kv=prev_kv)
        return Op(pb.RequestOp(request_delete_range=request))

    @staticmethod
    def txn(compare: Sequence[Compare] = (), success: Sequence[Op] = (), failure: Sequence[Op] = ()) -> Op:
        return Op(pb.RequestOp(request_txn=txn_request(compare, success, failure)))


def to_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys with this prefix; one zero byte, "to the end", where there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else EVERYTHING


def key_range(
    key: Key, *, range_end: Key | None = None, prefix: bool = False, from_key: bool = False
) -> tuple[bytes, bytes]:
    """(key, range_end) as the protocol has them: one key, [key, range_end), a prefix, or all from key on."""
    if (range_end is not None) + prefix + from_key > 1:
        raise ValueError("of range_end, prefix and from_key only one can be given")
    first = to_bytes(key)
    if prefix:
        return (first, prefix_end(first)) if first else (EVERYTHING, EVERYTHING)
    if from_key:
        return first or EVERYTHING, EVERYTHING
    return first, b"" if range_end is None else to_bytes(range_end)


def range_request(
    key: Key,
    *,
    range_end: Key | None = None,
    prefix: bool = False,
    from_key: bool = False,
    revision: int = 0,
    limit: int = 0,
    serializable: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    sort_order: SortOrder | None = None,
    sort_target: SortTarget | None = None,
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
) -> pb.RangeRequest:
    first, end = key_range(key, range_end=range_end, prefix=prefix, from_key=from_key)
    return pb.RangeRequest(
        key=first,
        range_end=end,
        revision=revision,
        limit=limit,
        serializable=serializable,
        keys_only=keys_only,
        count_only=count_only,
        sort_order=_SORT_ORDERS[sort_order] if sort_order else pb.RangeRequest.NONE,
        sort_target=_SORT_TARGETS[sort_target] if sort_target else pb.RangeRequest.KEY,
        min_mod_revision=min_mod_revision,
        max_mod_revision=max_mod_revision,
        min_create_revision=min_create_revision,
        max_create_revision=max_create_revision,
    )


def put_request(
    key: Key,
    value: str | bytes = b"",
    *,
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> pb.PutRequest:
    return pb.PutRequest(
        key=to_bytes(key),
        value=to_bytes(value),
        lease=lease,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )


def delete_request(
    key: Key,
    *,
    range_end: Key | None = None,
    prefix: bool = False,
    from_key: bool = False,
    prev_kv: bool = False,
) -> pb.DeleteRangeRequest:
    first, end = key_range(key, range_end=range_end, prefix=prefix, from_key=from_key)
    return pb.DeleteRangeRequest(key=first, range_end=end, prev_kv=prev_kv)


def txn_request(
    compare: Sequence[Compare] = (), success: Sequence[Op] = (), failure: Sequence[Op] = ()
) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[condition.message for condition in compare],
        success=[op.message for op in success],
        failure=[op.message for op in failure],
    )


def is_read_only(request: pb.TxnRequest) -> bool:
    """True when no branch can write. A nested transaction counts as a write, as it does for the server."""
    return all(op.HasField("request_range") for branch in (request.success, request.failure) for op in branch)
