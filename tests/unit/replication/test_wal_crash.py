"""Power cuts at every step of a run, full and failing disks: what was promised is there, nothing else is."""

from __future__ import annotations

import contextlib
import errno
import random

import pytest

from kvstore.replication.wal import Batch, Wal, WalFailed, WalLocked
from raft.types import Entry, HardState
from tests.unit.replication.simulated_disk import PowerCut, SimulatedDisk
from tests.unit.replication.wal_runs import CONF, DIRECTORY, METADATA, Model, agrees, execute, plan

MODES = ["none", "all", "prefix", "random", "random", "random"]


def recover_and_check(disk: SimulatedDisk, promised: list[Model], where: str) -> None:
    if not promised:  # the cut came before create() returned
        if Wal.exists(DIRECTORY, disk):
            Wal.open(DIRECTORY, disk, 4096)
        return
    wal, found = Wal.open(DIRECTORY, disk, 4096)
    assert any(agrees(found, model) for model in promised), f"{where}: found {found}, promised {promised}"
    batch = Batch()
    entry = Entry(found.last_index + 1, found.hard_state.term + 1, b"after the crash")
    batch.add(HardState(entry.term, 1, found.hard_state.commit), None, [entry])
    wal.append(batch)
    wal.close()
    wal, again = Wal.open(DIRECTORY, disk, 4096)
    wal.close()
    assert again.entries == [*found.entries, entry], where
    assert again.incarnation == found.incarnation + 1, where


def steps_of(seed: int, count: int) -> int:
    disk = SimulatedDisk()
    execute(disk, plan(seed, count), [])
    return disk.steps


def test_power_cut_at_every_step_of_a_run() -> None:
    states = 0
    for seed in range(6):
        steps = plan(seed, 25)
        for cut in range(1, steps_of(seed, 25) + 1):
            for attempt, mode in enumerate(MODES):
                disk, promised = SimulatedDisk(crash_at=cut), list[Model]()
                with pytest.raises(PowerCut):
                    execute(disk, steps, promised)
                disk.crash(random.Random(cut * 31 + attempt), mode)
                where = f"seed {seed}, cut {cut}, {mode} ({attempt}), last {disk.story[-1]}"
                recover_and_check(disk, promised, where)
                states += 1
    assert states >= 2000, states


def test_a_power_cut_during_recovery_and_another_after_it() -> None:
    steps = plan(3, 20)
    for cut in range(8, steps_of(3, 20), 7):
        for again in range(1, 6):
            disk, promised = SimulatedDisk(crash_at=cut), list[Model]()
            with pytest.raises(PowerCut):
                execute(disk, steps, promised)
            rng = random.Random(cut)
            disk.crash(rng)
            disk.crash_at = disk.steps + again
            with contextlib.suppress(PowerCut):
                Wal.open(DIRECTORY, disk, 4096)
            disk.crash(rng)
            recover_and_check(disk, promised, f"cut {cut}, then {again}")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_an_error_at_any_step_stops_the_log_for_good_and_keeps_what_was_promised(code: int) -> None:
    steps = plan(1, 25)
    for at in range(2, steps_of(1, 25)):
        disk, promised = SimulatedDisk(), list[Model]()
        disk.fail_at[at] = code
        with pytest.raises(WalFailed, match="write-ahead log failed: /wal"):
            execute(disk, steps, promised)
        disk.fsync_broken = False
        disk.crash(random.Random(at))
        recover_and_check(disk, promised, f"error at {at}: {disk.story[at - 1]}")


def test_after_a_failed_sync_nothing_is_tried_again() -> None:
    disk = SimulatedDisk()
    wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)
    batch = Batch()
    batch.add(None, None, [Entry(1, 1, b"lost")])
    disk.fail_at[disk.steps + 2] = errno.EIO
    with pytest.raises(WalFailed):
        wal.append(batch)
    steps = disk.steps
    with pytest.raises(WalFailed):
        wal.append(batch)
    with pytest.raises(WalFailed):
        wal.seal(HardState())
    wal.close()
    assert disk.steps == steps


def test_a_disk_that_fills_up_keeps_what_was_promised() -> None:
    steps = plan(2, 40)
    for capacity in range(100, 30_000, 331):
        disk, promised = SimulatedDisk(capacity=capacity), list[Model]()
        try:
            execute(disk, steps, promised)
        except WalFailed as failure:
            assert isinstance(failure.error, OSError)
            assert failure.error.errno == errno.ENOSPC
        disk.crash(random.Random(capacity))
        disk.capacity = 1 << 40
        recover_and_check(disk, promised, f"capacity {capacity}")


def test_only_one_process_has_the_log() -> None:
    disk = SimulatedDisk()
    wal = Wal.create(DIRECTORY, METADATA, CONF, disk, 4096)
    with pytest.raises(WalLocked, match="another process uses the write-ahead log in /wal"):
        Wal.open(DIRECTORY, disk, 4096)
    wal.close()
    Wal.open(DIRECTORY, disk, 4096)[0].close()
