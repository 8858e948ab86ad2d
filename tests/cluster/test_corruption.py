"""A member whose database was altered while it was down: the others find out, or it finds out itself."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.state.records import KV_AT
from kvstore.state.storage_process import HISTORY, open_environment, open_tables
from tests.cluster.harness import running, wait_for


def flip(database: Path) -> None:
    """One bit of the last value that is stored: it stays readable, and is wrong."""
    env = open_environment(str(database), map_bytes=1 << 30, sync=True)
    tables = open_tables(env, create=False)
    with env.begin(write=True) as txn:
        cursor = txn.cursor(tables[HISTORY])
        assert cursor.last()
        position, record = bytes(cursor.key()), bytearray(cursor.value())
        assert len(record) > KV_AT
        record[-1] ^= 1
        txn.put(position, bytes(record), db=tables[HISTORY])
    env.close()


def test_the_leader_names_who_differs_and_it_refuses_to_serve_when_asked_to_look(tmp_path: Path) -> None:
    with running(tmp_path, extra=["--experimental-corrupt-check-time=300ms"]) as cluster:
        leader = cluster.leader()
        for number in range(20):
            leader.calls.put(b"k%d" % number, b"value")
        cluster.wait_equal()
        victim = next(member for member in cluster.members if member is not leader)
        status = victim.status()
        assert status is not None
        victim.stop()
        flip(next(victim.data_dir.rglob("state.mdb")))
        victim.start()
        expected = [(status.header.member_id, pb.AlarmType.CORRUPT)]
        wait_for(
            lambda: [(one.memberID, one.alarm) for one in cluster.leader().calls.alarms()] == expected,
            "the alarm of the member that differs",
        )
        with pytest.raises(grpc.RpcError) as refused:
            leader.calls.put(b"k", b"more")
        assert refused.value.details() == "etcdserver: corrupt cluster"
        assert refused.value.code() == grpc.StatusCode.DATA_LOSS
        victim.stop()
        victim.start("--experimental-initial-corrupt-check")
        assert victim.wait_exit() == 1
        (line,) = [one for one in victim.log_lines() if one["msg"] == "member stopped"]
        assert "found data inconsistency with peers" in line["error"]
        healthy = next(one for one in cluster.members if one not in (leader, victim))
        healthy.stop()
        healthy.start("--feature-gates=InitialCorruptCheck=true")
        wait_for(lambda: healthy.has_logged("initial corruption checking passed; no corruption"), "its start")
