"""Where a member begins after a restart: the write-ahead log and state put together.

State's index may lie anywhere against the log: inside it (as nearly always), or ahead of it, because state
applies what a majority's disks hold before this one does, and because a snapshot replaces state first. What
state has applied is committed, so where the two disagree the log gives way and is made to begin at state.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from kvstore.replication.wal import Batch, Wal, WalError, WalMetadata
from kvstore.replication.wal_format import Replay
from kvstore.replication.world import Disk
from raft import Entry, HardState, SnapshotMeta


class Applied(Protocol):
    @property
    def applied_index(self) -> int: ...

    @property
    def applied_term(self) -> int: ...


class StateBehindLog(WalError):
    """Entries between state and the log are missing: one of the two was put back from elsewhere."""


@dataclass(frozen=True)
class Start:
    metadata: WalMetadata
    incarnation: int
    hard_state: HardState
    base: SnapshotMeta
    entries: list[Entry]
    applied: int


def read_metadata(directory: str, disk: Disk) -> WalMetadata:
    """Whose log this is, without changing anything: every segment begins with it. Raises WalError."""
    newest = max(name for name in disk.list(directory) if name.endswith(".wal"))
    path = os.path.join(directory, newest)
    handle = disk.open(path)
    try:
        data = disk.read(handle, offset=0, size=disk.size(path))
    finally:
        disk.close(handle)
    replay = Replay()
    replay.segment(path, int(newest[:16], 16), data, last=True)
    return replay.finish(path).metadata


def recover(directory: str, disk: Disk, state: Applied) -> tuple[Wal, Start]:
    """Opens the log (which counts one more incarnation) and settles where it and state meet. Raises WalError."""
    wal, recovered = Wal.open(directory, disk)
    conf = recovered.snapshot.conf_state if recovered.snapshot is not None else recovered.conf_state
    applied, term = state.applied_index, state.applied_term
    if applied < recovered.base_index:
        wal.close()
        raise StateBehindLog(
            f"{directory}: state ends at index {applied} and the log begins after {recovered.base_index}: "
            "the entries between are missing"
        )
    base = SnapshotMeta(recovered.base_index, recovered.base_term, conf)
    entries = recovered.entries
    if _term_at(recovered.base_index, recovered.base_term, entries, applied) != term:
        base, entries = SnapshotMeta(applied, term, conf), []
        restart = Batch()
        restart.add(None, base, [])
        wal.append(restart)
    last = entries[-1].index if entries else base.index
    state_before = recovered.hard_state
    commit = max(applied, min(state_before.commit, last))
    hard_state = HardState(state_before.term, state_before.vote, commit)
    return wal, Start(recovered.metadata, recovered.incarnation, hard_state, base, entries, applied)


def _term_at(base_index: int, base_term: int, entries: list[Entry], index: int) -> int | None:
    if index == base_index:
        return base_term
    at = index - base_index - 1
    return entries[at].term if at < len(entries) else None
