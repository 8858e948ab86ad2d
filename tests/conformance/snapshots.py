"""Stores to be carried over, and everything that can be read of one: what the tests of snapshots compare."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.authpb_pb2 import Permission
from tests.conformance.etcd_process import Member, etcdctl_path, require_program

RESTORE_FLAGS = (
    "name",
    "data-dir",
    "initial-cluster",
    "initial-cluster-token",
    "initial-advertise-peer-urls",
)
KVCTL = (sys.executable, "-m", "kvstore.cli.main")
LEASES = {0x1234ABCD: 3600, 7: 600, 2**62: 90_000}


@dataclass(frozen=True)
class Contents:
    """Of one store: all of it that a client can read."""

    revision: int
    newest: list[tuple[bytes, bytes, int, int, int, int]]
    history: list[tuple[int, bytes, bytes, int, int, int, int]]
    leases: dict[int, tuple[int, list[bytes]]]
    users: dict[str, list[str]]
    roles: dict[str, bytes]


class Calls:
    def __init__(self, endpoint: str) -> None:
        self._channel = grpc.insecure_channel(endpoint, options=[("grpc.max_receive_message_length", -1)])

    def __call__(self, path: str, request: Any, reply: Any, timeout_s: float = 10.0) -> Any:
        method = self._channel.unary_unary(
            "/etcdserverpb." + path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        return method(request, timeout=timeout_s)

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self("KV/Put", pb.PutRequest(key=key, value=value, lease=lease), pb.PutResponse)

    def delete(self, key: bytes, range_end: bytes = b"") -> None:
        self("KV/DeleteRange", pb.DeleteRangeRequest(key=key, range_end=range_end), pb.DeleteRangeResponse)

    def compact(self, revision: int) -> None:
        request = pb.CompactionRequest(revision=revision, physical=True)
        self("KV/Compact", request, pb.CompactionResponse)

    def everything(self, revision: int = 0) -> pb.RangeResponse:
        request = pb.RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
        return self("KV/Range", request, pb.RangeResponse)  # type: ignore[no-any-return]

    def first_key(self) -> pb.RangeResponse:
        """Linearizable, and small."""
        request = pb.RangeRequest(key=b"\0", range_end=b"\0", limit=1, keys_only=True)
        return self("KV/Range", request, pb.RangeResponse)  # type: ignore[no-any-return]

    def hash(self) -> int:
        return int(self("Maintenance/Hash", pb.HashRequest(), pb.HashResponse).hash)

    def add_learner(self, peer_url: str) -> pb.ResponseHeader | None:
        """None while the cluster does not take it yet: its members have hardly met."""
        request = pb.MemberAddRequest(peerURLs=[peer_url], isLearner=True)
        try:
            return self("Cluster/MemberAdd", request, pb.MemberAddResponse).header  # type: ignore[no-any-return]
        except grpc.RpcError as problem:
            assert "unhealthy" in str(problem) or "not enough started" in str(problem), problem
            return None

    def compacted_watch(self, revision: int) -> int:
        """The compaction revision that a watch from there is ended with."""
        method: Any = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        create = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=revision)
        responses = method(iter([pb.WatchRequest(create_request=create)]), timeout=10)
        assert next(responses).created
        ended = next(responses)
        responses.cancel()
        assert ended.canceled
        return int(ended.compact_revision)

    def snapshot(self) -> list[pb.SnapshotResponse]:
        method = self._channel.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot",
            request_serializer=pb.SnapshotRequest.SerializeToString,
            response_deserializer=pb.SnapshotResponse.FromString,
        )
        return list(method(pb.SnapshotRequest(), timeout=30))

    def close(self) -> None:
        self._channel.close()


def populate(calls: Calls) -> None:
    """A bit of everything that a history can hold, and a compaction in its middle; users and roles."""
    for name in ("root", "reader"):
        calls("Auth/RoleAdd", pb.AuthRoleAddRequest(name=name), pb.AuthRoleAddResponse)
        user = pb.AuthUserAddRequest(name=name, password=f"of {name}")
        calls("Auth/UserAdd", user, pb.AuthUserAddResponse)
        granted = pb.AuthUserGrantRoleRequest(user=name, role=name)
        calls("Auth/UserGrantRole", granted, pb.AuthUserGrantRoleResponse)
    grant = pb.AuthRoleGrantPermissionRequest(name="reader", perm=Permission(key=b"k", range_end=b"l"))
    calls("Auth/RoleGrantPermission", grant, pb.AuthRoleGrantPermissionResponse)
    for lease_id, ttl in LEASES.items():
        calls("Lease/LeaseGrant", pb.LeaseGrantRequest(ID=lease_id, TTL=ttl), pb.LeaseGrantResponse)
    for number in range(40):
        calls.put(b"k%d" % (number % 10), b"v%d" % number)
    calls.delete(b"k3")
    calls.put(b"gone", b"soon")
    calls.delete(b"gone")
    revision = calls.everything().header.revision
    calls.delete(b"k5")  # a tombstone above the compaction point
    calls.put(b"k3", b"again", 0x1234ABCD)
    calls.put(b"k1", b"held", 0x1234ABCD)
    calls.put(b"k1", b"held by another", 7)
    calls.put(b"long" + b"k" * 3000, b"", 2**62)
    calls.put(b"big", b"x" * 300_000)
    puts = [pb.RequestOp(request_put=pb.PutRequest(key=b"t%d" % i, value=b"txn")) for i in range(30)]
    calls("KV/Txn", pb.TxnRequest(success=puts), pb.TxnResponse)
    calls.delete(b"t1", b"t2")
    calls.compact(revision)


def contents(calls: Calls, since: int) -> Contents:
    """since: the compaction point; history is read from the revision after it."""
    found = calls.everything()
    newest = [
        (kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease) for kv in found.kvs
    ]
    history = []
    for revision in range(since, found.header.revision + 1):
        for kv in calls.everything(revision).kvs:
            history.append(
                (revision, kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
            )
    return Contents(
        found.header.revision, newest, history, leases_of(calls), users_of(calls), roles_of(calls)
    )


def leases_of(calls: Calls) -> dict[int, tuple[int, list[bytes]]]:
    """TTL and keys of each."""
    leases = {}
    for each in calls("Lease/LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse).leases:
        request = pb.LeaseTimeToLiveRequest(ID=each.ID, keys=True)
        status = calls("Lease/LeaseTimeToLive", request, pb.LeaseTimeToLiveResponse)
        leases[each.ID] = (status.grantedTTL, sorted(status.keys))
    return leases


def users_of(calls: Calls) -> dict[str, list[str]]:
    """The roles of each."""
    users = {}
    for name in calls("Auth/UserList", pb.AuthUserListRequest(), pb.AuthUserListResponse).users:
        got = calls("Auth/UserGet", pb.AuthUserGetRequest(name=name), pb.AuthUserGetResponse)
        users[name] = list(got.roles)
    return users


def roles_of(calls: Calls) -> dict[str, bytes]:
    """Encoded; of root nothing, as releases differ in what they say of it: it permits everything."""
    roles = {}
    for name in calls("Auth/RoleList", pb.AuthRoleListRequest(), pb.AuthRoleListResponse).roles:
        role = calls("Auth/RoleGet", pb.AuthRoleGetRequest(role=name), pb.AuthRoleGetResponse)
        role.ClearField("header")
        if name == "root":
            role.Clear()
        roles[name] = role.SerializeToString()
    return roles


def assert_passwords(calls: Calls) -> None:
    """Those that populate() gave are right, and no others: turns authentication on."""
    calls("Auth/AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse)
    for name in ("root", "reader"):
        login = pb.AuthenticateRequest(name=name, password=f"of {name}")
        assert calls("Auth/Authenticate", login, pb.AuthenticateResponse).token
        login.password = "another"
        with pytest.raises(grpc.RpcError, match="invalid user ID or password"):
            calls("Auth/Authenticate", login, pb.AuthenticateResponse)


def etcdutl_path() -> str:
    path = Path(etcdctl_path()).parent / "etcdutl"
    return require_program(str(path) if path.exists() else None, "etcdutl")


def run(program: Sequence[str], *words: str) -> subprocess.CompletedProcess[str]:
    """etcdctl and etcdutl log to stderr; what counts is stdout and the status."""
    environment = {**os.environ, "ETCDCTL_API": "3"}
    return subprocess.run([*program, *words], capture_output=True, text=True, timeout=60, env=environment)


def done(program: Sequence[str], *words: str) -> str:
    finished = run(program, *words)
    assert finished.returncode == 0, f"{words} ended with {finished.returncode}: {finished.stderr[-2000:]}"
    return finished.stdout


def restore(program: Sequence[str], snapshot: Path, member: Member, *more: str) -> None:
    """Into the member's data directory, with the flags it will be started with."""
    flags = [word for name in RESTORE_FLAGS for word in (f"--{name}", member.flag(name))]
    done(program, "snapshot", "restore", str(snapshot), *flags, *more)
