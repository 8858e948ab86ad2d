"""Authentication beside real etcd: the same calls, and the same replies, codes and words.

The calls are made of both servers in the same order and what they answered is compared, without what is bound
to differ (ids, revisions of the log, the letters of tokens). Where we differ on purpose a call stands in
IMPROVED with what each of them says.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from kvstore.api.access import REQUESTS
from kvstore.client import Client, errors
from kvstore.pb import authpb_pb2 as authpb
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import SUITE, Cluster, Server, etcdctl_path, kvctl_path, running_cluster

AUTH, KV, LEASE = "/etcdserverpb.Auth/", "/etcdserverpb.KV/", "/etcdserverpb.Lease/"
READ, WRITE, BOTH = authpb.Permission.READ, authpb.Permission.WRITE, authpb.Permission.READWRITE
TOKEN = re.compile(r"[a-zA-Z]{16}\.\d+")
EMPTY, DENIED = (
    ("INVALID_ARGUMENT", "etcdserver: user name is empty"),
    ("PERMISSION_DENIED", "etcdserver: permission denied"),
)

Step = tuple[str, str, Message]
"""Who ("" for nobody, "?" for a forged token), path, request."""


def grant(role: str, kind: authpb.Permission.Type, key: bytes, range_end: bytes = b"") -> Step:
    permission = authpb.Permission(permType=kind, key=key, range_end=range_end)
    return "", AUTH + "RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name=role, perm=permission)


def put(who: str, key: bytes, **options: Any) -> Step:
    return who, KV + "Put", pb.PutRequest(key=key, value=b"v", **options)


def get(who: str, key: bytes, range_end: bytes = b"") -> Step:
    return who, KV + "Range", pb.RangeRequest(key=key, range_end=range_end)


def txn(who: str, *ops: pb.RequestOp, compare: bytes = b"") -> Step:
    compares = [pb.Compare(key=compare)] if compare else []
    return who, KV + "Txn", pb.TxnRequest(compare=compares, success=ops)


def password(who: str, text: str) -> Step:
    return "", AUTH + "Authenticate", pb.AuthenticateRequest(name=who, password=text)


no_password = authpb.UserAddOptions(no_password=True)
BEFORE: list[Step] = [
    ("", AUTH + "AuthStatus", pb.AuthStatusRequest()),
    ("", AUTH + "AuthDisable", pb.AuthDisableRequest()),
    password("root", "x"),
    ("", AUTH + "AuthEnable", pb.AuthEnableRequest()),
    ("", AUTH + "UserAdd", pb.AuthUserAddRequest(password="x")),
    ("", AUTH + "UserAdd", pb.AuthUserAddRequest(name="root", password="root password")),
    ("", AUTH + "UserAdd", pb.AuthUserAddRequest(name="root", password="another")),
    ("", AUTH + "AuthEnable", pb.AuthEnableRequest()),
    ("", AUTH + "UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
    ("", AUTH + "UserGrantRole", pb.AuthUserGrantRoleRequest(user="nobody", role="root")),
    ("", AUTH + "UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="nothing")),
    ("", AUTH + "RoleGet", pb.AuthRoleGetRequest(role="root")),
    ("", AUTH + "RoleAdd", pb.AuthRoleAddRequest()),
    ("", AUTH + "RoleAdd", pb.AuthRoleAddRequest(name="r")),
    ("", AUTH + "RoleAdd", pb.AuthRoleAddRequest(name="r")),
    ("", AUTH + "RoleAdd", pb.AuthRoleAddRequest(name="gone")),
    ("", AUTH + "RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="r")),
    grant("nothing", READ, b"a"),
    grant("r", READ, b"a", b"c"),
    grant("r", BOTH, b"c", b"e"),
    grant("r", READ, b"e"),
    grant("r", WRITE, b"f"),
    grant("r", READ, b"f"),
    grant("gone", READ, b"z"),
    ("", AUTH + "RoleGet", pb.AuthRoleGetRequest(role="r")),
    ("", AUTH + "RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role="r", key=b"a")),
    ("", AUTH + "RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role="nothing", key=b"a")),
    ("", AUTH + "RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role="r", key=b"f")),
    ("", AUTH + "UserAdd", pb.AuthUserAddRequest(name="u", password="u password")),
    ("", AUTH + "UserAdd", pb.AuthUserAddRequest(name="idle", password="idle password")),
    ("", AUTH + "UserAdd", pb.AuthUserAddRequest(name="certified", password="given", options=no_password)),
    ("", AUTH + "UserGrantRole", pb.AuthUserGrantRoleRequest(user="u", role="r")),
    ("", AUTH + "UserGrantRole", pb.AuthUserGrantRoleRequest(user="u", role="r")),
    ("", AUTH + "UserGrantRole", pb.AuthUserGrantRoleRequest(user="u", role="gone")),
    ("", AUTH + "RoleDelete", pb.AuthRoleDeleteRequest(role="gone")),
    ("", AUTH + "RoleDelete", pb.AuthRoleDeleteRequest(role="gone")),
    ("", AUTH + "UserGet", pb.AuthUserGetRequest(name="u")),
    ("", AUTH + "UserRevokeRole", pb.AuthUserRevokeRoleRequest(name="u", role="nothing")),
    ("", AUTH + "UserRevokeRole", pb.AuthUserRevokeRoleRequest(name="nobody", role="r")),
    ("", AUTH + "UserChangePassword", pb.AuthUserChangePasswordRequest(name="nobody", password="x")),
    ("", AUTH + "UserChangePassword", pb.AuthUserChangePasswordRequest(name="certified", password="x")),
    ("", AUTH + "UserGet", pb.AuthUserGetRequest(name="nobody")),
    ("", AUTH + "UserDelete", pb.AuthUserDeleteRequest(name="nobody")),
    ("", AUTH + "UserList", pb.AuthUserListRequest()),
    ("", AUTH + "RoleList", pb.AuthRoleListRequest()),
    ("", LEASE + "LeaseGrant", pb.LeaseGrantRequest(ID=7, TTL=100)),
    put("", b"a"),
    put("", b"d"),
    put("", b"z", lease=7),
    ("", AUTH + "AuthStatus", pb.AuthStatusRequest()),
    ("", AUTH + "AuthEnable", pb.AuthEnableRequest()),
    ("", AUTH + "AuthEnable", pb.AuthEnableRequest()),
    password("root", "wrong"),
    password("nobody", "x"),
    password("root", ""),
    password("root", "root password"),
    password("u", "u password"),
    password("idle", "idle password"),
]


def steps_of(who: str) -> list[Step]:
    """Asked of nobody, of a forged token, of users with few roles and with all."""
    removal = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"d"))
    return [
        get(who, b"a"),
        get(who, b"a", b"e"),
        get(who, b"a", b"e\0"),
        get(who, b"a", b"f"),
        get(who, b"a", b"\0"),
        get(who, b"f"),
        put(who, b"a"),
        put(who, b"c"),
        put(who, b"c", prev_kv=True),
        put(who, b"c", lease=7),
        (who, KV + "DeleteRange", pb.DeleteRangeRequest(key=b"a", range_end=b"d")),
        (who, KV + "DeleteRange", pb.DeleteRangeRequest(key=b"c", range_end=b"d", prev_kv=True)),
        txn(who, removal, compare=b"a"),
        txn(who, removal, compare=b"z"),
        (who, "/etcdserverpb.Cluster/MemberRemove", pb.MemberRemoveRequest(ID=1)),
        (who, AUTH + "UserList", pb.AuthUserListRequest()),
        (who, AUTH + "UserGet", pb.AuthUserGetRequest(name="u")),
        (who, AUTH + "UserGet", pb.AuthUserGetRequest(name="root")),
        (who, AUTH + "RoleGet", pb.AuthRoleGetRequest(role="r")),
        (who, AUTH + "UserAdd", pb.AuthUserAddRequest(name="u", password="x")),
        (who, AUTH + "RoleDelete", pb.AuthRoleDeleteRequest(role="root")),
        (who, AUTH + "UserDelete", pb.AuthUserDeleteRequest(name="root")),
        (who, AUTH + "UserRevokeRole", pb.AuthUserRevokeRoleRequest(name="root", role="root")),
    ]


AFTER: list[Step] = [
    *[step for who in ("", "?", "idle", "u", "root") for step in steps_of(who)],
    ("root", AUTH + "AuthEnable", pb.AuthEnableRequest()),
    ("root", AUTH + "AuthStatus", pb.AuthStatusRequest()),
    ("root", AUTH + "UserRevokeRole", pb.AuthUserRevokeRoleRequest(name="u", role="r")),
    ("root", AUTH + "UserChangePassword", pb.AuthUserChangePasswordRequest(name="idle", password="changed")),
    get("u", b"a"),
    password("idle", "idle password"),
    get("idle", b"a"),
    ("u", AUTH + "AuthDisable", pb.AuthDisableRequest()),
    ("root", AUTH + "AuthDisable", pb.AuthDisableRequest()),
    ("", AUTH + "AuthStatus", pb.AuthStatusRequest()),
    get("", b"a"),
]

GUARDED = "INVALID_ARGUMENT", "etcdserver: user name is empty"
IMPROVED: list[tuple[Step, str | tuple[str, str]]] = [
    (("", "/etcdserverpb.Cluster/MemberList", pb.MemberListRequest()), GUARDED),
    (("", "/etcdserverpb.Maintenance/Status", pb.StatusRequest()), GUARDED),
    (("", "/etcdserverpb.Maintenance/HashKV", pb.HashKVRequest()), GUARDED),
    (("", "/etcdserverpb.Maintenance/Alarm", pb.AlarmRequest()), GUARDED),
    (("", LEASE + "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=7, keys=True)), GUARDED),
    (("", LEASE + "LeaseLeases", pb.LeaseLeasesRequest()), GUARDED),
    (("", LEASE + "LeaseGrant", pb.LeaseGrantRequest(ID=8, TTL=100)), GUARDED),
    (("", KV + "Compact", pb.CompactionRequest(revision=1)), GUARDED),
    (("u", KV + "Compact", pb.CompactionRequest(revision=1)), DENIED),
    (("u", LEASE + "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=7, keys=True)), DENIED),
    (("u", LEASE + "LeaseRevoke", pb.LeaseRevokeRequest(ID=7)), DENIED),
    (txn("u", pb.RequestOp(request_put=pb.PutRequest(key=b"c", lease=7))), DENIED),
    (
        txn(
            "u",
            pb.RequestOp(
                request_txn=pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"z"))])
            ),
        ),
        DENIED,
    ),
    (("", AUTH + "AuthStatus", pb.AuthStatusRequest()), "enabled: true"),
    (
        password("certified", "given"),
        ("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password"),
    ),
    (
        ("root", AUTH + "RoleGrantPermission", grant("r", READ, b"z", b"y")[2]),
        ("INVALID_ARGUMENT", "etcdserver: invalid auth management"),
    ),
]
"""What etcd 3.5.1 lets pass or words by accident, and what it is answered here; the first group was closed in later
releases of etcd (CVE-2026-33413, CVE-2026-33343, CVE-2023-32082), some of which admit users that are not root."""


def over_http(cluster: Cluster, token: str) -> tuple[int, Any]:
    """A get through the JSON gateway, with the token in the header that browsers know."""
    request = urllib.request.Request(f"http://{cluster.endpoints[0]}/v3/kv/range", b'{"key": "aw=="}')
    if token:
        request.add_header("Authorization", token)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.load(reply).get("kvs", [{}])[0].get("value")
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, json.load(refusal)["error"]


@dataclass
class Session:
    channel: grpc.Channel
    tokens: dict[str, str]

    def do(self, step: Step) -> str | tuple[str, str]:
        """The reply as text without its header's numbers, or (code, words)."""
        who, path, request = step
        reply = getattr(pb, type(request).__name__.replace("Request", "Response"))
        method = self.channel.unary_unary(
            path, request_serializer=REQUESTS[path].SerializeToString, response_deserializer=reply.FromString
        )
        token = "forged.1" if who == "?" else self.tokens.get(who)
        metadata = (("token", token),) if token else ()
        try:
            answer = method(request, timeout=10, metadata=metadata)
        except grpc.RpcError as failure:
            return failure.code().name, failure.details() or ""
        if isinstance(request, pb.AuthenticateRequest):
            self.tokens[request.name] = answer.token
            return TOKEN.sub("TOKEN", str(answer.token))
        if hasattr(answer, "header"):
            assert answer.header.member_id and answer.header.raft_term
            answer.header.ClearField("cluster_id")
            answer.header.ClearField("member_id")
            answer.header.ClearField("raft_term")
        return str(answer)


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[Server, Session]]:
    """Both servers, with users and authentication on."""
    with running_cluster("etcd") as etcd, running_cluster("kvstore", flags=["--bcrypt-cost", "4"]) as ours:
        channels = [grpc.insecure_channel(each.endpoints[0]) for each in (etcd, ours)]
        yield {"etcd": Session(channels[0], {}), "kvstore": Session(channels[1], {})}
        for channel in channels:
            channel.close()


