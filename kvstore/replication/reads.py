"""Linearizable reads waiting for a read index: every read of one turn shares one round (Raft thesis 6.4).

Pure: `now` in seconds is passed in. A read that asks while a round is under way must wait for the next one: the
round's index may be older than a write acknowledged since. A round whose context died (leader change, lost
message) is started again under a new context, because a read has no effect; a context is never used twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kvstore import errors

ReadDone = Callable[[errors.StoreError | None], None]


@dataclass(slots=True)
class Round:
    context: int
    waiters: list[tuple[float, ReadDone]]
    started: float
    index: int | None = None


@dataclass(slots=True)
class ReadRounds:
    timeout_s: float
    retry_s: float
    _next_context: int
    retries: int = 0  # rounds that had to be started again
    timeouts: int = 0  # reads that were given up
    _joining: list[tuple[float, ReadDone]] = field(default_factory=list)
    _asking: dict[int, Round] = field(default_factory=dict)
    _answered: list[Round] = field(default_factory=list)

    def add(self, done: ReadDone, now: float) -> None:
        """done(None) once local state holds every write acknowledged before now; done(error) on timeout."""
        self._joining.append((now + self.timeout_s, done))

    @property
    def is_joined(self) -> bool:
        """Somebody waits for a round to be started."""
        return bool(self._joining)

    def start(self, now: float) -> int | None:
        """The context of a new round for the reads that joined, or None where none did."""
        if not self._joining:
            return None
        self._next_context += 1
        waiters, self._joining = self._joining, []
        self._asking[self._next_context] = Round(self._next_context, waiters, now)
        return self._next_context

    def answered(self, context: int, index: int) -> None:
        round_ = self._asking.pop(context, None)
        if round_ is not None:
            round_.index = index
            self._answered.append(round_)

    def failed(self, context: int) -> bool:
        """The reads of a dead round join the next. True where there were any."""
        round_ = self._asking.pop(context, None)
        if round_ is None:
            return False
        self._joining = round_.waiters + self._joining
        self.retries += 1
        return True

    def ready(self, applied: int) -> list[ReadDone]:
        """Takes out the reads whose index state has reached."""
        if not self._answered:
            return []
        ready: list[ReadDone] = []
        waiting: list[Round] = []
        for round_ in self._answered:
            assert round_.index is not None, f"answered round {round_.context} has no index"
            if round_.index <= applied:
                ready += [done for _, done in round_.waiters]
            else:
                waiting.append(round_)
        self._answered = waiting
        return ready

    def overdue(self, now: float) -> list[ReadDone]:
        """Takes out the reads whose deadline has passed, and returns the stale rounds to the joining list."""
        for context in [c for c, r in self._asking.items() if r.started + self.retry_s <= now]:
            self.failed(context)
        late: list[ReadDone] = []
        self._joining, gone = _split(self._joining, now)
        late += gone
        for round_ in [*self._asking.values(), *self._answered]:
            round_.waiters, gone = _split(round_.waiters, now)
            late += gone
        self.timeouts += len(late)
        return late

    def close(self) -> list[ReadDone]:
        rounds = [*self._asking.values(), *self._answered]
        left = [done for _, done in self._joining] + [d for r in rounds for _, d in r.waiters]
        self._joining, self._answered = [], []
        self._asking.clear()
        return left


def _split(
    waiters: list[tuple[float, ReadDone]], now: float
) -> tuple[list[tuple[float, ReadDone]], list[ReadDone]]:
    return [w for w in waiters if w[0] > now], [done for deadline, done in waiters if deadline <= now]
