"""Transactions as etcd runs them: what compares see, what aborts all, what later operations see."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore import errors
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from tests.unit.state.harness import Replica

GREATER, LESS, NOT_EQUAL = Compare.GREATER, Compare.LESS, Compare.NOT_EQUAL


def put(key: bytes, value: bytes = b"", **options: int) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, value=value, **options))  # type: ignore[arg-type]


def get(key: bytes, end: bytes = b"", revision: int = 0) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key, range_end=end, revision=revision))


def delete(key: bytes, end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=end, prev_kv=True))


def nested(
    *then: RequestOp, compare: Compare | None = None, otherwise: tuple[RequestOp, ...] = ()
) -> RequestOp:
    compares = [compare] if compare is not None else []
    return RequestOp(request_txn=TxnRequest(compare=compares, success=then, failure=otherwise))


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    """k=1 (lease 5) and l=2, at revisions 2 and 3."""
    replica = Replica(str(tmp_path))
    replica.grant(5)
    replica.put(b"k", b"1", lease=5)
    replica.put(b"l", b"2")
    return replica


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare(key=b"k", target=Compare.VALUE, value=b"1"), True),
        (Compare(key=b"k", target=Compare.VALUE, result=LESS, value=b"2"), True),
        (Compare(key=b"k", target=Compare.VALUE), False),  # no target_union compares with nothing
        (Compare(key=b"k", target=Compare.VERSION, version=1), True),
        (Compare(key=b"k", target=Compare.CREATE, result=GREATER, create_revision=1), True),
        (Compare(key=b"k", target=Compare.MOD, result=NOT_EQUAL, mod_revision=2), False),
        (Compare(key=b"k", target=Compare.LEASE, lease=5), True),
        (Compare(key=b"k", target=Compare.VERSION, value=b"1"), False),  # another target's union is zero
        (Compare(key=b"x", target=Compare.VERSION, version=0), True),
        (Compare(key=b"x", target=Compare.CREATE, result=LESS, create_revision=1), True),
        (Compare(key=b"x", target=Compare.LEASE), True),
        (Compare(key=b"x", target=Compare.VALUE, result=NOT_EQUAL, value=b"1"), False),  # never holds
        (Compare(key=b"k", range_end=b"m", target=Compare.VERSION, version=1), True),
        (Compare(key=b"k", range_end=b"m", target=Compare.VALUE, value=b"1"), False),
        (Compare(key=b"x", range_end=b"z", target=Compare.MOD, mod_revision=0), True),
        (Compare(key=b"x", range_end=b"z", target=Compare.VALUE, result=NOT_EQUAL, value=b"1"), False),
        (Compare(key=b"k", target=9, version=7), True),  # type: ignore[arg-type]
        (Compare(key=b"k", result=9, version=7), True),  # type: ignore[arg-type]
    ],
)
def test_compares(replica: Replica, compare: Compare, holds: bool) -> None:
    assert replica.txn(TxnRequest(compare=[compare])).succeeded is holds


def test_the_empty_transaction_succeeds_and_changes_nothing(replica: Replica) -> None:
    response = replica.txn(TxnRequest())
    assert (response.succeeded, response.header.revision) == (True, 3)


def test_later_operations_see_earlier_ones_at_the_next_revision(replica: Replica) -> None:
    operations = [get(b"k"), put(b"a", b"9"), get(b"a"), delete(b"k"), get(b"\0", b"\0"), delete(b"x")]
    response = replica.txn(TxnRequest(success=operations))
    before, first, seen, gone, rest, nothing = response.responses
    assert before.response_range.header.revision == 3
    assert [first.response_put.header.revision, seen.response_range.header.revision] == [4, 4]
    assert seen.response_range.kvs[0].mod_revision == 4
    assert (gone.response_delete_range.deleted, gone.response_delete_range.prev_kvs[0].value) == (1, b"1")
    assert [kv.key for kv in rest.response_range.kvs] == [b"a", b"l"]
    assert (nothing.response_delete_range.deleted, nothing.response_delete_range.header.revision) == (0, 4)
    assert response.header.revision == 4
    assert replica.machine.lessor.keys(5) == []


def test_compares_of_nested_transactions_see_the_state_before_all(replica: Replica) -> None:
    fresh = Compare(key=b"new", target=Compare.VERSION, version=0)
    inner = nested(put(b"inner"), compare=fresh, otherwise=(put(b"wrong"),))
    response = replica.txn(TxnRequest(success=[put(b"new"), inner]))
    assert response.responses[1].response_txn.succeeded
    assert response.responses[1].response_txn.HasField("header")
    assert response.responses[1].response_txn.header.revision == 0, "etcd leaves a nested header empty"
    assert response.responses[1].response_txn.responses[0].response_put.header.revision == 4
    assert sorted(replica.values()) == [b"inner", b"k", b"l", b"new"]


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (put(b"z", lease=99), errors.LeaseNotFound),
        (put(b"z", ignore_value=True), errors.KeyNotFound),
        (put(b"z", b"1", ignore_lease=True), errors.KeyNotFound),
        (get(b"k", revision=4), errors.FutureRevision),
        (get(b"k", revision=-2), errors.Compacted),
        (nested(put(b"z", lease=99)), errors.LeaseNotFound),
        (nested(get(b"k", revision=4)), errors.FutureRevision),
    ],
)
def test_one_failing_operation_aborts_all(
    replica: Replica, failing: RequestOp, error: type[errors.StoreError]
) -> None:
    with pytest.raises(error):
        replica.txn(TxnRequest(success=[put(b"a"), failing]))
    assert (sorted(replica.values()), replica.machine.revision) == ([b"k", b"l"], 3)


def test_a_range_below_the_compaction_point_fails_the_same_way_on_every_member(replica: Replica) -> None:
    """etcd 18667: compaction is an entry, so its place among the others is the same everywhere, however far
    the removal behind it has come."""
    replica.put(b"k", b"3")
    replica.compact(3)
    for _ in range(2):
        with pytest.raises(errors.Compacted):
            replica.txn(TxnRequest(success=[put(b"a"), get(b"k", revision=2)]))
        assert replica.txn(TxnRequest(success=[get(b"k", revision=3)])).responses
        replica.turns()


def test_a_read_only_transaction_answers_like_a_replicated_one(replica: Replica) -> None:
    request = TxnRequest(success=[get(b"k"), get(b"\0", b"\0", revision=2)])
    revision, body = replica.machine.read_only_txn(request)
    replicated = replica.txn(request)
    replicated.ClearField("header")
    assert (revision, TxnResponse.FromString(body)) == (3, replicated)
    with pytest.raises(errors.Compacted):
        replica.machine.read_only_txn(TxnRequest(success=[get(b"k", revision=-2)]))


def test_a_negative_revision_is_compacted_but_for_one_before_the_first_compaction(replica: Replica) -> None:
    """etcd's compaction point stands at -1 until then."""
    replica.put(b"k", b"v")
    assert replica.txn(TxnRequest(success=[get(b"k", revision=-1)])).responses[0].response_range.count == 1
    with pytest.raises(errors.Compacted):
        replica.txn(TxnRequest(success=[get(b"k", revision=-2)]))
    replica.compact(2)
    with pytest.raises(errors.Compacted):
        replica.txn(TxnRequest(success=[get(b"k", revision=-1)]))
