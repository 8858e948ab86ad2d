"""What is refused before it is proposed."""

from __future__ import annotations

import pytest

from kvstore import errors
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.state.checks import (
    check_delete,
    check_put,
    check_range,
    check_txn,
    is_read_only,
    is_serializable,
    put_cost,
)
from tests.unit.state.test_txn import delete, get, nested, put


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PutRequest(), errors.EmptyKey),
        (PutRequest(key=b"k", value=b"v", ignore_value=True), errors.ValueProvided),
        (PutRequest(key=b"k", lease=1, ignore_lease=True), errors.LeaseProvided),
    ],
)
def test_puts(request_: PutRequest, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_put(request_)


def test_ranges_and_deletes() -> None:
    with pytest.raises(errors.EmptyKey):
        check_range(RangeRequest())
    with pytest.raises(errors.EmptyKey):
        check_delete(DeleteRangeRequest(range_end=b"\0"))
    for wrong in (RangeRequest(key=b"k", sort_order=3), RangeRequest(key=b"k", sort_target=5)):  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidSortOption):
            check_range(wrong)


@pytest.mark.parametrize(
    "operations",
    [
        [put(b"k"), put(b"k")],
        [put(b"k"), delete(b"a", b"z")],
        [delete(b"a", b"z"), put(b"k")],
        [delete(b"a", b"\0"), put(b"k")],
        [delete(b"k"), put(b"k")],
        [put(b"k"), nested(put(b"k"))],
        [nested(put(b"k")), nested(put(b"k"))],
        [nested(delete(b"k")), put(b"k")],
        [nested(put(b"k")), nested(delete(b"k"))],
        [nested(nested(put(b"k"))), delete(b"k")],
    ],
)
def test_a_key_is_written_once_in_a_revision(operations: list[RequestOp]) -> None:
    for request in (TxnRequest(success=operations), TxnRequest(failure=operations)):
        with pytest.raises(errors.DuplicateKey):
            check_txn(request, 128)


@pytest.mark.parametrize(
    "operations",
    [
        [delete(b"a", b"z"), delete(b"k")],
        [delete(b"a", b"k"), put(b"k")],
        [nested(put(b"k"), otherwise=(put(b"k"),))],
        [nested(put(b"k"), otherwise=(delete(b"k"),))],
        [nested(delete(b"a", b"z"), otherwise=(put(b"k"),))],
        [put(b"k"), get(b"k")],
    ],
)
def test_what_looks_like_a_duplicate_and_is_none(operations: list[RequestOp]) -> None:
    check_txn(TxnRequest(success=operations), 128)
    check_txn(TxnRequest(success=[put(b"k")], failure=[put(b"k")]), 128)


def test_a_nested_transaction_has_what_its_parent_left() -> None:
    inner = [get(b"k")] * 2
    check_txn(TxnRequest(success=[nested(*inner)]), 3)
    with pytest.raises(errors.TooManyOperations):
        check_txn(TxnRequest(success=[nested(*inner), get(b"k")]), 3)
    with pytest.raises(errors.TooManyOperations):
        check_txn(TxnRequest(compare=[Compare(key=b"k")] * 4), 3)


def test_empty_things() -> None:
    check_txn(TxnRequest(), 128)
    with pytest.raises(errors.KeyNotFound):
        check_txn(TxnRequest(success=[RequestOp()]), 128)
    with pytest.raises(errors.EmptyKey):
        check_txn(TxnRequest(compare=[Compare()]), 128)


def test_what_kind_of_transaction_it_is() -> None:
    assert is_read_only(TxnRequest()) and is_serializable(TxnRequest())
    assert is_read_only(TxnRequest(success=[get(b"k")]))
    assert not is_read_only(TxnRequest(failure=[nested(get(b"k"))])), "a nested one counts as a write"
    assert not is_serializable(TxnRequest(success=[get(b"k")]))
    assert put_cost(TxnRequest(failure=[nested(put(b"k"))]))
    assert not put_cost(TxnRequest(success=[nested(delete(b"k"))]))
