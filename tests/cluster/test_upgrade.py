"""Members of different versions: what a member does about something that a newer one wrote."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import grpc

from kvstore.commands import Kind, encode_batch
from kvstore.pb.etcdserverpb_pb2 import PutRequest
from kvstore.pb.quota_pb2 import QuotaSetRequest, QuotaSetResponse
from kvstore.replication.disk import RealDisk
from kvstore.replication.wal import Batch, Wal
from raft import Entry
from tests.cluster.harness import KVSTORE, MemberHandle, TestCluster, running, wait_for

NEWER = 250


def test_a_member_stops_at_a_command_it_does_not_know_however_often_it_is_started(tmp_path: Path) -> None:
    """It says what to do, and serves nothing of the entry; what was acknowledged before stays readable to the
    version that knows the command, which here is this one with the entry's command replaced."""
    with running(tmp_path, size=1) as cluster:
        (member,) = cluster.members
        member.calls.put(b"k", b"before")
        member.stop()
        put = (Kind.PUT, PutRequest(key=b"k", value=b"of the same entry").SerializeToString())
        append(member.data_dir, encode_batch([put, (NEWER, b"")], origin=99, incarnation=1, sequence=1))
        for _ in range(2):
            member.start()
            assert member.process is not None
            assert member.process.wait(20) == 1
            member.process = None
            last = member.log_path.read_text().splitlines()[-1]
            assert f"holds a command of kind {NEWER}, which kvstore" in last, last
            assert "Start this member with the version that the others run" in last, last
            assert "traceback" not in last


def test_a_rolling_upgrade_opens_what_is_new_with_its_last_member(tmp_path: Path) -> None:
    """Until then it is refused and says whom it waits for, wherever it is asked; nobody stops. The first to be
    upgraded is known as such in the end even to those that were older when it told them."""
    cluster = TestCluster(tmp_path)
    try:
        for member in cluster.members:
            member.program = [sys.executable, "-m", "tests.cluster.older"]
        cluster.start()
        for upgraded in cluster.members:
            ids = {each: each.calls.status().header.member_id for each in cluster.members}
            upgraded.stop()
            upgraded.program = KVSTORE
            upgraded.start()
            cluster.wait_ready()
            older = [each for each in cluster.members if each.program != KVSTORE]
            if older:
                wait_for(lambda: refused(upgraded) == text([ids[each] for each in older]), "who is older")  # noqa: B023
        for member in cluster.members:
            wait_for(lambda: refused(member) == "", f"a quota by {member.name}")  # noqa: B023
        # Known not only to whoever answered: the state of each says so of all.
        assert [member.calls.range(b"k").header.revision for member in cluster.members] == [1, 1, 1]
    finally:
        cluster.end()


def refused(member: MemberHandle) -> str:
    """What a quota is refused with by this member; "" where it is taken."""
    with grpc.insecure_channel(member.endpoint) as channel:
        method = channel.unary_unary(
            "/kvstore.v1.Quota/Set",
            request_serializer=QuotaSetRequest.SerializeToString,
            response_deserializer=QuotaSetResponse.FromString,
        )
        try:
            method(QuotaSetRequest(prefix=b"k", keys_max=9), timeout=10)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
            return error.details() or ""
    return ""


def text(member_ids: list[int]) -> str:
    older = ", ".join(f"{member_id:x}" for member_id in sorted(member_ids))
    return f"kvstore: upgrade all members first: {older} runs a version that does not know this"


def append(data_dir: Path, data: bytes) -> None:
    """One more entry in the log of a member that does not run, as a leader would have sent it."""
    (folder,) = {path.parent for path in data_dir.rglob("*.wal")}
    wal, state = Wal.open(str(folder), RealDisk())
    last = state.entries[-1]
    assert state.hard_state is not None
    batch = Batch()
    hard_state = replace(state.hard_state, commit=last.index + 1)
    batch.add(hard_state, None, [Entry(last.index + 1, last.term, data)])
    wal.append(batch)
    wal.close()
