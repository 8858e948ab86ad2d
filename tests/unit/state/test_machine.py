"""The face: what is durable when, the backlog, sizes, snapshots, hashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.errors import Compacted, FutureRevision
from kvstore.state.machine import SEAL_RECORDS, StateMachine
from kvstore.state.snapshot import BadSnapshot
from tests.unit.state.harness import MAP_BYTES, Replica


def test_a_generation_waits_for_records_or_time(tmp_path: Path) -> None:
    clock = [10.0]
    replica = Replica(str(tmp_path))
    replica.machine._now = lambda: clock[0]
    durable: list[int] = []
    replica.machine.on_durable = durable.append
    replica.put(b"k")
    replica.machine.turn()
    clock[0] = 10.09
    replica.machine.turn()
    assert (durable, replica.machine.backlog_records) == ([], 1)
    clock[0] = 10.11
    replica.machine.turn()
    assert (durable, replica.machine.durable_index) == ([1], 1)
    assert (replica.machine.backlog_records, replica.machine.backlog_bytes) == (0, 0)


def test_a_large_backlog_is_split(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    count = SEAL_RECORDS + 10
    for number in range(count):
        replica.put(b"k%05d" % number)
    assert replica.machine.backlog_records == count
    assert replica.range(b"\0", b"\0", count_only=True).count == count
    replica.machine.turn()
    assert replica.machine.durable_index == SEAL_RECORDS
    assert replica.range(b"k00000", b"k00003").count == 3
    replica.machine.flush()
    assert replica.machine.durable_index == count
    assert replica.range(b"\0", b"\0", count_only=True).count == count


def test_hashes(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    for number in range(10):
        replica.put(b"k%d" % (number % 3), b"%d" % number)
    at_five = replica.machine.hash_kv(5)
    assert at_five[1:] == (0, 5)
    replica.put(b"k")
    assert replica.machine.hash_kv(5) == at_five
    assert replica.machine.hash_kv(0) == replica.machine.hash_kv(12) != at_five
    with pytest.raises(FutureRevision):
        replica.machine.hash_kv(13)
    assert replica.machine.hash_kv(-1) == replica.machine.hash_kv(0)
    replica.compact(6)
    with pytest.raises(Compacted):
        replica.machine.hash_kv(5)
    assert replica.machine.hash_kv(6)[1:] == (6, 6)


def test_the_quota_is_of_what_is_used(tmp_path: Path) -> None:
    machine = StateMachine.open(
        str(tmp_path), backend="sync", map_bytes=MAP_BYTES, sync=False, quota_bytes=200_000
    )
    replica = Replica.__new__(Replica)
    replica.machine, replica.log, replica.term = machine, [], 1
    assert not machine.over_quota
    for number in range(200):
        replica.put(b"k%d" % number, bytes(1000))
    assert machine.over_quota, "counted before it is stored"
    machine.flush()
    assert machine.over_quota and machine.space.is_full
    assert 200_000 < machine.db_size_in_use <= machine.db_size


@pytest.mark.parametrize("backend", ["sync", "lmdb"])
def test_a_snapshot_is_the_state_at_its_index(tmp_path: Path, backend: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    replica = Replica(str(tmp_path / "a"), backend)
    replica.grant(5)
    replica.put(b"k", b"1", lease=5)
    replica.machine.flush()
    wanted = replica.machine.hash_kv()
    replica.put(b"later")
    copy = str(tmp_path / "copy")
    assert replica.machine.snapshot_to(copy) == (2, 1, 2)
    StateMachine.install(str(tmp_path / "b"), copy)
    other = Replica(str(tmp_path / "b"), backend)
    assert (other.machine.applied_index, other.machine.hash_kv()) == (2, wanted)
    assert other.machine.lessor.keys(5) == [b"k"]
    other.log = [b"", b""]
    other.put(b"later")
    assert other.machine.hash_kv() == replica.machine.hash_kv()
    other.machine.flush_and_close()
    replica.machine.flush_and_close()


def test_what_is_no_snapshot_is_not_installed(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    replica.put(b"k", b"1")
    replica.machine.flush_and_close()
    (tmp_path / "wrong").write_bytes(b"x" * 20_000)
    with pytest.raises(BadSnapshot):
        StateMachine.install(str(tmp_path), str(tmp_path / "wrong"))
    assert Replica(str(tmp_path)).values() == {b"k": b"1"}
