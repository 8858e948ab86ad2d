"""Who may call what while authentication is on: one row for every path of every service.

A path without a row is refused then, to root as well: a call that is added and forgotten here does not become
a hole. tests/unit/api/test_access.py holds the table against the protos.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from google.protobuf import message_factory
from google.protobuf.message import Message

from kvstore.pb import (
    etcdserverpb_pb2,
    health_pb2,
    quota_pb2,
    readiness_pb2,
    v3electionpb_pb2,
    v3lockpb_pb2,
)


class Rule(Enum):
    OPEN = "anybody, without a name"
    USER = "any user"
    ROOT = "users with the role root"
    REQUEST = "what the request is about decides (kvstore/state/authorize.py)"
    MESSAGE = "the same for each message of a long stream: the service asks"


def _under(service: str, rule: Rule, names: str) -> dict[str, Rule]:
    return {f"/{service}/{name}": rule for name in names.split()}


RULES: Mapping[str, Rule] = {
    **_under("etcdserverpb.KV", Rule.REQUEST, "Range RangeStream Put DeleteRange Txn"),
    **_under("etcdserverpb.KV", Rule.ROOT, "Compact"),
    **_under("etcdserverpb.Watch", Rule.MESSAGE, "Watch"),
    **_under("etcdserverpb.Lease", Rule.USER, "LeaseGrant"),
    **_under("etcdserverpb.Lease", Rule.REQUEST, "LeaseRevoke LeaseTimeToLive LeaseLeases"),
    **_under("etcdserverpb.Lease", Rule.MESSAGE, "LeaseKeepAlive"),
    **_under("etcdserverpb.Cluster", Rule.USER, "MemberList"),
    **_under("etcdserverpb.Cluster", Rule.ROOT, "MemberAdd MemberRemove MemberUpdate MemberPromote"),
    **_under("kvstore.Cluster", Rule.ROOT, "MemberAdd"),
    **_under("etcdserverpb.Maintenance", Rule.USER, "Status"),
    **_under("etcdserverpb.Maintenance", Rule.REQUEST, "Alarm"),
    **_under("etcdserverpb.Maintenance", Rule.ROOT, "Defragment Hash HashKV Snapshot MoveLeader Downgrade"),
    **_under("etcdserverpb.Auth", Rule.OPEN, "AuthStatus Authenticate"),
    **_under("etcdserverpb.Auth", Rule.REQUEST, "UserGet RoleGet"),
    **_under("etcdserverpb.Auth", Rule.ROOT, "AuthEnable AuthDisable UserAdd UserList UserDelete"),
    **_under("etcdserverpb.Auth", Rule.ROOT, "UserChangePassword UserGrantRole UserRevokeRole"),
    **_under("etcdserverpb.Auth", Rule.ROOT, "RoleAdd RoleList RoleDelete"),
    **_under("etcdserverpb.Auth", Rule.ROOT, "RoleGrantPermission RoleRevokePermission"),
    **_under("v3lockpb.Lock", Rule.REQUEST, "Lock Unlock"),
    **_under("v3electionpb.Election", Rule.REQUEST, "Campaign Proclaim Leader Observe Resign"),
    **_under("kvstore.v1.Readiness", Rule.MESSAGE, "Announce"),
    **_under("kvstore.v1.Quota", Rule.ROOT, "Set Remove"),
    **_under("kvstore.v1.Quota", Rule.REQUEST, "Get"),
    **_under("kvstore.v1.Quota", Rule.USER, "List"),
    **_under("grpc.health.v1.Health", Rule.OPEN, "Check Watch"),
    **_under("grpc.reflection.v1.ServerReflection", Rule.OPEN, "ServerReflectionInfo"),
    **_under("grpc.reflection.v1alpha.ServerReflection", Rule.OPEN, "ServerReflectionInfo"),
}


def _requests() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for module in (
        *(etcdserverpb_pb2, v3lockpb_pb2, v3electionpb_pb2),
        *(health_pb2, readiness_pb2, quota_pb2),
    ):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                kind = message_factory.GetMessageClass(method.input_type)
                found[f"/{service.full_name}/{method.name}"] = kind
    return found


REQUESTS: Mapping[str, type[Message]] = _requests()
"""The type of the request of every path in the protos."""
