"""Where a member begins after a restart: the write-ahead log and state put together.

State's index may lie anywhere against the log: inside it (as nearly always), or ahead of it, because state
applies what a majority's disks hold before this one does, and because a snapshot replaces state first. What
state has applied is committed, so where the two disagree the log gives way and is made to begin at state.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from kvstore.replication.wal import Batch, Recovered, Wal, WalError, WalMetadata
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


def meet(recovered: Recovered, *, applied: int, term: int) -> tuple[Start, bool]:
    """Puts a recovered log and state (applied up to index `applied`, whose entry had `term`) together. Pure.
    True where the log gave way, which the log must be told. Raises StateBehindLog."""
    conf = recovered.snapshot.conf_state if recovered.snapshot is not None else recovered.conf_state
    if applied < recovered.base_index:
        raise StateBehindLog(
            f"state ends at index {applied} and the log begins after {recovered.base_index}: "
            "the entries between are missing"
        )
    base = SnapshotMeta(recovered.base_index, recovered.base_term, conf)
    entries, gave_way = recovered.entries, False
    if _term_at(recovered.base_index, recovered.base_term, entries, applied) != term:
        base, entries, gave_way = SnapshotMeta(applied, term, conf), [], True
    last = entries[-1].index if entries else base.index
    before = recovered.hard_state
    hard_state = HardState(before.term, before.vote, max(applied, min(before.commit, last)))
    start = Start(recovered.metadata, recovered.incarnation, hard_state, base, entries, applied)
    return start, gave_way


def recover(directory: str, disk: Disk, state: Applied) -> tuple[Wal, Start]:
    """Opens the log (which counts one more incarnation) and settles where it and state meet. Raises WalError."""
    wal, recovered = Wal.open(directory, disk)
    try:
        start, gave_way = meet(recovered, applied=state.applied_index, term=state.applied_term)
    except StateBehindLog as problem:
        wal.close()
        raise StateBehindLog(f"{directory}: {problem}") from None
    if gave_way:
        restart = Batch()
        restart.add(None, start.base, [])
        wal.append(restart)
    return wal, start


def _term_at(base_index: int, base_term: int, entries: list[Entry], index: int) -> int | None:
    if index == base_index:
        return base_term
    at = index - base_index - 1
    return entries[at].term if at < len(entries) else None
