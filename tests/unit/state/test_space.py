"""The quota: what is admitted, when the alarm is wanted, and what commands meet while it is up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore import errors
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import (
    AlarmRequest,
    AlarmType,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.state.checks import put_cost
from kvstore.state.space import PUT_COST, Space
from tests.unit.state.harness import Replica


def test_writes_count_down_from_the_last_measurement() -> None:
    space = Space(1000, 10**9)
    space.measured(400)
    space.admit(300)
    space.admit(300)
    with pytest.raises(errors.NoSpace):
        space.admit(1)
    space.measured(500)
    space.admit(500)


def test_a_large_write_that_does_not_fit_is_no_reason_for_an_alarm() -> None:
    space = Space(1000, 10**9)
    space.measured(500)
    with pytest.raises(errors.NoSpace):
        space.admit(600)
    assert not space.is_full
    space.measured(950)
    with pytest.raises(errors.NoSpace):
        space.admit(60)
    assert space.is_full
    space.looked()
    assert not space.is_full, "what was refused before does not count twice"
    space.measured(1000)
    assert space.is_full


@pytest.mark.parametrize("quota", [0, -1, 10**12])
def test_without_a_quota_the_map_is_the_limit(quota: int) -> None:
    space = Space(quota, 10**9)
    assert space.quota == 10**9
    space.measured(10**9)
    with pytest.raises(errors.NoSpace):
        space.admit(1)


def test_a_transaction_costs_its_dearer_branch() -> None:
    put = RequestOp(request_put=PutRequest(key=b"k", value=bytes(99)))
    nested = RequestOp(request_txn=TxnRequest(success=[put, put]))
    assert put_cost(TxnRequest(success=[put], failure=[nested])) == 2 * (PUT_COST + 100)
    assert put_cost(TxnRequest(success=[RequestOp(request_range=RangeRequest(key=b"k"))])) == 0


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    made = Replica(str(tmp_path))
    made.put(b"before", b"x")
    made.grant(7)
    made.put(b"leased", lease=7)
    yield made
    made.machine.abandon()


def alarm(
    replica: Replica, kind: AlarmType, action: AlarmRequest.AlarmAction = AlarmRequest.ACTIVATE
) -> None:
    replica.do(Kind.ALARM, AlarmRequest(action=action, memberID=1, alarm=kind))


def test_without_space_only_what_takes_some_is_refused(replica: Replica) -> None:
    alarm(replica, AlarmType.NOSPACE)
    for _ in range(2):
        put = PutRequest(key=b"k")
        with_put = TxnRequest(failure=[RequestOp(request_put=put)])
        for kind, request in (
            (Kind.PUT, put),
            (Kind.TXN, with_put),
            (Kind.LEASE_GRANT, LeaseGrantRequest(ID=9, TTL=9)),
        ):
            with pytest.raises(errors.NoSpace):
                replica.do(kind, request)
        replica.reopen(crash=False)  # and the alarm with what it means is there again
    doomed = RequestOp(request_delete_range=DeleteRangeRequest(key=b"before"))
    assert replica.txn(TxnRequest(success=[doomed])).succeeded
    replica.revoke(7)
    replica.compact(replica.machine.revision)
    assert replica.values() == {}
    alarm(replica, AlarmType.NOSPACE, AlarmRequest.DEACTIVATE)
    replica.put(b"k")


def test_a_corrupt_cluster_changes_nothing_any_more(replica: Replica) -> None:
    alarm(replica, AlarmType.CORRUPT)
    alarm(replica, AlarmType.NOSPACE)
    for kind, request in (
        (Kind.PUT, PutRequest(key=b"k")),
        (Kind.DELETE_RANGE, DeleteRangeRequest(key=b"before")),
        (Kind.TXN, TxnRequest()),
        (Kind.LEASE_GRANT, LeaseGrantRequest(ID=9, TTL=9)),
    ):
        with pytest.raises(errors.Corrupt):
            replica.do(kind, request)
    assert replica.values() == {b"before": b"x", b"leased": b""}
    alarm(replica, AlarmType.CORRUPT, AlarmRequest.DEACTIVATE)
    with pytest.raises(errors.NoSpace):
        replica.put(b"k")
    replica.delete(b"before")
