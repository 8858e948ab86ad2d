"""Group commit: what is reported is durable, in order, and nothing is reported after a failure."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kvstore.replication.disk import RealDisk
from kvstore.replication.wal import Wal, WalError
from kvstore.replication.wal_format import HEADER
from kvstore.replication.wal_writer import WalWriter
from raft.types import Entry, HardState
from tests.unit.replication.simulated_disk import SimulatedDisk
from tests.unit.replication.wal_runs import CONF, DIRECTORY, METADATA


class Rig:
    """A writer without a thread over a simulated disk: the test says when it writes."""

    def __init__(self) -> None:
        self.disk = SimulatedDisk()
        self.persisted: list[int] = []
        self.failures: list[WalError] = []
        wal = Wal.create(DIRECTORY, METADATA, CONF, self.disk, 1 << 16)
        self.writer = WalWriter(
            wal,
            post=self.post,
            on_persisted=self.persisted.append,
            on_failure=self.failures.append,
            threaded=False,
        )

    def post(self, function: Callable[[object], None], argument: object) -> None:
        function(argument)

    def syncs(self, since: int = 0) -> int:
        return self.disk.story[since:].count("fdatasync")


def unexpected(failure: WalError) -> None:
    pytest.fail(str(failure))


def entry(index: int) -> Entry:
    return Entry(index, 1, b"entry %d" % index)


def test_everything_queued_is_one_write_and_one_sync() -> None:
    rig = Rig()
    steps = len(rig.disk.story)
    for number in range(1, 11):
        rig.writer.submit(number, HardState(1, 1, number - 1), None, [entry(number)])
    assert rig.persisted == []
    assert rig.writer.flush()
    assert rig.persisted == [10]
    assert [line.split()[0] for line in rig.disk.story[steps:]] == ["write", "fdatasync"]
    assert not rig.writer.flush()
    rig.writer.close()
    _, found = Wal.open(DIRECTORY, rig.disk)
    assert (found.last_index, found.hard_state) == (10, HardState(1, 1, 9))


def test_a_commit_alone_costs_no_sync_and_rides_with_the_next_frame() -> None:
    rig = Rig()
    steps = len(rig.disk.story)
    rig.writer.submit(1, HardState(1, 1, 0), None, [entry(1)])
    rig.writer.submit(2, HardState(1, 1, 1), None, [], sync=False)
    assert rig.persisted == [], "reported before what came first"
    rig.writer.flush()
    assert rig.persisted == [2]
    rig.writer.submit(3, HardState(1, 1, 1), None, [], sync=False)
    assert rig.persisted == [2, 3]
    assert rig.syncs(steps) == 1
    rig.writer.submit(4, None, None, [entry(2)])
    rig.writer.flush()
    assert rig.syncs(steps) == 2
    copy = rig.disk.copy()
    assert Wal.open(DIRECTORY, copy)[1].hard_state == HardState(1, 1, 1)


def test_a_commit_never_reaches_the_disk_before_its_entries() -> None:
    """The commit of 3 waits for a frame; the frame under way holds 1 only. Written there, it would point at
    nothing after a crash."""
    rig = Rig()
    rig.writer.submit(1, HardState(1, 1, 0), None, [Entry(1, 1, b"x" * (9 << 20))])  # a frame to itself
    rig.writer.submit(2, None, None, [entry(2)])
    rig.writer.submit(3, HardState(1, 1, 2), None, [], sync=False)
    rig.writer.flush()
    assert rig.persisted == [1]
    assert Wal.open(DIRECTORY, rig.disk.copy())[1].hard_state.commit == 0
    rig.writer.flush()
    assert rig.persisted == [1, 3]
    assert Wal.open(DIRECTORY, rig.disk.copy())[1].hard_state.commit == 2


def test_an_older_commit_never_replaces_a_newer_vote() -> None:
    rig = Rig()
    rig.writer.submit(1, HardState(1, 1, 0), None, [entry(1)])
    rig.writer.flush()
    rig.writer.submit(2, HardState(1, 1, 1), None, [], sync=False)
    rig.writer.submit(3, HardState(2, 3, 1), None, [])
    rig.writer.flush()
    rig.writer.idle()
    rig.writer.close()
    assert Wal.open(DIRECTORY, rig.disk)[1].hard_state == HardState(2, 3, 1)


def test_idle_seals_once_and_writes_the_commit() -> None:
    rig = Rig()
    rig.writer.submit(1, HardState(1, 1, 0), None, [entry(1)])
    rig.writer.flush()
    steps = len(rig.disk.story)
    rig.writer.idle()
    rig.writer.idle()
    assert rig.syncs(steps) == 1
    rig.writer.submit(2, HardState(1, 1, 1), None, [], sync=False)
    rig.writer.idle()
    assert rig.syncs(steps) == 2
    assert Wal.open(DIRECTORY, rig.disk.copy())[1].hard_state.commit == 1


def test_after_a_failure_nothing_is_reported_or_written() -> None:
    rig = Rig()
    rig.writer.submit(1, None, None, [entry(1)])
    rig.writer.flush()
    rig.disk.fail_at[rig.disk.steps + 2] = errno.EIO
    rig.writer.submit(2, None, None, [entry(2)])
    rig.writer.flush()
    assert rig.persisted == [1]
    assert [str(failure) for failure in rig.failures] == [
        "write-ahead log failed: /wal/0000000000000001.wal: [Errno 5] Input/output error"
    ]
    steps = rig.disk.steps
    rig.writer.submit(3, None, None, [entry(3)])
    rig.writer.submit(4, HardState(2, 0, 0), None, [], sync=False)
    rig.writer.flush()
    rig.writer.idle()
    rig.writer.close()
    assert (rig.persisted, len(rig.failures), rig.disk.steps) == ([1], 1, steps)


def test_a_bug_in_what_is_submitted_stops_the_member_instead_of_hanging_it() -> None:
    rig = Rig()
    rig.writer.submit(1, None, None, [entry(5)])
    rig.writer.flush()
    assert rig.persisted == []
    assert "entry 5 cannot follow 0@0" in str(rig.failures[0])


def test_release_deletes_segments() -> None:
    rig = Rig()
    for number in range(1, 40):
        rig.writer.submit(number, None, None, [Entry(number, 1, b"x" * 8000)])
        rig.writer.flush()
    before = len(rig.disk.list(DIRECTORY))
    rig.writer.release(39)
    rig.writer.flush()
    assert len(rig.disk.list(DIRECTORY)) == before - 1, "one at a time while there may be work"
    for _ in range(before):
        rig.writer.idle()
    assert len(rig.disk.list(DIRECTORY)) == 1 < before - 1


async def test_the_thread_reports_in_order_and_close_writes_what_is_queued(tmp_path: Path) -> None:
    directory = str(tmp_path / "wal")
    wal = Wal.create(directory, METADATA, CONF, RealDisk(), 1 << 20)
    persisted: list[int] = []
    enough = asyncio.Event()

    def on_persisted(number: int) -> None:
        persisted.append(number)
        if number >= 200:
            enough.set()

    loop = asyncio.get_running_loop()
    writer = WalWriter(wal, post=loop.call_soon_threadsafe, on_persisted=on_persisted, on_failure=unexpected)
    for number in range(1, 201):
        writer.submit(number, HardState(1, 1, number - 1), None, [entry(number)], number % 5 != 0)
        if number % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(enough.wait(), 5)
    assert persisted == sorted(set(persisted))
    writer.submit(201, None, None, [entry(201)])
    writer.close()
    assert not any(thread.name == "wal-writer" for thread in threading.enumerate())
    reopened, found = Wal.open(directory, RealDisk())
    reopened.close()
    assert [e.index for e in found.entries] == list(range(1, 202))


class SealSeen(RealDisk):
    """Tells the loop of a frame that is nothing but its header."""

    def __init__(self, seen: Callable[[], object]) -> None:
        self._seen = seen

    def write_durably(self, handle: int, buffers: Sequence[bytes], *, offset: int) -> None:
        super().write_durably(handle, buffers, offset=offset)
        if sum(map(len, buffers)) == HEADER.size:
            self._seen()


async def test_the_thread_seals_when_idle(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    persisted, sealed = asyncio.Event(), asyncio.Event()
    disk = SealSeen(lambda: loop.call_soon_threadsafe(sealed.set))
    wal = Wal.create(str(tmp_path / "wal"), METADATA, CONF, disk, 1 << 20)
    writer = WalWriter(
        wal,
        post=loop.call_soon_threadsafe,
        on_persisted=lambda number: persisted.set(),
        on_failure=unexpected,
        idle_s=0.005,
    )
    writer.submit(1, None, None, [entry(1)])
    await persisted.wait()
    await asyncio.wait_for(sealed.wait(), 5)
    async with asyncio.timeout(5):
        while not wal.sealed:  # noqa: ASYNC110  the thread says so a moment after its write
            await asyncio.sleep(0)
    writer.close()
