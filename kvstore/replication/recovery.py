"""Where a member begins after a restart: the write-ahead log and state put together.

State's index may lie anywhere against the log: inside it (as nearly always), or ahead of it, because state
applies what a majority's disks hold before this one does, and because a snapshot replaces state first. What
state has applied is committed, so where the two disagree the log gives way and is made to begin at state.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kvstore.pb.internal_pb2 import ConfigContext, MemberRecord
from kvstore.replication.wal import SEGMENT_BYTES, Batch, Recovered, Wal, WalError, WalMetadata
from kvstore.replication.wal_format import Replay
from kvstore.replication.world import Disk
from raft import ConfState, Entry, EntryKind, HardState, SnapshotMeta, membership


class Applied(Protocol):
    @property
    def applied_index(self) -> int: ...

    @property
    def applied_term(self) -> int: ...

    @property
    def conf(self) -> bytes:
        """The configuration as of applied_index, in raft's bytes; b"" where there is none yet."""


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
    founders: tuple[int, ...] = ()  # who the cluster was made of, where its first entry is not written yet


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


def meet(recovered: Recovered, *, applied: int, term: int, conf: ConfState) -> tuple[Start, bool]:
    """Puts a recovered log and state together: state has applied up to index `applied`, whose entry had `term`,
    and knows the configuration as of there. Pure. True where the log gave way, which the log must be told.
    Raises StateBehindLog."""
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
    start = Start(
        recovered.metadata,
        recovered.incarnation,
        hard_state,
        base,
        entries,
        applied,
        founders=recovered.conf_state.voters if last == 0 else (),
    )
    return start, gave_way


def recover(
    directory: str, disk: Disk, state: Applied, *, segment_bytes: int = SEGMENT_BYTES
) -> tuple[Wal, Start]:
    """Opens the log (which counts one more incarnation) and settles where it and state meet. Raises WalError."""
    wal, recovered = Wal.open(directory, disk, segment_bytes)
    try:
        start, gave_way = meet(
            recovered, applied=state.applied_index, term=state.applied_term, conf=decode_conf(state.conf)
        )
    except StateBehindLog as problem:
        wal.close()
        raise StateBehindLog(f"{directory}: {problem}") from None
    if gave_way:
        restart = Batch()
        restart.add(None, start.base, [])
        wal.append(restart)
    return wal, start


def found(wal: Wal, start: Start, members: Sequence[MemberRecord]) -> Start:
    """Writes a new cluster's first entry, the same on every founding member: the configuration it begins with
    and who its members are, committed from the start. Whoever joins later reads it like any other."""
    by_id = {record.member.ID: record for record in members}
    context = ConfigContext(added=[by_id[each] for each in sorted(by_id)])
    conf = membership.initial(start.founders)
    data = membership.encode(conf, context.SerializeToString(deterministic=True))
    entry = Entry(1, 1, data, EntryKind.CONFIG)
    hard_state = HardState(max(1, start.hard_state.term), start.hard_state.vote, 1)
    _write(wal, hard_state, entry)
    return replace(start, hard_state=hard_state, entries=[entry], founders=())


def go_on_alone(wal: Wal, start: Start) -> Start:
    """After a disaster (--force-new-cluster): all that is in this log stays, and a configuration of this member
    alone follows; all of it is committed by that. Other than in etcd nothing is given up that this member does
    not know to be committed: how far it knows lags behind what was acknowledged."""
    before = start.hard_state
    last_index, last_term = start.base.index, start.base.term
    if start.entries:
        last_index, last_term = start.entries[-1].index, start.entries[-1].term
    term = max(before.term, last_term)
    conf = membership.initial((start.metadata.member_id,))
    entry = Entry(last_index + 1, term, membership.encode(conf), EntryKind.CONFIG)
    hard_state = HardState(term, before.vote if term == before.term else 0, entry.index)
    _write(wal, hard_state, entry)
    return replace(start, hard_state=hard_state, entries=[*start.entries, entry])


def _write(wal: Wal, hard_state: HardState, entry: Entry) -> None:
    batch = Batch()
    batch.add(hard_state, None, [entry])
    wal.append(batch)


def decode_conf(data: bytes) -> ConfState:
    return membership.decode(data)[0] if data else membership.NOWHERE


def _term_at(base_index: int, base_term: int, entries: list[Entry], index: int) -> int | None:
    if index == base_index:
        return base_term
    at = index - base_index - 1
    return entries[at].term if at < len(entries) else None
