"""Which JSON path stands for which method: derived from the descriptors, with etcd's exceptions named.

    /v3/<folder>/<method in lower case>     KV.DeleteRange -> /v3/kv/deleterange

A method that groups, such as MemberAdd or UserGet, takes its group as a folder (/v3/cluster/member/add); one that
repeats its service's name drops it (LeaseGrant -> /v3/lease/grant).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf import message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message

from kvstore.pb import etcdserverpb_pb2, quota_pb2, v3electionpb_pb2, v3lockpb_pb2

ROOT = "/v3"
OLD_ROOT = "/v3beta"  # etcd 3.3's; the server still rewrites it

_FILES: tuple[FileDescriptor, ...] = (
    etcdserverpb_pb2.DESCRIPTOR,
    v3lockpb_pb2.DESCRIPTOR,
    v3electionpb_pb2.DESCRIPTOR,
    quota_pb2.DESCRIPTOR,  # our own
)
_EXCEPTIONS = {
    "KV.Compact": "/kv/compaction",
    "Watch.Watch": "/watch",
    "Maintenance.MoveLeader": "/maintenance/transfer-leadership",
    "Auth.UserChangePassword": "/auth/user/changepw",
    "Auth.UserGrantRole": "/auth/user/grant",
    "Auth.UserRevokeRole": "/auth/user/revoke",
    "Auth.RoleGrantPermission": "/auth/role/grant",
    "Auth.RoleRevokePermission": "/auth/role/revoke",
}
_ALIASES = {
    "Lease.LeaseRevoke": "/kv/lease/revoke",
    "Lease.LeaseTimeToLive": "/kv/lease/timetolive",
    "Lease.LeaseLeases": "/kv/lease/leases",
}
_ONLY_GRPC = {"KV.RangeStream"}
_GROUPED = re.compile(r"(Member|User|Role)([A-Z].*)")


@dataclass(frozen=True)
class Binding:
    """One method as HTTP sees it. paths[0] is the one to document; the others are older names of it."""

    paths: tuple[str, ...]
    method: str  # such as "/etcdserverpb.KV/Put"
    request: type[Message]
    reply: type[Message]
    client_streams: bool
    server_streams: bool

    @property
    def streams(self) -> bool:
        return self.client_streams or self.server_streams


def bindings() -> Iterator[Binding]:
    """Every method that has a JSON path, in the order of the descriptors."""
    for file in _FILES:
        for service in file.services_by_name.values():
            for method in service.methods:
                name = f"{service.name}.{method.name}"
                if name in _ONLY_GRPC:
                    continue
                paths = [ROOT + (_EXCEPTIONS.get(name) or _derived(service.name, method))]
                if name in _ALIASES:
                    paths.append(ROOT + _ALIASES[name])
                yield Binding(
                    paths=tuple(paths),
                    method=f"/{service.full_name}/{method.name}",
                    request=message_factory.GetMessageClass(method.input_type),
                    reply=message_factory.GetMessageClass(method.output_type),
                    client_streams=method.client_streaming,
                    server_streams=method.server_streaming,
                )


def table() -> dict[str, Binding]:
    """From path, aliases too, to binding."""
    return {path: binding for binding in bindings() for path in binding.paths}


def canonical(path: str) -> str:
    """The path as the table knows it."""
    if path.startswith(OLD_ROOT + "/"):
        return ROOT + path[len(OLD_ROOT) :]
    return path


def _derived(service: str, method: MethodDescriptor) -> str:
    name = method.name
    if name.startswith(service) and name != service and name[len(service)].isupper():
        name = name[len(service) :]
    grouped = _GROUPED.fullmatch(name)
    if grouped:
        return f"/{service.lower()}/{grouped[1].lower()}/{grouped[2].lower()}"
    return f"/{service.lower()}/{name.lower()}"
