"""When is an instance ready? Pure: probe results, exits and stop requests come in with the time they happened
at; what changed comes out. No clock, no I/O.

    STARTING --rise successes--> READY --fall failures--> FAILED --rise successes--> READY
        |                          |                        |
        +------- command exited, or a stop was asked for ---+------------> STOPPED (for good)

While starting, probes follow each other closely (5 ms, growing to 100 ms), because the time between "it is
ready" and "we noticed" is the first part of the path from ready to routed. Afterwards they come every interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Policy:
    """rise, fall: how many results in a row change the verdict. Times in seconds."""

    rise: int = 1
    fall: int = 2
    interval_s: float = 0.2
    first_interval_s: float = 0.005
    start_interval_s: float = 0.1
    growth: float = 1.25

    def __post_init__(self) -> None:
        if self.rise < 1 or self.fall < 1:
            raise ValueError("rise and fall are at least 1")
        if self.interval_s <= 0 or self.first_interval_s <= 0 or self.growth < 1:
            raise ValueError("intervals are greater than 0, and growth at least 1")


class Phase(Enum):
    STARTING = auto()
    READY = auto()
    FAILED = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class BecameReady:
    """Announce it. after_s: since the health check began, or since it was last ready."""

    after_s: float


@dataclass(frozen=True, slots=True)
class BecameUnready:
    """Withdraw it."""

    reason: str


Effect = BecameReady | BecameUnready


class Health:
    """The verdict on one instance. Invariant: effects alternate, and the first is BecameReady."""

    def __init__(self, policy: Policy, now: float) -> None:
        self._policy = policy
        self.phase = Phase.STARTING
        self._since = now
        self._successes = 0
        self._failures = 0
        self._start_interval_s = policy.first_interval_s
        self._next_probe_at: float | None = now

    @property
    def next_probe_at(self) -> float | None:
        """When the next probe is due; None when none is wanted any more."""
        return self._next_probe_at

    def probed(self, ok: bool, now: float, reason: str = "") -> list[Effect]:
        """The result of the probe that was due, at the time it was known."""
        if self.phase is Phase.STOPPED:
            return []
        self._successes = self._successes + 1 if ok else 0
        self._failures = 0 if ok else self._failures + 1
        effects: list[Effect] = []
        if self.phase is Phase.READY:
            if self._failures >= self._policy.fall:
                effects.append(self._leave_ready(Phase.FAILED, f"check failed: {reason}", now))
        elif self._successes >= self._policy.rise:
            effects.append(BecameReady(now - self._since))
            self.phase, self._since = Phase.READY, now
        self._next_probe_at = now + self._pause_s(ok)
        return effects

    def ended(self, reason: str, now: float) -> list[Effect]:
        """The command exited, or a stop was asked for."""
        was_ready = self.phase is Phase.READY
        self._next_probe_at = None
        if was_ready:
            return [self._leave_ready(Phase.STOPPED, reason, now)]
        self.phase = Phase.STOPPED
        return []

    def _leave_ready(self, phase: Phase, reason: str, now: float) -> Effect:
        self.phase, self._since, self._successes = phase, now, 0
        return BecameUnready(reason)

    def _pause_s(self, ok: bool) -> float:
        policy = self._policy
        if self.phase is not Phase.STARTING:
            return policy.interval_s
        if ok:
            return policy.first_interval_s  # part of the way to `rise`: no reason to wait
        pause_s = self._start_interval_s
        longest_s = max(policy.first_interval_s, policy.start_interval_s)
        self._start_interval_s = min(pause_s * policy.growth, longest_s)
        return pause_s
