"""This member's own writes between "a client asked" and "applied here": batching, numbering, sending again.

Pure: `now` in seconds is passed in. Invariants:
  1. A write is in exactly one batch, and a batch is answered exactly once: applied, failed or timed out.
  2. Sequences only grow. State applies a batch only above the last sequence it applied from this origin
     (kvstore/commands.py), so sending a batch again never applies it twice.
  3. Once sequence s' of ours was applied here, from the log, a pending s < s' can never apply: it is renumbered
     and sent as new. A snapshot that holds s' says nothing of s: both are answered as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kvstore import errors
from kvstore.commands import BATCH, COMMAND_SIZE, encode_batch

Outcome = tuple[int, bytes] | errors.StoreError
Done = Callable[[Outcome], None]


@dataclass(slots=True)
class Pending:
    """One batch on its way. deadline in seconds; sent: it left this member's hands at least once, so that
    giving up on it leaves its outcome unknown."""

    sequence: int
    data: bytes
    waiters: list[Done]
    deadline: float
    sent: bool = False
    sent_at: float = 0.0


class Outbox:
    def __init__(
        self,
        *,
        origin: int,
        incarnation: int,
        timeout_s: float,
        batch_bytes_max: int = 1 << 20,
        commands_max: int = 100_000,
        bytes_max: int = 256 << 20,
    ) -> None:
        self.origin = origin
        self.incarnation = incarnation
        self._timeout_s = timeout_s
        self._batch_bytes_max = batch_bytes_max
        self._commands_max = commands_max
        self._bytes_max = bytes_max
        self._next_sequence = 1
        self._commands: list[tuple[int, bytes]] = []
        self._waiters: list[Done] = []
        self._bytes = 0
        self._pending: dict[int, Pending] = {}  # by sequence, in ascending order
        self.commands_pending = 0
        self.bytes_pending = 0

    def add(self, kind: int, payload: bytes, done: Done) -> None:
        """Takes one write into the batch of this turn. Raises TooManyRequests above the bounds."""
        if self.commands_pending >= self._commands_max or self.bytes_pending >= self._bytes_max:
            raise errors.TooManyRequests
        size = len(payload) + COMMAND_SIZE
        self._commands.append((kind, payload))
        self._waiters.append(done)
        self._bytes += size
        self.commands_pending += 1
        self.bytes_pending += size

    @property
    def is_filling(self) -> bool:
        """Something was added since the last batch was sealed."""
        return bool(self._commands)

    def seal(self, now: float) -> list[Pending]:
        """Ends the turn's batch: encodes it, split where it passes batch_bytes_max, and numbers it."""
        if not self._commands:
            return []
        commands, waiters, size = self._commands, self._waiters, self._bytes
        self._commands, self._waiters, self._bytes = [], [], 0
        if size <= self._batch_bytes_max:
            return [self._pend(commands, waiters, now)]
        sealed, start, size = [], 0, 0
        for at, (_, payload) in enumerate(commands):
            if size and size + len(payload) > self._batch_bytes_max:
                sealed.append(self._pend(commands[start:at], waiters[start:at], now))
                start, size = at, 0
            size += len(payload) + COMMAND_SIZE
        sealed.append(self._pend(commands[start:], waiters[start:], now))
        return sealed

    def _pend(self, commands: list[tuple[int, bytes]], waiters: list[Done], now: float) -> Pending:
        sequence = self._next_sequence
        self._next_sequence += 1
        data = encode_batch(commands, origin=self.origin, incarnation=self.incarnation, sequence=sequence)
        pending = self._pending[sequence] = Pending(sequence, data, waiters, now + self._timeout_s)
        return pending

    def applied(self, sequence: int) -> tuple[Pending | None, list[Pending]]:
        """The batch whose sequence was just applied, and those it overtook, renumbered and unsent."""
        pending = self._take(sequence)
        overtaken: list[Pending] = []
        while self._pending:
            first = next(iter(self._pending))
            if first >= sequence:
                break
            overtaken.append(self._pending.pop(first))
        for each in overtaken:
            each.sequence = self._next_sequence
            self._next_sequence += 1
            count = len(each.waiters)
            header = BATCH.pack(self.origin, self.incarnation, each.sequence, count)
            each.data = header + each.data[BATCH.size :]
            each.sent = False
            self._pending[each.sequence] = each
        return pending, overtaken

    def settled_to(self, sequence: int) -> list[Pending]:
        """Takes out every batch up to a sequence that a snapshot's state has applied: each was applied before it
        or was overtaken, and nothing here can tell which."""
        settled = [each for each in self._pending.values() if each.sequence <= sequence]
        for each in settled:
            self._take(each.sequence)
        return settled

    def _take(self, sequence: int) -> Pending | None:
        pending = self._pending.pop(sequence, None)
        if pending is not None:
            self.commands_pending -= len(pending.waiters)
            self.bytes_pending -= len(pending.data) - BATCH.size
        return pending

    def pending(self) -> Iterator[Pending]:
        """Every batch not yet applied, oldest first."""
        return iter(list(self._pending.values()))

    def overdue(self, now: float) -> list[Pending]:
        """Takes out every batch whose deadline has passed. Oldest deadlines need not come first after a
        renumbering, so all are looked at; there are few batches, and this runs once a tick."""
        late = [each for each in self._pending.values() if each.deadline <= now]
        for each in late:
            self._take(each.sequence)
        return late

    def close(self) -> list[Pending]:
        """Takes out everything, the unsealed batch included (as never sent)."""
        rest = self.seal(0.0)
        for each in rest:
            each.sent = False
        left = list(self._pending.values())
        self._pending.clear()
        self.commands_pending = self.bytes_pending = 0
        return left
