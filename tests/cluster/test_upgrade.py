"""Members of different versions: what a member does about something that a newer one wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kvstore.commands import Kind, encode_batch
from kvstore.pb.etcdserverpb_pb2 import PutRequest
from kvstore.replication.disk import RealDisk
from kvstore.replication.wal import Batch, Wal
from raft import Entry
from tests.cluster.harness import running

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
