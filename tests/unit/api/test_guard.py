"""The guard beyond its table: certificates, tokens from elsewhere, streams that outlive their permission."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from kvstore import errors
from kvstore.commands import Kind
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb import v3electionpb_pb2 as election
from kvstore.pb.internal_pb2 import AuthorizedCommand, MemberRecord
from kvstore.pb.readiness_pb2 import Announcement, AnnounceRequest, KeepAlive
from kvstore.rpc import Status
from tests.unit.api.door import Call, Door

RANGE, PUT, WATCH = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch"
OBSERVE, KEEP_ALIVE = "/v3electionpb.Election/Observe", "/etcdserverpb.Lease/LeaseKeepAlive"
DENIED = (Status.PERMISSION_DENIED, "etcdserver: permission denied")
NO_NAME = (Status.INVALID_ARGUMENT, "etcdserver: user name is empty")
BAD_TOKEN = (Status.UNAUTHENTICATED, "etcdserver: invalid auth token")
READ_A = pb.RangeRequest(key=b"a")


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(str(tmp_path), Random(1))


def as_root(door: Door, kind: Kind, request: pb.AuthUserRevokeRoleRequest | pb.AuthUserDeleteRequest) -> None:
    command = AuthorizedCommand(user="root", revision=door.context.auth.revision, kind=kind)
    command.payload = request.SerializeToString()
    door.replica.do(Kind.AUTHORIZED, command)


def revoke(door: Door, user: str, role: str) -> None:
    as_root(door, Kind.USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest(name=user, role=role))


def responses(call: Call) -> list[pb.WatchResponse]:
    return [pb.WatchResponse.FromString(each) for each in call.sent]


def watch(door: Door, user: str, key: bytes = b"a") -> Call:
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=key))
    return door.begin(door.metadata(user), WATCH, create)


# Who it is


def test_a_token_is_taken_from_either_place(door: Door) -> None:
    token = door.tokens["reader"]
    for metadata in ({"token": token}, {"authorization": token}, {"authorization": f"Bearer {token}"}):
        assert door.begin(metadata, RANGE, READ_A).ended == (0, "")
    assert door.begin({"token": ""}, RANGE, READ_A).ended == BAD_TOKEN
    assert door.begin({"authorization": f"Basic {token}"}, RANGE, READ_A).ended == BAD_TOKEN


def test_a_certificates_name_counts_where_it_was_asked_for(door: Door) -> None:
    assert door.begin({}, RANGE, READ_A, common_name="reader").ended == NO_NAME
    door.guard._certificates = True
    assert door.begin({}, RANGE, READ_A, common_name="reader").ended == (0, "")
    assert door.begin({}, RANGE, READ_A, common_name="writer").ended == DENIED
    assert door.begin({}, RANGE, READ_A, common_name="stranger").ended == DENIED
    assert door.begin({}, RANGE, READ_A).ended == NO_NAME
    through_gateway = {"grpcgateway-accept": "application/json"}
    assert door.begin(through_gateway, RANGE, READ_A, common_name="reader").ended == NO_NAME
    token = {"token": door.tokens["writer"]}
    assert door.begin(token, RANGE, READ_A, common_name="reader").ended == DENIED, "a token goes first"


def test_a_write_goes_into_the_log_in_the_callers_name(door: Door) -> None:
    call = Call(door.metadata("writer"))
    put = pb.PutRequest(key=b"a").SerializeToString()
    door.context.propose(call, Kind.PUT, put, lambda outcome: None)
    (kind, payload), revision = door.proposed.pop(), door.context.auth.revision
    assert kind == Kind.AUTHORIZED
    assert AuthorizedCommand.FromString(payload) == AuthorizedCommand(
        user="writer", revision=revision, kind=Kind.PUT, payload=put
    )
    outcomes: list[object] = []
    door.context.propose(Call({}), Kind.PUT, put, outcomes.append)
    assert isinstance(outcomes[0], errors.NoUserName) and door.proposed == []


def test_bytes_that_are_no_request_are_nobodys_to_judge(door: Door) -> None:
    call = Call(door.metadata("reader"))
    door.methods[RANGE].handler(call, b"\xff")  # type: ignore[union-attr]
    assert call.ended is not None and call.ended[0] == Status.INTERNAL


# A token that another member has granted a moment ago


def test_a_call_waits_for_the_entry_that_granted_its_token(door: Door) -> None:
    door.catching_up = False
    ahead = {"token": f"letters.{door.replica.machine.applied_index + 1}"}
    known = door.begin(ahead, RANGE, READ_A)
    unknown = door.begin(ahead, RANGE, READ_A)
    failed = door.begin(ahead, RANGE, READ_A)
    assert known.ended is None and len(door.reads) == 3
    door.reads[1](None)  # caught up, and nobody had granted it
    assert unknown.ended == BAD_TOKEN
    door.context.auth.tokens[ahead["token"]] = door.context.auth.tokens[door.tokens["reader"]]
    door.reads[0](None)
    assert known.ended == (0, "")
    door.reads[2](errors.NoLeader())
    assert failed.ended == (Status.UNAVAILABLE, "etcdserver: no leader")
    past = door.begin({"token": "letters.1"}, RANGE, READ_A)
    assert past.ended == BAD_TOKEN and len(door.reads) == 3


def test_so_does_a_stream_and_keeps_what_comes_on_it(door: Door) -> None:
    door.catching_up = False
    token = f"letters.{door.replica.machine.applied_index + 1}"
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a"))
    call = door.begin({"token": token}, WATCH, create)
    door.handler.message(create.SerializeToString())
    observer = door.begin({"token": token}, OBSERVE, election.LeaderRequest(name=b"a"))
    observing = door.handler
    observing.half_closed()
    assert call.sent == observer.sent == []
    door.context.auth.tokens[token] = door.context.auth.tokens[door.tokens["reader"]]
    for done in door.reads:
        done(None)
    assert [each.watch_id for each in responses(call)] == [0, 1]
    assert len(observer.sent) == 1 and door.echoes[-1].heard == ["half closed"]


# Streams that last


def test_a_live_watch_ends_with_its_permission_before_it_hears_of_what_came_after(door: Door) -> None:
    readers, roots = watch(door, "reader"), watch(door, "root")
    put = AuthorizedCommand(member=True, kind=Kind.PUT, payload=pb.PutRequest(key=b"a").SerializeToString())
    door.replica.do(Kind.AUTHORIZED, put)
    door.replica.machine.turn()
    revoke(door, "reader", "reads")
    door.replica.do(Kind.AUTHORIZED, put)
    door.replica.machine.turn()
    created, event, canceled = responses(readers)
    assert created.created and len(event.events) == 1
    assert canceled.canceled and canceled.cancel_reason == "etcdserver: permission denied"
    assert [len(each.events) for each in responses(roots)] == [0, 1, 1]
    assert door.watches.watchers == 1


def test_a_stream_stays_its_users_when_the_token_has_run_out(door: Door) -> None:
    call = watch(door, "reader")
    stream = door.handler
    door.now = 10_000.0
    assert door.begin(door.metadata("reader"), RANGE, READ_A).ended == BAD_TOKEN
    stream.message(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"b")).SerializeToString())
    revoke(door, "writer", "writes")
    door.replica.machine.turn()
    assert [each.created and not each.canceled for each in responses(call)] == [True, True]


def test_watches_of_a_user_that_is_gone_and_of_nobody_end(tmp_path: Path) -> None:
    door = Door(str(tmp_path), Random(1), enabled=False)
    anonymous = watch(door, "nobody")
    door.replica.do(Kind.AUTH_ENABLE, pb.AuthEnableRequest())
    door.tokens["reader"] = door.token("reader")
    readers = watch(door, "reader")
    door.replica.machine.turn()
    assert responses(anonymous)[-1].cancel_reason == "etcdserver: user name is empty"
    assert len(readers.sent) == 1
    as_root(door, Kind.USER_DELETE, pb.AuthUserDeleteRequest(name="reader"))
    door.replica.machine.turn()
    assert responses(readers)[-1].cancel_reason == "etcdserver: invalid auth token"


def test_a_refused_watch_is_worded_as_etcd_words_it(door: Door) -> None:
    (refused,) = responses(watch(door, "writer"))
    assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
    assert refused.cancel_reason == "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    (nameless,) = responses(watch(door, "nobody"))
    assert nameless.cancel_reason == "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"


def test_other_lasting_streams_are_cut_off(door: Door) -> None:
    call = door.begin(door.metadata("reader"), OBSERVE, election.LeaderRequest(name=b"a"))
    stream, echo = door.handler, door.echoes[-1]
    revoke(door, "writer", "writes")
    door.replica.machine.turn()
    assert call.ended is None
    revoke(door, "reader", "reads")
    door.replica.machine.turn()
    assert call.ended == DENIED and echo.heard == ["cancelled"]
    stream.message(b"")
    stream.cancelled()
    assert len(call.sent) == 1 and echo.heard == ["cancelled"]


def test_an_instance_has_its_grace_when_its_announcer_may_not_write_it_any_more(door: Door) -> None:
    request = AnnounceRequest(announce=Announcement(key=b"a", lease_id=9))
    call = door.begin(door.metadata("writer"), "/kvstore.v1.Readiness/Announce", request)
    stream = door.handler
    (kind, payload) = door.proposed.pop()
    command = AuthorizedCommand.FromString(payload)
    assert (kind, command.kind, command.user) == (Kind.AUTHORIZED, Kind.ANNOUNCE, "writer")
    stream.message(AnnounceRequest(keep_alive=KeepAlive()).SerializeToString())
    assert len(call.sent) == 1 and call.ended is None
    revoke(door, "writer", "writes")
    stream.message(AnnounceRequest(keep_alive=KeepAlive()).SerializeToString())
    assert call.ended == DENIED and [kind for kind, _ in door.proposed] == [Kind.ANNOUNCE_END]


def test_an_instance_is_not_taken_over_while_a_member_would_not_know_of_it(door: Door) -> None:
    """It would read over the field, and go on with the holder that the others have dropped."""
    older = MemberRecord(member=pb.Member(ID=0xAB), data_id=1)
    door.replica.machine.members[0xAB] = older
    path, announcement = "/kvstore.v1.Readiness/Announce", Announcement(key=b"a", lease_id=9, take_over=True)
    call = door.begin(door.metadata("writer"), path, AnnounceRequest(announce=announcement))
    text = "kvstore: upgrade all members first: ab runs a version that does not know this"
    assert call.ended == (Status.FAILED_PRECONDITION, text) and not door.proposed
    announcement.take_over = False
    door.begin(door.metadata("writer"), path, AnnounceRequest(announce=announcement))
    assert len(door.proposed) == 1
    older.level = 1
    announcement.take_over = True
    door.begin(door.metadata("writer"), path, AnnounceRequest(announce=announcement))
    assert len(door.proposed) == 2


def test_a_renewal_is_asked_each_time(door: Door) -> None:
    call = door.begin(door.metadata("writer"), KEEP_ALIVE, pb.LeaseKeepAliveRequest(ID=5))
    stream = door.handler
    assert pb.LeaseKeepAliveResponse.FromString(call.sent[0]).TTL == 1
    revoke(door, "writer", "writes")
    stream.message(pb.LeaseKeepAliveRequest(ID=5).SerializeToString())
    assert call.ended == DENIED and len(call.sent) == 1


# How much


@pytest.mark.parametrize("enabled", [False, True])
def test_no_call_puts_more_into_the_log_than_a_request_may_have(tmp_path: Path, enabled: bool) -> None:
    """Of whatever service: what Campaign and Proclaim write is a transaction of this member's own making."""
    door = Door(str(tmp_path), Random(1), enabled=enabled)
    most = door.context.config.max_request_bytes
    outcomes: list[object] = []
    call = Call(door.metadata("root") if enabled else {})
    door.context.propose(call, Kind.TXN, b"x" * most, outcomes.append)
    assert outcomes == [] and len(door.proposed) == 1
    door.context.propose(call, Kind.TXN, b"x" * (most + 1), outcomes.append)
    assert isinstance(outcomes[0], errors.RequestTooLarge) and len(door.proposed) == 1
