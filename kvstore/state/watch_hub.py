"""Watches: what was written goes to whoever asked for it, in order, once, whole, at whatever speed it reads.

    live     sees everything up to `revision`; a write finds its group and is handed over in the next turn()
    behind   starts in the past, or its sink was full: reads history in slices, one every turn, the first a small one
    parked   behind, and its sink is full: waits for resume(), holds nothing but its next revision

Pure. Nothing is handed to a sink but from turn(), so a sink is never called from watch(), cancel() or resume().
Invariants:
  1. A watcher has been handed every event it asked for below next_revision, and none at or above it.
  2. A revision is handed over whole, in one call.
  3. A live watcher's group holds all its events not handed over yet; a watcher that is not live is in no group
     that collects.
  4. What is kept for a slow watcher does not grow: live events it has no room for are dropped from memory and
     read again from history.
No tick: a watcher that starts in the past, or has room again, asks for a turn at once through `wake`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from kvstore.state.records import FLAGS_AT, KV_AT, key_of, main_of
from kvstore.state.varint import varint
from kvstore.state.watch_index import Group, WatchIndex

SLICE_REVISIONS = 1000
FIRST_SLICE_REVISIONS = 20  # of the first turn after a watcher fell behind: its first events go at once
SLICE_BYTES = 1 << 20
_EVENTS, _KV, _PREV_KV, _DELETE = b"\x5a", b"\x12", b"\x1a", b"\x08\x01"


class Sink(Protocol):
    def ready(self, watcher: Watcher) -> bool:
        """False: it has no room. The hub asks again after resume()."""

    def events(self, watcher: Watcher, revision: int, encoded: bytes, count: int) -> None:
        """Whole revisions up to `revision`, in order: WatchResponse's `events` fields, concatenated."""

    def compacted(self, watcher: Watcher, compact_revision: int) -> None:
        """History it needs is gone; the watcher is cancelled."""


class History(Protocol):
    """The key space (kvstore/state/mvcc.py)."""

    revision: int
    compact_revision: int

    def history(self, revision: int) -> Iterator[bytes]: ...

    def before(self, record: bytes) -> bytes | None: ...


class Watcher:
    __slots__ = (
        "alive",
        "behind",
        "group",
        "key",
        "next_revision",
        "no_delete",
        "no_put",
        "parked",
        "prev_kv",
        "range_end",
        "sink",
    )

    def __init__(
        self,
        key: bytes,
        range_end: bytes,
        next_revision: int,
        *,
        no_put: bool,
        no_delete: bool,
        prev_kv: bool,
        sink: Sink,
    ) -> None:
        self.key = key
        self.range_end = range_end
        self.next_revision = next_revision  # of a live watcher: a lower bound, see WatchHub.next_revision
        self.no_put = no_put
        self.no_delete = no_delete
        self.prev_kv = prev_kv
        self.sink = sink
        self.group: Group | None = None
        self.behind = False
        self.parked = False
        self.alive = True


