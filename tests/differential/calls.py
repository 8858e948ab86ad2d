"""What is asked: sequences of calls over few keys, so that they meet, and with every field now and then.

A revision is generated as a distance from the store's newest one, and filled in when the call is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from kvstore.pb import etcdserverpb_pb2 as pb

KEYS = (b"a", b"b", b"ba", b"b\0", b"c", b"\0", b"\xff", b"a" * 600)
ENDS = (b"", b"", b"\0", b"b", b"c", b"bb", b"\xff\xff", b"a", b"b\0")
VALUES = (b"", b"0", b"1", b"value", b"\xff\0", b"v" * 5000)
LEASES = (*[0] * 9, 101, 102, 103, -7)
SMALL = st.integers(-2, 4)


@dataclass(frozen=True)
class Step:
    """revision: how far from the newest one the call's own is, None where it has none."""

    name: str
    request: Any
    revision: int | None = None

    def __repr__(self) -> str:
        text = " ".join(str(self.request).split())
        at = "" if self.revision is None else f" @ newest{self.revision:+d}"
        return f"{self.name}({text}){at}"


def often(value: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """value, three times in four."""
    return st.integers(0, 3).flatmap(lambda n: other if n == 3 else st.just(value))


keys = st.sampled_from(KEYS)
key_or_none = often(b"a", st.sampled_from((*KEYS, b"")))
ends = st.sampled_from(ENDS)
values = st.sampled_from(VALUES)
leases = st.sampled_from(LEASES)
flags = often(False, st.booleans())
revisions = often(None, st.integers(-6, 1))

ranges = st.builds(
    pb.RangeRequest,
    key=st.one_of(keys, key_or_none),
    range_end=ends,
    limit=often(0, SMALL),
    sort_order=often(0, st.integers(0, 2)),
    sort_target=often(0, st.integers(0, 4)),
    serializable=flags,
    keys_only=flags,
    count_only=flags,
    min_mod_revision=often(0, SMALL),
    max_mod_revision=often(0, SMALL),
    min_create_revision=often(0, SMALL),
    max_create_revision=often(0, SMALL),
)
puts = st.builds(
    pb.PutRequest,
    key=st.one_of(keys, key_or_none),
    value=values,
    lease=leases,
    prev_kv=flags,
    ignore_value=flags,
    ignore_lease=flags,
)
deletes = st.builds(
    pb.DeleteRangeRequest, key=st.one_of(keys, key_or_none), range_end=often(b"", ends), prev_kv=flags
)
in_txn = deletes.filter(lambda request: request.range_end != b"\0")
"""etcd takes [key, end of all) for empty when it looks for a key that is put and deleted, and writes it twice."""


@st.composite
def compares(draw: st.DrawFn) -> pb.Compare:
    target: Any = draw(st.integers(0, 4))
    result: Any = draw(st.integers(0, 3))
    compare = pb.Compare(
        key=draw(st.one_of(keys, key_or_none)),
        target=target,
        result=result,
        range_end=draw(often(b"", ends)),
    )
    union = draw(often(target, st.integers(-1, 4)))  # which value is there, should it be another's
    if union == pb.Compare.VALUE:
        compare.value = draw(values)
    elif union == pb.Compare.LEASE:
        compare.lease = draw(leases)
    elif union >= 0:
        setattr(compare, ("version", "create_revision", "mod_revision")[union], draw(SMALL))
    return compare


def operations(depth: int) -> st.SearchStrategy[list[pb.RequestOp]]:
    kinds = [
        st.builds(pb.RequestOp, request_range=ranges),
        st.builds(pb.RequestOp, request_put=puts),
        st.builds(pb.RequestOp, request_delete_range=in_txn),
    ]
    if depth:
        kinds.append(st.builds(pb.RequestOp, request_txn=txns(depth - 1)))
    else:
        kinds.append(st.just(pb.RequestOp()))
    return st.lists(st.one_of(kinds), max_size=3).filter(_is_answered_alike)


def _is_answered_alike(ops: list[pb.RequestOp]) -> bool:
    """Not where a later nested transaction may delete what an earlier one may put: etcd takes it, and writes the
    key twice in one revision; it is refused here."""
    nested = [op for op in ops if op.HasField("request_txn")]
    return not any(
        _holds(before, "request_put") and _holds(after, "request_delete_range")
        for place, after in enumerate(nested)
        for before in nested[:place]
    )


def _holds(op: pb.RequestOp, kind: str) -> bool:
    own: str | None = op.WhichOneof("request")
    if own != "request_txn":
        return own == kind
    return any(_holds(inner, kind) for inner in (*op.request_txn.success, *op.request_txn.failure))


def txns(depth: int) -> st.SearchStrategy[pb.TxnRequest]:
    return st.builds(
        pb.TxnRequest,
        compare=st.lists(compares(), max_size=2),
        success=st.deferred(lambda: operations(depth)),
        failure=st.deferred(lambda: operations(depth)),
    )


grants = st.builds(
    pb.LeaseGrantRequest,
    ID=st.sampled_from((101, 102, 103, -7)),
    TTL=st.sampled_from((0, -1, 1, 5000, 9_000_000_000, 9_000_000_001)),
)
watches = st.builds(
    pb.WatchCreateRequest,
    key=st.one_of(keys, key_or_none),
    range_end=ends,
    prev_kv=st.booleans(),
    filters=often([], st.lists(st.integers(0, 1), max_size=2)),
    watch_id=often(0, st.integers(0, 3)),
)

steps = st.one_of(
    st.builds(Step, st.just("Range"), ranges, often(None, st.integers(-6, 1))),
    st.builds(Step, st.just("Range"), ranges, revisions),
    st.builds(Step, st.just("Put"), puts),
    st.builds(Step, st.just("Put"), puts),
    st.builds(Step, st.just("Put"), puts),
    st.builds(Step, st.just("DeleteRange"), deletes),
    st.builds(Step, st.just("Txn"), txns(2)),
    st.builds(Step, st.just("Txn"), txns(1)),
    st.builds(Step, st.just("LeaseGrant"), grants),
    st.builds(Step, st.just("LeaseRevoke"), st.builds(pb.LeaseRevokeRequest, ID=leases)),
    st.builds(
        Step,
        st.just("LeaseTimeToLive"),
        st.builds(pb.LeaseTimeToLiveRequest, ID=leases, keys=st.booleans()),
    ),
    st.builds(Step, st.just("LeaseLeases"), st.just(pb.LeaseLeasesRequest())),
    st.builds(Step, st.just("Compact"), st.builds(pb.CompactionRequest), st.integers(-4, 1)),
    *[
        st.builds(Step, st.just(name), made)
        for name, made in (("Range", ranges), ("Txn", txns(1)), ("Put", puts))
    ],
)
watching = st.builds(Step, st.just("Watch"), watches, st.integers(-6, 0))
"""Few: for each that begins in the past etcd takes 100 ms."""
sequences = st.lists(st.integers(0, 79).flatmap(lambda n: steps if n else watching), min_size=1, max_size=100)
