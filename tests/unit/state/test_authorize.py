"""The walk: what of a request needs which permission, at every depth."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from kvstore import errors
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.authpb_pb2 import Permission, Role
from kvstore.pb.internal_pb2 import Announce
from kvstore.state.auth import Access
from kvstore.state.authorize import authorize
from kvstore.state.lessor import Lessor

READ, WRITE, BOTH = Permission.READ, Permission.WRITE, Permission.READWRITE
LEASE = 5


@pytest.fixture
def lessor() -> Lessor:
    lessor = Lessor()
    lessor.grant(LEASE, 1000)
    lessor.attach(LEASE, b"leased")
    return lessor


def access(*permissions: tuple[Permission.Type, bytes, bytes]) -> Access:
    role = Role(keyPermission=[Permission(permType=k, key=a, range_end=b) for k, a, b in permissions])
    return Access("u", ["r"], {"r": role})


def permits(who: Access, request: Message, lessor: Lessor) -> bool:
    try:
        authorize(who, lessor, request)
    except errors.PermissionDenied:
        return False
    return True


def put(key: bytes = b"w", **options: object) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, **options))  # type: ignore[arg-type]


def get(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=range_end))


def delete(key: bytes, **options: object) -> pb.RequestOp:
    return pb.RequestOp(
        request_delete_range=pb.DeleteRangeRequest(key=key, **options)  # type: ignore[arg-type]
    )


def txn(*ops: pb.RequestOp, otherwise: tuple[pb.RequestOp, ...] = (), compare: bytes = b"") -> pb.TxnRequest:
    compares = [pb.Compare(key=compare)] if compare else []
    return pb.TxnRequest(compare=compares, success=ops, failure=otherwise)


def nested(request: pb.TxnRequest, depth: int) -> pb.TxnRequest:
    for _ in range(depth):
        request = pb.TxnRequest(failure=[pb.RequestOp(request_txn=request)])
    return request


SMALL = access((READ, b"r", b""), (WRITE, b"w", b""), (BOTH, b"b", b""))
"""Reads r and b, writes w and b."""


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        (get(b"r"), True),
        (get(b"w"), False),
        (get(b"r", b"s"), False),
        (put(b"w"), True),
        (put(b"r"), False),
        (put(b"w", ignore_value=True), True),
        (put(b"w", prev_kv=True), False),
        (put(b"b", prev_kv=True), True),
        (put(b"w", lease=LEASE), False),
        (put(b"w", lease=6), True),  # there is no such lease, which is another matter
        (delete(b"w"), True),
        (delete(b"w", prev_kv=True), False),
        (delete(b"b", prev_kv=True), True),
        (delete(b"a", range_end=b"c"), False),
        (pb.RequestOp(), True),  # says nothing
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_operations_need_the_same_alone_and_within(
    lessor: Lessor, request_: pb.RequestOp, allowed: bool, depth: int
) -> None:
    kind = request_.WhichOneof("request")
    if kind is not None:
        assert permits(SMALL, getattr(request_, kind), lessor) is allowed
    for branch in (txn(request_), txn(otherwise=(request_,)), txn(put(b"w"), request_)):
        assert permits(SMALL, nested(branch, depth), lessor) is allowed


@pytest.mark.parametrize("depth", [0, 2])
def test_comparing_is_reading(lessor: Lessor, depth: int) -> None:
    assert permits(SMALL, nested(txn(put(), compare=b"r"), depth), lessor)
    assert not permits(SMALL, nested(txn(put(), compare=b"w"), depth), lessor)
    ranged = pb.TxnRequest(compare=[pb.Compare(key=b"b", range_end=b"s")])
    assert not permits(SMALL, nested(ranged, depth), lessor)


def test_leases_belong_to_who_may_write_their_keys(lessor: Lessor) -> None:
    owner = access((WRITE, b"leased", b""))
    reader = access((READ, b"a", b"z"))
    for request in (pb.LeaseRevokeRequest(ID=LEASE), pb.LeaseKeepAliveRequest(ID=LEASE)):
        assert permits(owner, request, lessor)
        assert not permits(reader, request, lessor)
    for look in (pb.LeaseTimeToLiveRequest(ID=LEASE, keys=True), pb.LeaseLeasesRequest()):
        assert permits(reader, look, lessor)
        assert not permits(owner, look, lessor)
    assert permits(owner, pb.LeaseTimeToLiveRequest(ID=LEASE), lessor)
    assert permits(owner, pb.LeaseGrantRequest(TTL=1), lessor)


def test_announcing_is_putting_a_key_on_a_lease(lessor: Lessor) -> None:
    owner = access((WRITE, b"leased", b""), (WRITE, b"w", b""))
    assert permits(owner, Announce(key=b"w", lease_id=LEASE), lessor)
    assert permits(SMALL, Announce(key=b"w", lease_id=6), lessor)
    assert not permits(SMALL, Announce(key=b"w", lease_id=LEASE), lessor)
    assert not permits(SMALL, Announce(key=b"r", lease_id=6), lessor)


def test_a_watch_from_no_key_is_one_of_all_keys(lessor: Lessor) -> None:
    everything = access((READ, b"\0", b"\0"))
    for request in (pb.WatchCreateRequest(range_end=b"\0"), pb.WatchCreateRequest(key=b"r", range_end=b"\0")):
        assert permits(everything, request, lessor)
        assert not permits(SMALL, request, lessor)
    assert permits(SMALL, pb.WatchCreateRequest(key=b"r"), lessor)


def test_roles_add_up_and_root_needs_none(lessor: Lessor) -> None:
    roles = {
        "low": Role(keyPermission=[Permission(permType=READ, key=b"a", range_end=b"m")]),
        "high": Role(keyPermission=[Permission(permType=READ, key=b"m", range_end=b"\0")]),
    }
    request = pb.RangeRequest(key=b"b", range_end=b"\0")
    assert permits(Access("u", ["low", "high", "gone"], roles), request, lessor)
    assert not permits(Access("u", ["low"], roles), request, lessor)
    assert permits(Access("u", ["root"], {}), request, lessor)
    assert permits(Access("u", ["root"], {}), pb.AuthDisableRequest(), lessor)


def test_what_no_rule_is_about_is_roots_alone(lessor: Lessor) -> None:
    everything = access((BOTH, b"\0", b"\0"))
    for request in (
        pb.CompactionRequest(),
        pb.AuthUserAddRequest(),
        pb.MemberAddRequest(),
        pb.SnapshotRequest(),
    ):
        assert not permits(everything, request, lessor)
