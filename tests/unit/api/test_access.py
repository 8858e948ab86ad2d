"""Every call of every service, as nobody, root, and users who may read, write, do both, or nothing.

The rows are written by hand and the calls are read from the protos: one that is added fails here until it has
a row in kvstore/api/access.py and one below.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from random import Random

import pytest
from google.protobuf.message import Message

import kvstore.pb
from kvstore.api.access import REQUESTS, RULES, Rule
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import quota_pb2 as quota
from kvstore.pb import v3electionpb_pb2 as election
from kvstore.pb import v3lockpb_pb2 as lock
from kvstore.pb.readiness_pb2 import Announcement, AnnounceRequest
from tests.unit.api.door import Door, User

USERS: tuple[User, ...] = ("nobody", "root", "reader", "writer", "both", "idle")
ALL, NAMED, ROOT = "nobody root reader writer both idle", "root reader writer both idle", "root"
READERS, WRITERS, TURNS = "root reader both", "root writer both", "root both"
LEADER = election.LeaderKey(name=b"a", key=b"a/1")

EXPECTED: dict[str, tuple[Message | None, str]] = {
    "/etcdserverpb.KV/Range": (pb.RangeRequest(key=b"a", range_end=b"b"), READERS),
    "/etcdserverpb.KV/RangeStream": (pb.RangeRequest(key=b"a"), READERS),
    "/etcdserverpb.KV/Put": (pb.PutRequest(key=b"a"), WRITERS),
    "/etcdserverpb.KV/DeleteRange": (pb.DeleteRangeRequest(key=b"a", prev_kv=True), TURNS),
    "/etcdserverpb.KV/Txn": (pb.TxnRequest(compare=[pb.Compare(key=b"a")]), READERS),
    "/etcdserverpb.KV/Compact": (pb.CompactionRequest(revision=1), ROOT),
    "/etcdserverpb.Watch/Watch": (
        pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a", range_end=b"b")),
        READERS,
    ),
    "/etcdserverpb.Lease/LeaseGrant": (pb.LeaseGrantRequest(TTL=10), NAMED),
    "/etcdserverpb.Lease/LeaseRevoke": (pb.LeaseRevokeRequest(ID=5), WRITERS),
    "/etcdserverpb.Lease/LeaseKeepAlive": (pb.LeaseKeepAliveRequest(ID=5), WRITERS),
    "/etcdserverpb.Lease/LeaseTimeToLive": (pb.LeaseTimeToLiveRequest(ID=5, keys=True), READERS),
    "/etcdserverpb.Lease/LeaseLeases": (pb.LeaseLeasesRequest(), READERS),
    "/etcdserverpb.Cluster/MemberList": (None, NAMED),
    "/etcdserverpb.Cluster/MemberAdd": (None, ROOT),
    "/etcdserverpb.Cluster/MemberRemove": (None, ROOT),
    "/etcdserverpb.Cluster/MemberUpdate": (None, ROOT),
    "/etcdserverpb.Cluster/MemberPromote": (None, ROOT),
    "/kvstore.Cluster/MemberAdd": (pb.MemberAddRequest(), ROOT),
    "/etcdserverpb.Maintenance/Status": (None, NAMED),
    "/etcdserverpb.Maintenance/Alarm": (pb.AlarmRequest(action=pb.AlarmRequest.GET), NAMED),
    "/etcdserverpb.Maintenance/Defragment": (None, ROOT),
    "/etcdserverpb.Maintenance/Hash": (None, ROOT),
    "/etcdserverpb.Maintenance/HashKV": (None, ROOT),
    "/etcdserverpb.Maintenance/Snapshot": (None, ROOT),
    "/etcdserverpb.Maintenance/MoveLeader": (None, ROOT),
    "/etcdserverpb.Maintenance/Downgrade": (None, ROOT),
    "/etcdserverpb.Auth/AuthEnable": (None, ROOT),
    "/etcdserverpb.Auth/AuthDisable": (None, ROOT),
    "/etcdserverpb.Auth/AuthStatus": (None, ALL),
    "/etcdserverpb.Auth/Authenticate": (None, ALL),
    "/etcdserverpb.Auth/UserAdd": (None, ROOT),
    "/etcdserverpb.Auth/UserGet": (pb.AuthUserGetRequest(name="reader"), "root reader"),
    "/etcdserverpb.Auth/UserList": (None, ROOT),
    "/etcdserverpb.Auth/UserDelete": (None, ROOT),
    "/etcdserverpb.Auth/UserChangePassword": (None, ROOT),
    "/etcdserverpb.Auth/UserGrantRole": (None, ROOT),
    "/etcdserverpb.Auth/UserRevokeRole": (None, ROOT),
    "/etcdserverpb.Auth/RoleAdd": (None, ROOT),
    "/etcdserverpb.Auth/RoleGet": (pb.AuthRoleGetRequest(role="writes"), WRITERS),
    "/etcdserverpb.Auth/RoleList": (None, ROOT),
    "/etcdserverpb.Auth/RoleDelete": (None, ROOT),
    "/etcdserverpb.Auth/RoleGrantPermission": (None, ROOT),
    "/etcdserverpb.Auth/RoleRevokePermission": (None, ROOT),
    "/v3lockpb.Lock/Lock": (lock.LockRequest(name=b"a"), TURNS),
    "/v3lockpb.Lock/Unlock": (lock.UnlockRequest(key=b"a/1"), WRITERS),
    "/v3electionpb.Election/Campaign": (election.CampaignRequest(name=b"a", value=b"v"), TURNS),
    "/v3electionpb.Election/Proclaim": (election.ProclaimRequest(leader=LEADER), TURNS),
    "/v3electionpb.Election/Leader": (election.LeaderRequest(name=b"a"), READERS),
    "/v3electionpb.Election/Observe": (election.LeaderRequest(name=b"a"), READERS),
    "/v3electionpb.Election/Resign": (election.ResignRequest(leader=LEADER), TURNS),
    "/kvstore.v1.Readiness/Announce": (
        AnnounceRequest(announce=Announcement(key=b"a", lease_id=9)),
        WRITERS,
    ),
    "/kvstore.v1.Quota/Set": (None, ROOT),
    "/kvstore.v1.Quota/Get": (quota.QuotaGetRequest(prefix=b"a"), READERS),
    "/kvstore.v1.Quota/List": (None, NAMED),
    "/kvstore.v1.Quota/Remove": (None, ROOT),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": (None, ALL),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": (None, ALL),
    "/grpc.health.v1.Health/Check": (None, ALL),
    "/grpc.health.v1.Health/Watch": (None, ALL),
}
"""Path to (a request, where the rule looks at it; who may call it so)."""


def described() -> set[str]:
    """Every path of every service in kvstore/pb, whoever imports it."""
    paths: set[str] = set()
    for module in pkgutil.iter_modules(kvstore.pb.__path__, "kvstore.pb."):
        file = importlib.import_module(module.name).DESCRIPTOR
        for service in file.services_by_name.values():
            paths |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return paths


def test_every_call_in_the_protos_has_its_rule_and_its_row() -> None:
    assert set(RULES) - described() == {"/kvstore.Cluster/MemberAdd"}
    assert described() - set(RULES) == set()
    assert set(EXPECTED) == set(RULES)
    assert {path for path, rule in RULES.items() if rule is Rule.REQUEST} <= set(REQUESTS)
    by_request = {path for path, rule in RULES.items() if rule in (Rule.REQUEST, Rule.MESSAGE)}
    assert {path for path in by_request if EXPECTED[path][0] is None} == set()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    """Users, roles and a lease, with authentication on. reads and writes are of [a, c); the lease has a key."""
    return Door(str(tmp_path_factory.mktemp("door")), Random(1))


@pytest.mark.parametrize("path", sorted(EXPECTED))
def test_who_may_call_it(door: Door, path: str) -> None:
    request, allowed = EXPECTED[path]
    if request is None:
        request = REQUESTS.get(path, pb.StatusRequest)()
    heard = {user: door.call(user, path, request) for user in USERS}
    assert [user for user in USERS if heard[user] == ""] == allowed.split()
    refusals = {text for user, text in heard.items() if text and user != "nobody"}
    assert refusals <= {"etcdserver: permission denied"}
    assert heard["nobody"] in ("", "etcdserver: user name is empty")
    assert door.call("forged", path, request) == ("" if allowed == ALL else "etcdserver: invalid auth token")


ELSEWHERE: dict[str, tuple[Message, str]] = {
    "/etcdserverpb.KV/Range": (pb.RangeRequest(key=b"b", range_end=b"d"), ROOT),
    "/etcdserverpb.KV/RangeStream": (pb.RangeRequest(key=b"a", range_end=b"\0"), ROOT),
    "/etcdserverpb.KV/Put": (pb.PutRequest(key=b"c"), ROOT),
    "/etcdserverpb.KV/Txn": (
        pb.TxnRequest(
            failure=[
                pb.RequestOp(
                    request_txn=pb.TxnRequest(
                        success=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"c"))]
                    )
                )
            ]
        ),
        ROOT,
    ),
    "/etcdserverpb.Watch/Watch": (
        pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a", range_end=b"\0")),
        ROOT,
    ),
    "/etcdserverpb.Lease/LeaseTimeToLive": (pb.LeaseTimeToLiveRequest(ID=5), NAMED),
    "/etcdserverpb.Lease/LeaseRevoke": (pb.LeaseRevokeRequest(ID=6), NAMED),
    "/etcdserverpb.Maintenance/Alarm": (pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE), ROOT),
    "/etcdserverpb.Auth/UserGet": (pb.AuthUserGetRequest(name="root"), ROOT),
    "/etcdserverpb.Auth/RoleGet": (pb.AuthRoleGetRequest(role="root"), ROOT),
    "/v3lockpb.Lock/Lock": (lock.LockRequest(name=b"d"), ROOT),
    "/kvstore.v1.Readiness/Announce": (AnnounceRequest(announce=Announcement(key=b"d", lease_id=9)), ROOT),
    "/v3electionpb.Election/Observe": (election.LeaderRequest(name=b"d"), ROOT),
    "/kvstore.v1.Quota/Get": (quota.QuotaGetRequest(prefix=b"d"), ROOT),
}


@pytest.mark.parametrize("path", sorted(ELSEWHERE))
def test_what_the_request_is_about_decides(door: Door, path: str) -> None:
    request, allowed = ELSEWHERE[path]
    assert [user for user in USERS if door.call(user, path, request) == ""] == allowed.split()


def test_a_call_without_a_row_is_refused_to_everybody(door: Door) -> None:
    assert door.call("root", "/etcdserverpb.KV/Forgotten", pb.RangeRequest(key=b"a")) != ""
    assert door.call("nobody", "/etcdserverpb.KV/Forgotten", pb.RangeRequest(key=b"a")) != ""


def test_nobody_is_asked_while_it_is_off(tmp_path: Path) -> None:
    off = Door(str(tmp_path), Random(1), enabled=False)
    for path, (request, _) in EXPECTED.items():
        assert off.call("nobody", path, request or REQUESTS.get(path, pb.StatusRequest)()) == "", path
