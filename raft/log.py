"""The log of one node: what follows its snapshot, and how far it is committed, applied and on disk.

    base ≤ applied ≤ committed ≤ last            base ≤ durable ≤ handed ≤ last

base is the snapshot's index. handed: given to the driver to write. durable: the driver said it is written.
committed may run ahead of durable here: it rests on a majority's disks, of which this one need not be one.
configs: the configuration in force at the log's beginning, or later, and every one that came since; the last of
them is in force now.
Invariants: indices are contiguous; terms never fall; nothing at or below committed is ever truncated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raft import membership
from raft.types import ConfState, Entry, EntryID, EntryKind, Index, Term


class RaftLog:
    __slots__ = (
        "_entries",
        "applied",
        "base",
        "base_term",
        "committed",
        "configs",
        "durable",
        "handed",
        "taken",
    )

    def __init__(
        self,
        *,
        base: Index,
        base_term: Term,
        entries: Sequence[Entry],
        committed: Index,
        conf: ConfState,
        conf_index: Index,
    ) -> None:
        """conf: the configuration as of conf_index, which is not below base; CONFIG entries after it count."""
        self.base = base
        self.base_term = base_term
        self._entries = list(entries)
        for offset, entry in enumerate(self._entries):
            assert entry.index == base + 1 + offset, f"entry {entry} is not at {base + 1 + offset}"
        assert base <= committed <= self.last_index, f"{base} ≤ {committed} ≤ {self.last_index} is broken"
        self.committed = committed
        self.configs: list[tuple[Index, ConfState]] = [(conf_index, conf)]
        self._note_configs(entry for entry in self._entries if entry.index > conf_index)
        self.applied = base
        self.taken = base  # committed entries given to the driver to apply
        self.handed = self.last_index
        self.durable = self.last_index

    @property
    def conf(self) -> ConfState:
        """The configuration in force: the newest in the log, committed or not (thesis 4.1)."""
        return self.configs[-1][1]

    @property
    def conf_index(self) -> Index:
        """Where conf was appended."""
        return self.configs[-1][0]

    def conf_at(self, index: Index) -> ConfState:
        """The configuration as of index, which must not be below what the log began with."""
        found = next((conf for at, conf in reversed(self.configs) if at <= index), None)
        assert found is not None, f"no configuration as of {index}: they begin at {self.configs[0][0]}"
        return found

    def _note_configs(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.kind == EntryKind.CONFIG:
                self.configs.append((entry.index, membership.decode(entry.data)[0]))

    @property
    def first_index(self) -> Index:
        return self.base + 1

    @property
    def last_index(self) -> Index:
        return self.base + len(self._entries)

    @property
    def last_term(self) -> Term:
        return self._entries[-1].term if self._entries else self.base_term

    def last_id(self) -> EntryID:
        return EntryID(self.last_term, self.last_index)

    def term(self, index: Index) -> Term | None:
        """The term at index, or None where it is compacted away or not there yet."""
        offset = index - self.base - 1
        if 0 <= offset < len(self._entries):
            return self._entries[offset].term
        return self.base_term if index == self.base else None

    def entry(self, index: Index) -> Entry:
        assert self.base < index <= self.last_index, f"no entry {index} in {self.base}..{self.last_index}"
        return self._entries[index - self.base - 1]

    def slice(self, first: Index, last: Index, *, bytes_max: int) -> list[Entry]:
        """Entries first..last (both included), cut after bytes_max but never empty where there is one."""
        assert first > self.base, f"{first} is compacted: the log begins after {self.base}"
        entries = self._entries[first - self.base - 1 : last - self.base]
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.data)
            if size > bytes_max and count:
                return entries[:count]
        return entries

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether a log ending so is at least as complete as this one (thesis 3.6.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds entries at the end; a configuration among them is in force at once."""
        self._entries.extend(entries)
        self._note_configs(entries)

    def try_append(self, prev_index: Index, prev_term: Term, entries: Sequence[Entry]) -> Index | None:
        """Takes a leader's entries after prev; returns the last index now known equal to the leader's, or
        None where prev does not match. Entries already here are kept: a late, shorter message erases nothing."""
        if self.term(prev_index) != prev_term:
            return None
        last_new = prev_index + len(entries)
        for offset, entry in enumerate(entries):
            if entry.index > self.last_index:
                self.append(entries[offset:])
                break
            if entry.index > self.base and self.term(entry.index) != entry.term:
                self._truncate_to(entry.index - 1)
                self.append(entries[offset:])
                break
        return last_new

    def _truncate_to(self, index: Index) -> None:
        assert index >= self.committed, f"truncating to {index} would lose committed {self.committed}"
        del self._entries[index - self.base :]
        while self.configs[-1][0] > index:
            self.configs.pop()
        self.handed = min(self.handed, index)
        self.durable = min(self.durable, index)

    def conflict_hint(self, index: Index, term: Term) -> tuple[Index, Term]:
        """The highest index at most `index` whose term here is at most `term`: above it the logs cannot agree,
        so one reply skips a whole run of conflicting terms."""
        index = min(index, self.last_index)
        if index < self.base:
            return index, 0
        while index > self.base:
            here = self._entries[index - self.base - 1].term
            if here <= term:
                return index, here
            index -= 1
        return self.base, self.base_term

    def commit_to(self, index: Index) -> bool:
        """Moves committed forward, never back. The caller has checked that index is in the log."""
        if index <= self.committed:
            return False
        assert index <= self.last_index, f"commit {index} is beyond the last entry {self.last_index}"
        self.committed = index
        return True

    # What the driver is given, and says back

    def next_unwritten(self) -> list[Entry]:
        """Entries not yet handed out to be written; counts them as handed."""
        entries = self._entries[self.handed - self.base :]
        self.handed = self.last_index
        return entries

    def next_committed(self, *, bytes_max: int) -> list[Entry]:
        """Committed entries not yet given out to be applied; counts them as given."""
        if self.taken >= self.committed:
            return []
        entries = self.slice(self.taken + 1, self.committed, bytes_max=bytes_max)
        self.taken = entries[-1].index
        return entries

    def written(self, last: EntryID) -> bool:
        """The driver wrote up to `last`. False where that entry has been overwritten since: then the write
        says nothing about what stands there now (the ABA case)."""
        if self.term(last.index) != last.term or last.index <= self.base:
            return False
        if last.index > self.durable:
            self.durable = last.index
        return True

    def applied_to(self, index: Index) -> None:
        assert index <= self.taken, f"applied {index} is beyond what was given out, {self.taken}"
        self.applied = max(self.applied, index)

    def compact(self, index: Index) -> None:
        """Drops everything up to and including index, which becomes the base."""
        assert index <= self.applied, f"compacting to {index} beyond applied {self.applied}"
        if index <= self.base:
            return
        term = self.term(index)
        assert term is not None, f"no entry {index} to compact to"
        del self._entries[: index - self.base]
        while len(self.configs) > 1 and self.configs[1][0] <= index:
            del self.configs[0]
        self.base, self.base_term = index, term
        self.handed = max(self.handed, index)
        self.durable = max(self.durable, index)

    def restore(self, index: Index, term: Term, conf: ConfState) -> None:
        """Begins anew after a received snapshot: nothing of the old log is kept (ScyllaDB 9551)."""
        assert index > self.committed, f"a snapshot at {index} is behind committed {self.committed}"
        self._entries.clear()
        self.configs = [(index, conf)]
        self.base, self.base_term = index, term
        self.committed = self.applied = self.taken = self.handed = self.durable = index