class WatchHub:
    def __init__(
        self, history: History, *, listening: Callable[[bool], None], wake: Callable[[], None]
    ) -> None:
        """listening(True): written() wants to be told of writes; wake(): turn() has something to do."""
        self._history = history
        self._listening = listening
        self._wake = wake
        self._live = WatchIndex()
        self._touched: dict[Group, None] = {}
        self._behind: dict[Watcher, None] = {}  # not parked; in the order of their turn
        self._behind_index = WatchIndex()
        self._slice_revisions = FIRST_SLICE_REVISIONS
        self.event_count = 0

    # From services

    def watch(
        self,
        key: bytes,
        range_end: bytes,
        start_revision: int,
        *,
        no_put: bool = False,
        no_delete: bool = False,
        prev_kv: bool = False,
        sink: Sink,
    ) -> Watcher:
        """start_revision 0: from the next write on; else inclusive, past or future."""
        now = self._history.revision
        watcher = Watcher(
            key,
            range_end,
            start_revision or now + 1,
            no_put=no_put,
            no_delete=no_delete,
            prev_kv=prev_kv,
            sink=sink,
        )
        if watcher.next_revision > now:
            self._go_live(watcher)
        else:
            self._fall_behind(watcher, watcher.next_revision)
            self._wake()
        return watcher

    def cancel(self, watcher: Watcher) -> None:
        """Its sink hears no more, from this call on."""
        if not watcher.alive:
            return
        watcher.alive = False
        self._leave(watcher)

    def resume(self, watcher: Watcher) -> None:
        """Its sink has room again."""
        if watcher.alive and watcher.parked:
            watcher.parked = False
            self._behind[watcher] = None
            self._wake()

    def synced(self, watcher: Watcher) -> bool:
        """Its sink was handed everything it asked for up to the current revision, which is not before its
        start: only then may a progress notice name that revision (etcd 15220, 20221)."""
        group = watcher.group
        return (
            watcher.alive
            and not watcher.behind
            and watcher.next_revision <= self._history.revision + 1
            and (group is None or not group.pending)
        )

    def next_revision(self, watcher: Watcher) -> int:
        """The lowest revision it has not been handed, whether or not that has events for it."""
        if self.synced(watcher):
            return self._history.revision + 1
        return watcher.next_revision

    @property
    def listening(self) -> bool:
        return self._live.watcher_count > 0

    @property
    def watcher_count(self) -> int:
        return self._live.watcher_count + self._behind_index.watcher_count

    @property
    def pending_count(self) -> int:
        """Events collected since the last turn, once for each watcher that is to have them."""
        return sum(len(group.pending) * len(group.watchers) for group in self._touched)

    @property
    def behind_count(self) -> int:
        return self._behind_index.watcher_count

    # From the machine

    def written(self, revision: int, key: bytes, kv: bytes, prev: bytes | None, deleted: bool) -> None:
        """A version was written; kv and prev are KeyValue bytes. Only called while listening."""
        encoded: dict[bool, bytes] = {}
        for group in self._live.groups_of(key):
            _collect(group, revision, kv, prev if group.prev_kv else None, deleted, encoded)
            if group.pending:
                self._touched[group] = None

    def turn(self) -> bool:
        """Hands over what was written, then some history. True: there is more to hand over at once."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for group in touched:
                self._hand_over(group)
        if self._behind:
            self._slice()
            self._slice_revisions = min(4 * self._slice_revisions, SLICE_REVISIONS)
        return bool(self._behind)

    def replaced(self, history: History, revision_before: int) -> None:
        """The key space was replaced by a later one (a snapshot was installed). Every watcher goes on from
        where it was: from the new history, or it is told that this is compacted. None goes back in time, none
        that starts in the future hears of anything older (etcd 15271, 20221)."""
        self._history = history
        for watcher in list(self._live.watchers()):
            pending = watcher.group.pending if watcher.group is not None else []
            start = max(watcher.next_revision, pending[0][0] if pending else revision_before + 1)
            watcher.next_revision = start
            if start <= history.revision:
                self._leave(watcher)
                self._fall_behind(watcher, start)
        for group in self._touched:
            group.pending.clear()
        self._touched = {}
        if self._behind:
            self._wake()

    # Handing over

    def _hand_over(self, group: Group) -> None:
        """A live group's events, to each of its watchers or, where one has no room, to history."""
        pending, group.pending = group.pending, []
        if not pending:
            return
        last = pending[-1][0]
        for watcher in list(group.watchers):
            if not watcher.alive or watcher.next_revision > last:
                continue
            if watcher.sink.ready(watcher):
                self._deliver(watcher, pending, last)
            else:
                self._leave(watcher)
                self._fall_behind(watcher, max(watcher.next_revision, pending[0][0]))
                self._park(watcher)

    def _deliver(self, watcher: Watcher, events: list[tuple[int, bytes]], last: int) -> None:
        """Those at or above its next revision, in one call; it has then seen everything up to `last`."""
        first = watcher.next_revision
        watcher.next_revision = last + 1
        if first > events[0][0]:
            events = [event for event in events if event[0] >= first]
            if not events:
                return
        self.event_count += len(events)
        encoded = events[0][1] if len(events) == 1 else b"".join([each for _, each in events])
        watcher.sink.events(watcher, events[-1][0], encoded, len(events))

    # History

    def _slice(self) -> None:
        """Reads one stretch of history for the watcher whose turn it is and for all that need the same one."""
        history = self._history
        lead = next(iter(self._behind))
        first, compacted = lead.next_revision, history.compact_revision
        if first < compacted:
            self._refuse(lead, compacted)
            return
        groups, last = self._collect_history(first)
        done = last >= history.revision
        served = [each for each in self._behind if first <= each.next_revision <= last]
        for watcher in served:
            if not watcher.alive:
                continue  # cancelled by a sink called just before
            if not watcher.sink.ready(watcher):
                self._park(watcher)
                continue
            del self._behind[watcher]
            self._behind[watcher] = None  # to the end of the queue
            events = groups.get(watcher.group) if watcher.group is not None else None
            if events:
                self._deliver(watcher, events, last)
            else:
                watcher.next_revision = last + 1
            if done and watcher.alive and watcher.next_revision > history.revision:
                self._leave(watcher)
                self._go_live(watcher)

    def _collect_history(self, first: int) -> tuple[dict[Group, list[tuple[int, bytes]]], int]:
        """The events from `first` on by group, and the last revision read, whole: at most a slice,
        and no new revision once SLICE_BYTES are read."""
        history, index = self._history, self._behind_index
        revision, count, size = first - 1, 0, 0
        touched: dict[Group, None] = {}
        for record in history.history(first):
            main = main_of(record)
            if main != revision:
                if count >= min(self._slice_revisions, SLICE_REVISIONS) or size >= SLICE_BYTES:
                    break
                revision, count = main, count + 1
            size += len(record)
            encoded: dict[bool, bytes] = {}
            kv: bytes | None = None
            for group in index.groups_of(key_of(record)):
                if kv is None:
                    kv = record[KV_AT:]
                prev = history.before(record) if group.prev_kv else None
                _collect(group, main, kv, prev, bool(record[FLAGS_AT]), encoded)
                touched[group] = None
        else:
            revision = history.revision
        found: dict[Group, list[tuple[int, bytes]]] = {}
        for group in touched:
            found[group], group.pending = group.pending, []
        return found, revision

    def _refuse(self, watcher: Watcher, compact_revision: int) -> None:
        if not watcher.sink.ready(watcher):
            self._park(watcher)
            return
        self.cancel(watcher)
        watcher.sink.compacted(watcher, compact_revision)

    # Changing places

    def _go_live(self, watcher: Watcher) -> None:
        watcher.behind = watcher.parked = False
        self._live.add(watcher)
        self._listening(True)

    def _fall_behind(self, watcher: Watcher, next_revision: int) -> None:
        watcher.behind = True
        watcher.next_revision = next_revision
        self._slice_revisions = FIRST_SLICE_REVISIONS
        self._behind_index.add(watcher)
        self._behind[watcher] = None

    def _park(self, watcher: Watcher) -> None:
        watcher.parked = True
        self._behind.pop(watcher, None)

    def _leave(self, watcher: Watcher) -> None:
        if watcher.behind:
            self._behind_index.remove(watcher)
            self._behind.pop(watcher, None)
        else:
            self._live.remove(watcher)
            if not self._live.watcher_count:
                self._listening(False)


def _collect(
    group: Group, revision: int, kv: bytes, prev: bytes | None, deleted: bool, encoded: dict[bool, bytes]
) -> None:
    """Adds the event to the group unless its options say no. `encoded` keeps what was encoded for others."""
    if group.no_delete if deleted else group.no_put:
        return
    with_prev = prev is not None
    event = encoded.get(with_prev)
    if event is None:
        event = encoded[with_prev] = _encode(kv, prev, deleted)
    group.pending.append((revision, event))


def _encode(kv: bytes, prev: bytes | None, deleted: bool) -> bytes:
    """One `events` field of a WatchResponse."""
    parts: Iterable[bytes] = (_DELETE if deleted else b"", _KV, varint(len(kv)), kv)
    if prev is not None:
        parts = (*parts, _PREV_KV, varint(len(prev)), prev)
    event = b"".join(parts)
    return b"".join((_EVENTS, varint(len(event)), event))