def compare(sessions: dict[Server, Session], steps: Sequence[Step]) -> None:
    for number, step in enumerate(steps):
        answers = {server: session.do(step) for server, session in sessions.items()}
        assert answers["kvstore"] == answers["etcd"], f"step {number}: {step}"


def test_the_same_calls_have_the_same_answers(sessions: dict[Server, Session]) -> None:
    compare(sessions, BEFORE)
    ours, etcd = sessions["kvstore"], sessions["etcd"]
    refused_here = 0
    for step, expected in IMPROVED:
        answer = ours.do(step)
        if isinstance(expected, str):
            assert expected in answer, step
        else:
            assert answer == expected, step
    for step, expected in IMPROVED[:2]:
        refused_here += etcd.do(step) != expected
    assert refused_here == 2, "the reference is not the release the list was made for"
    compare(sessions, AFTER)


# Command lines


def run(program: str, cluster: Cluster, *words: str) -> str:
    command = [program, "--endpoints", cluster.endpoints[0], *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    error = done.stderr.rstrip("\n").rpartition("\n")[2]
    found = re.search(r'"error":"([^"]*)"|Error: (.*)', error)
    if done.returncode and found:
        return "failed: " + re.sub(r"^rpc error: .* desc = ", "", found[1] or found[2])
    return done.stdout


@pytest.fixture(scope="module", params=SUITE)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """With a user root, its role and authentication on, all by etcdctl."""
    server: Server = request.param
    with running_cluster(server, flags=["--bcrypt-cost", "4"]) as made:
        etcdctl = etcdctl_path()
        assert run(etcdctl, made, "user", "add", "root:secret") == "User root created\n"
        assert run(etcdctl, made, "auth", "enable") == "Authentication Enabled\n", (
            "it makes the role by itself"
        )
        yield made


def test_command_lines_say_who_they_are(cluster: Cluster) -> None:
    for program in (etcdctl_path(), kvctl_path()):
        assert run(program, cluster, "--user", "root:secret", "put", "k", "v") == "OK\n"
        assert run(program, cluster, "--user=root", "--password=secret", "get", "k") == "k\nv\n"
        assert run(program, cluster, "get", "k") == "failed: etcdserver: user name is empty"
        wrong = run(program, cluster, "--user", "root:guess", "get", "k")
        assert wrong == "failed: etcdserver: authentication failed, invalid user ID or password"


async def test_the_gateway_takes_the_token_as_well(cluster: Cluster) -> None:
    async with Client(cluster.endpoints, user="root", password="secret") as root:
        await root.put("k", "v")
        token = await root.authenticate("root", "secret")
    if cluster.members[0].probes:  # mounted: grpcio's port speaks HTTP/2 alone
        with pytest.raises(http.client.BadStatusLine):
            await asyncio.to_thread(over_http, cluster, token)
        return
    assert await asyncio.to_thread(over_http, cluster, token) == (200, "dg==")
    assert await asyncio.to_thread(over_http, cluster, "") == (400, "etcdserver: user name is empty")
    assert await asyncio.to_thread(over_http, cluster, "x.1") == (401, "etcdserver: invalid auth token")


# The client library


async def person(root: Client, name: str, *, kind: str = "readwrite") -> None:
    """A user of that name, made anew, whose password is "p" and who may do so to keys that begin with a/."""
    if name in await root.users():
        await root.user_delete(name)
    if kind not in await root.roles():
        await root.role_add(kind)
        await root.role_grant_permission(kind, kind, "a/", prefix=True)
    await root.user_add(name, "p")
    await root.user_grant_role(name, kind)


async def test_a_client_goes_on_when_its_token_has_ended(cluster: Cluster) -> None:
    """Another user of the same name and password is another user: no token of the first counts any more."""
    async with (
        Client(cluster.endpoints, user="root", password="secret") as root,
        Client(cluster.endpoints, user="u", password="p") as client,
        Client(cluster.endpoints, user="u", password="p") as other,
    ):
        await person(root, "u")
        lease = await client.lease_grant(60)
        await client.put("a/k", "1", lease=lease.id)
        watch = client.watch("a/k")
        await watch.created()
        await other.get("a/k")
        await person(root, "u")
        put = await client.put("a/k", "2", lease=lease.id)
        assert (await anext(watch)).revision == put.revision
        async with other.watch("a/k", start_revision=put.revision) as late:
            assert (await anext(late)).events[0].kv.value == b"2"
        await person(root, "u")
        assert (await other.lease_keep_alive_once(lease.id)).id == lease.id
        assert (await client.get("a/k")).kvs[0].value == b"2"
        await watch.cancel()


async def test_a_client_is_told_what_it_may_not(cluster: Cluster) -> None:
    async with Client(cluster.endpoints, user="root", password="secret") as root:
        await person(root, "reader", kind="read")
        assert (await root.auth_status()).enabled
        async with Client(cluster.endpoints, user="reader", password="p") as client:
            assert (await client.get("a/", prefix=True)).revision
            for refused in (client.put("a/k", "1"), client.get("b"), client.users()):
                with pytest.raises(errors.PermissionDenied) as denied:
                    await refused
                assert denied.value.definite
            async with client.watch("b") as watch:
                with pytest.raises(errors.WatchCanceled, match="permission denied"):
                    await watch.created()
            assert await client.user_get("reader") == ["read"]
            await root.user_change_password("reader", "changed")
            with pytest.raises(errors.AuthenticationFailed):
                await client.get("a/k")
        async with Client(cluster.endpoints) as nobody:
            with pytest.raises(errors.NoUserName):
                await nobody.put("k", "1")


async def test_authentication_turned_on_under_a_client_that_knows_its_user() -> None:
    """Not before anybody asks is a token fetched, and then at the first refusal."""
    with running_cluster("kvstore", flags=["--bcrypt-cost", "4"]) as cluster:
        async with Client(cluster.endpoints, user="root", password="secret") as client:
            await client.put("k", "1")
            watch = client.watch("k")
            await watch.created()
            await client.user_add("root", "secret")
            await client.user_grant_role("root", "root")
            await client.auth_enable()
            put = await client.put("k", "2")
            assert (await anext(watch)).revision == put.revision, (
                "cancelled for want of a name, and resumed with it"
            )
            await watch.cancel()
            await client.auth_disable()
            await client.put("k", "3")
