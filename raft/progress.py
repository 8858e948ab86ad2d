"""What the leader knows of one follower, and how it sends to it.

    PROBE      next is a guess: one message at a time until an answer confirms it
    REPLICATE  match is close behind next: entries are sent ahead of their acknowledgement, within a window
    SNAPSHOT   the follower needs what the log no longer holds: nothing is sent until the snapshot is through

Invariant: match < next. match only grows within a term of leadership, whatever order replies come in.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from raft.types import Index


class ProgressState(IntEnum):
    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Progress:
    __slots__ = (
        "_window",
        "commit_sent",
        "inflight_bytes",
        "match",
        "needs_nudge",
        "next",
        "pending_snapshot",
        "probe_sent",
        "recent_active",
        "state",
    )

    def __init__(self, next_index: Index) -> None:
        self.match: Index = 0
        self.next: Index = next_index
        self.state = ProgressState.PROBE
        self.probe_sent = False
        self.recent_active = False
        self.pending_snapshot: Index = 0
        self.commit_sent: Index = 0
        self.needs_nudge = False  # it answers heartbeats and still lacks entries: something may be lost
        self._window: deque[tuple[Index, int]] = deque()  # (last index, bytes) of each message under way
        self.inflight_bytes = 0

    def is_paused(self, *, messages_max: int, bytes_max: int) -> bool:
        if self.state == ProgressState.PROBE:
            return self.probe_sent
        if self.state == ProgressState.SNAPSHOT:
            return True
        return len(self._window) >= messages_max or self.inflight_bytes >= bytes_max

    def sent(self, last: Index, size_bytes: int) -> None:
        """An AppendEntries ending at last is on its way."""
        if self.state == ProgressState.REPLICATE:
            self.next = last + 1
            self._window.append((last, size_bytes))
            self.inflight_bytes += size_bytes
        else:
            self.probe_sent = True

    def accepted(self, index: Index) -> bool:
        """The follower holds everything up to index. True where that was news."""
        self.next = max(self.next, index + 1)
        window = self._window
        while window and window[0][0] <= index:
            self.inflight_bytes -= window.popleft()[1]
        if index <= self.match:
            return False
        self.match = index
        return True

    def rejected(self, index: Index, retry_after: Index) -> bool:
        """The follower has no match at index; try after retry_after. False where the reply is stale."""
        if self.state == ProgressState.REPLICATE:
            if index <= self.match:
                return False
            self.become_probe()
            return True
        if self.state == ProgressState.SNAPSHOT or index != self.next - 1:
            return False
        self.next = max(min(index, retry_after + 1), self.match + 1)
        self.probe_sent = False
        return True

    def become_probe(self) -> None:
        if self.state == ProgressState.SNAPSHOT:
            self.next = max(self.match + 1, self.pending_snapshot + 1)
        else:
            self.next = self.match + 1
        self._enter(ProgressState.PROBE)

    def become_replicate(self) -> None:
        self.next = self.match + 1
        self._enter(ProgressState.REPLICATE)

    def become_snapshot(self, index: Index) -> None:
        self._enter(ProgressState.SNAPSHOT)
        self.pending_snapshot = index

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.probe_sent = False
        self.pending_snapshot = 0
        self._window.clear()
        self.inflight_bytes = 0
