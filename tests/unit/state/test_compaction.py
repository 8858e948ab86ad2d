"""The removal behind a compaction: what goes, what stays, in slices, and through restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import CompactionRequest, PutRequest
from kvstore.state.compaction import SLICE_EVERY_S, SLICE_RECORDS, SLICES_AT_ONCE, Pace
from kvstore.state.machine import StateMachine
from kvstore.state.records import REVISION
from tests.unit.state.harness import MAP_BYTES, Replica


def stored(replica: Replica) -> list[int]:
    """The revisions that are in LMDB's history."""
    replica.machine.flush()
    return [REVISION.unpack(own)[0] for own, _ in replica.machine._reader.history(bytes(12))]


def test_the_newest_at_the_point_and_a_tombstone_exactly_there_stay(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    replica.put(b"a")  # 2
    replica.put(b"a")  # 3
    replica.put(b"b")  # 4
    replica.delete(b"b")  # 5
    replica.put(b"c")  # 6
    replica.delete(b"c")  # 7
    replica.put(b"a")  # 8
    replica.compact(7)
    replica.turns()
    assert stored(replica) == [3, 7, 8]
    assert replica.machine._reader.latest(b"b") is None, "the key goes with its tombstone"
    assert replica.machine._reader.latest(b"c") is not None
    replica.compact(8)
    replica.turns()
    assert stored(replica) == [8]
    assert replica.machine._reader.latest(b"c") is None
    assert replica.machine.physical_compact_revision == replica.machine.compact_revision == 8


def test_a_key_made_again_survives_its_tombstone(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    replica.put(b"k")  # 2
    replica.delete(b"k")  # 3
    replica.put(b"x")  # 4
    replica.compact(4)
    replica.machine.turn()
    replica.put(b"k", b"new")  # 5, while the removal is on its way
    replica.turns()
    assert replica.values() == {b"k": b"new", b"x": b""}
    assert replica.range(b"k").kvs[0].version == 1
    assert stored(replica) == [4, 5]


@pytest.mark.parametrize("key", [b"k", b"k" * 600])
@pytest.mark.parametrize("committed", [False, True])
def test_a_newer_version_keeps_its_key(tmp_path: Path, key: bytes, committed: bool) -> None:
    """Whether it is stored before the tombstone's removal, or in the same transaction."""
    replica = Replica(str(tmp_path))
    replica.put(key)
    replica.delete(key)
    replica.put(b"x")
    replica.machine.flush()
    replica.compact(4)
    replica.put(key, b"new")
    if committed:
        replica.machine.flush()
    replica.turns()
    replica.reopen(crash=False)
    assert replica.values() == {key: b"new", b"x": b""}


def test_it_goes_in_slices_and_on_after_a_crash(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    count = SLICE_RECORDS * 5
    for number in range(count):
        replica.put(b"k%d" % (number % 3), b"%d" % number)
    replica.machine.flush()
    replica.compact(count)
    wanted = replica.values(count)
    assert replica.machine.turn(), "there is more to do"
    replica.machine.turn()
    assert replica.machine.physical_compact_revision < replica.machine.compact_revision
    before = replica.machine.hash_kv()
    replica.reopen(crash=True)
    assert replica.machine.hash_kv() == before, "a hash does not depend on how far the removal is"
    assert replica.values(count) == wanted
    replica.turns()
    assert replica.machine.physical_compact_revision == count
    assert stored(replica) == [count - 2, count - 1, count, count + 1]
    assert (replica.machine.hash_kv(), replica.values(count)) == (before, wanted)


def test_a_second_compaction_during_the_first(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    for number in range(SLICE_RECORDS * 2):
        replica.put(b"k", b"%d" % number)
    tombstone = replica.delete(b"k")
    replica.put(b"x")
    replica.machine.flush()
    replica.compact(tombstone)
    replica.machine.turn()
    replica.compact(tombstone + 1)
    replica.turns()
    assert stored(replica) == [tombstone + 1]
    assert replica.machine.revision == tombstone + 1, "etcd 17780: the revision never falls"
    replica.reopen(crash=False)
    assert replica.machine.revision == tombstone + 1


def test_slices_keep_their_distance_and_a_late_loop_catches_up() -> None:
    pace = Pace()
    assert pace.due(100.0, 1000) == SLICE_RECORDS * SLICES_AT_ONCE, "nothing was done for long"
    assert pace.due(100.0 + SLICE_EVERY_S / 2, 1000) == 0, "a turn that came for something else"
    assert pace.due(100.0 + 0.95 * SLICE_EVERY_S, 1000) == int(0.95 * SLICE_RECORDS)
    assert pace.due(100.0 + 2.95 * SLICE_EVERY_S, 1000) in (2 * SLICE_RECORDS, 2 * SLICE_RECORDS - 1)
    assert pace.due(200.0, 1000) == SLICE_RECORDS * SLICES_AT_ONCE, "however late it is"


def test_a_long_removal_goes_faster() -> None:
    pace = Pace()
    pace.due(0.0, 1)
    assert pace.due(SLICE_EVERY_S, 1_000_000) > 2 * SLICE_RECORDS


class Timers:
    """A machine's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Callable[[], None]] = []
        self.woken = 0

    def open(self, directory: Path) -> StateMachine:
        return StateMachine.open(
            str(directory),
            backend="sync",
            map_bytes=MAP_BYTES,
            sync=False,
            now=lambda: self.now,
            wake=self.wake,
            call_later=lambda delay, call: self.calls.append(call),
        )

    def wake(self) -> None:
        self.woken += 1

    def pass_by(self, seconds: float = SLICE_EVERY_S) -> None:
        self.now += seconds
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def test_a_removal_is_spread_over_time_and_ends(tmp_path: Path) -> None:
    """However often writes bring a turn, and with one timer at a time."""
    timers = Timers()
    replica = Replica(str(tmp_path))
    replica.machine.abandon()
    machine = replica.machine = timers.open(tmp_path)
    count = SLICE_RECORDS * 10
    puts = [(int(Kind.PUT), PutRequest(key=b"k%d" % (number % 3))) for number in range(count)]
    replica.apply(*puts)
    machine.flush()
    replica.apply((int(Kind.COMPACT), CompactionRequest(revision=count)))
    steps = 0
    while machine.physical_compact_revision < count:
        machine.turn()
        reached = machine.physical_compact_revision
        assert not machine.turn(), "another turn would do nothing, and is not asked for"
        assert machine.physical_compact_revision == reached
        woken = timers.woken
        assert len(timers.calls) <= 1
        timers.pass_by()
        assert timers.woken == woken + 1 or machine.physical_compact_revision == count
        steps += 1
        assert steps < 100
    assert steps >= 5
    replica.machine.flush()
    assert [REVISION.unpack(own)[0] for own, _ in machine._reader.history(bytes(12))] == [
        count - 2, count - 1, count, count + 1
    ]  # fmt: skip
    assert not machine.turn()
    assert not timers.calls, "an idle member is left alone"
