"""May this user do this? One walk over a request, for every place that asks.

Asked twice of a write: by the member that takes it, to refuse early, and by every member where the write stands
in the log, which is the answer that counts. A request that no rule here is about is for root alone, so that
one that is added and forgotten is refused. What a transaction does is looked at in both its branches and at
every depth (CVE-2026-33343), whichever branch will run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from kvstore import errors
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import (
    AlarmRequest,
    AuthRoleGetRequest,
    AuthUserGetRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
)
from kvstore.pb.internal_pb2 import Announce, AuthorizedCommand
from kvstore.pb.quota_pb2 import QuotaGetRequest
from kvstore.pb.v3electionpb_pb2 import CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest
from kvstore.pb.v3lockpb_pb2 import LockRequest, UnlockRequest
from kvstore.state.auth import Access, AuthStore, Identity
from kvstore.state.key_ranges import prefix_range
from kvstore.state.lessor import Lessor

BY_KEYS: dict[int, type[Message]] = {
    Kind.PUT: PutRequest,
    Kind.DELETE_RANGE: DeleteRangeRequest,
    Kind.TXN: TxnRequest,
    Kind.LEASE_GRANT: LeaseGrantRequest,
    Kind.LEASE_REVOKE: LeaseRevokeRequest,
    Kind.ANNOUNCE: Announce,
}
"""The commands that others than root may give, and what their payload is."""


def authorize(access: Access, lessor: Lessor, request: Message) -> None:
    """Raises PermissionDenied."""
    if access.is_root:
        return
    rule = _RULES.get(type(request))
    if rule is None:
        raise errors.PermissionDenied
    rule(access, lessor, request)


def authorize_command(auth: AuthStore, lessor: Lessor, command: AuthorizedCommand) -> None:
    """At the command's place in the log. Raises AuthStoreOld where the user is not that user any more, and
    PermissionDenied."""
    if command.member:
        return
    identity = Identity(command.user, command.revision)
    access = auth.access(identity.user)
    if access is None or not auth.holds(identity):
        raise errors.AuthStoreOld
    if access.is_root:
        return
    kind = BY_KEYS.get(command.kind)
    if kind is None:
        raise errors.PermissionDenied
    authorize(access, lessor, kind.FromString(command.payload))


def _read(access: Access, key: bytes, range_end: bytes = b"") -> None:
    if not access.may_read(key, range_end):
        raise errors.PermissionDenied


def _write(access: Access, key: bytes, range_end: bytes = b"") -> None:
    if not access.may_write(key, range_end):
        raise errors.PermissionDenied


def _write_keys_of(access: Access, lessor: Lessor, lease_id: int) -> None:
    """Who may end a lease may delete its keys, and who hangs a key on it ties that key to them."""
    lease = lessor.get(lease_id)
    if lease is not None and not all(map(access.may_write, lease.keys)):
        raise errors.PermissionDenied


def _read_keys_of(access: Access, lessor: Lessor, lease_id: int) -> None:
    lease = lessor.get(lease_id)
    if lease is not None and not all(map(access.may_read, lease.keys)):
        raise errors.PermissionDenied


def _range(access: Access, lessor: Lessor, request: RangeRequest) -> None:
    _read(access, request.key, request.range_end)


def _put(access: Access, lessor: Lessor, request: PutRequest) -> None:
    _write(access, request.key)
    if request.prev_kv:
        _read(access, request.key)
    if request.lease:
        _write_keys_of(access, lessor, request.lease)


def _announce(access: Access, lessor: Lessor, request: Announce) -> None:
    _write(access, request.key)
    _write_keys_of(access, lessor, request.lease_id)


def _delete(access: Access, lessor: Lessor, request: DeleteRangeRequest) -> None:
    _write(access, request.key, request.range_end)
    if request.prev_kv:
        _read(access, request.key, request.range_end)


def _txn(access: Access, lessor: Lessor, request: TxnRequest) -> None:
    for compare in request.compare:
        _read(access, compare.key, compare.range_end)
    _operations(access, lessor, request.success)
    _operations(access, lessor, request.failure)


def _operations(access: Access, lessor: Lessor, operations: Iterable[RequestOp]) -> None:
    for operation in operations:
        kind = operation.WhichOneof("request")
        if kind is not None:
            authorize(access, lessor, getattr(operation, kind))


def _watch(access: Access, lessor: Lessor, request: WatchCreateRequest) -> None:
    _read(access, request.key or b"\0", request.range_end)


def _anybody(access: Access, lessor: Lessor, request: Message) -> None:
    """Of those who are somebody."""


def _lease_end(access: Access, lessor: Lessor, request: LeaseRevokeRequest | LeaseKeepAliveRequest) -> None:
    _write_keys_of(access, lessor, request.ID)


def _lease_time(access: Access, lessor: Lessor, request: LeaseTimeToLiveRequest) -> None:
    if request.keys:
        _read_keys_of(access, lessor, request.ID)


def _leases(access: Access, lessor: Lessor, request: LeaseLeasesRequest) -> None:
    for lease_id in lessor.leases():
        _read_keys_of(access, lessor, lease_id)


def _alarm(access: Access, lessor: Lessor, request: AlarmRequest) -> None:
    if request.action != AlarmRequest.GET:
        raise errors.PermissionDenied


def _user_get(access: Access, lessor: Lessor, request: AuthUserGetRequest) -> None:
    if request.name != access.user:
        raise errors.PermissionDenied


def _role_get(access: Access, lessor: Lessor, request: AuthRoleGetRequest) -> None:
    if request.role not in access.roles:
        raise errors.PermissionDenied


def _turn(access: Access, lessor: Lessor, request: LockRequest | CampaignRequest) -> None:
    """Who waits for a lock, or to be elected, writes a key under the name and reads all the others there."""
    queue = prefix_range(request.name + b"/")
    if not (access.reads.cover(*queue) and access.writes.cover(*queue)):
        raise errors.PermissionDenied
    if request.lease:
        _write_keys_of(access, lessor, request.lease)


def _quota(access: Access, lessor: Lessor, request: QuotaGetRequest) -> None:
    if not access.reads.cover(*prefix_range(request.prefix)):
        raise errors.PermissionDenied


def _unlock(access: Access, lessor: Lessor, request: UnlockRequest) -> None:
    _write(access, request.key)


def _leader(access: Access, lessor: Lessor, request: LeaderRequest) -> None:
    if not access.reads.cover(*prefix_range(request.name + b"/")):
        raise errors.PermissionDenied


def _as_leader(access: Access, lessor: Lessor, request: ProclaimRequest | ResignRequest) -> None:
    """Its key is compared first, and then written."""
    _read(access, request.leader.key)
    _write(access, request.leader.key)


_RULES: dict[type[Message], Callable[[Access, Lessor, Any], None]] = {
    RangeRequest: _range,
    PutRequest: _put,
    Announce: _announce,
    DeleteRangeRequest: _delete,
    TxnRequest: _txn,
    WatchCreateRequest: _watch,
    LeaseGrantRequest: _anybody,
    LeaseRevokeRequest: _lease_end,
    LeaseKeepAliveRequest: _lease_end,
    LeaseTimeToLiveRequest: _lease_time,
    LeaseLeasesRequest: _leases,
    AlarmRequest: _alarm,
    AuthUserGetRequest: _user_get,
    AuthRoleGetRequest: _role_get,
    LockRequest: _turn,
    UnlockRequest: _unlock,
    CampaignRequest: _turn,
    LeaderRequest: _leader,
    ProclaimRequest: _as_leader,
    ResignRequest: _as_leader,
    QuotaGetRequest: _quota,
}
