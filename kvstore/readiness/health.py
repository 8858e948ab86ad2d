"""When is an instance ready? Pure: probe results, exits and stop requests come in with the time they happened
at; what changed comes out. No clock, no I/O.

    STARTING --rise successes--> READY --fall failures--> FAILED --rise successes--> READY
        |                          |                        |
        +------- command exited, or a stop was asked for ---+------------> STOPPED (for good)

While starting, probes follow each other closely (5 ms, growing to 100 ms), because the time between "it is
ready" and "we noticed" is the first part of the path from ready to routed. Afterwards they come every interval,
give or take the jitter, so that a hundred announcers that started together do not ask together for ever.

Flapping: every change from ready to failed is a flip. More than `flips` of them within flip_window_s, and the
instance is held FAILED: nobody asks it anything for a while. From then on each flip holds it again, for twice as long,
until it has stayed ready for a whole window.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from random import Random


@dataclass(frozen=True, slots=True)
class Policy:
    """rise, fall: how many results in a row change the verdict. Times in seconds.
    jitter: the share by which interval_s varies, 0 to 1. flips: so many within flip_window_s are borne;
    0: any number."""

    rise: int = 1
    fall: int = 2
    interval_s: float = 0.2
    first_interval_s: float = 0.005
    start_interval_s: float = 0.1
    growth: float = 1.25
    jitter: float = 0.0
    flips: int = 0
    flip_window_s: float = 60.0
    hold_s: float = 5.0
    hold_longest_s: float = 300.0

    def __post_init__(self) -> None:
        if self.rise < 1 or self.fall < 1:
            raise ValueError("rise and fall are at least 1")
        if self.interval_s <= 0 or self.first_interval_s <= 0 or self.growth < 1:
            raise ValueError("intervals are greater than 0, and growth at least 1")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter is from 0 to below 1")
        if self.flips < 0 or self.flip_window_s <= 0 or not 0 < self.hold_s <= self.hold_longest_s:
            raise ValueError(
                "flips is at least 0, its window and its hold greater than 0, and the longest hold no shorter"
            )


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
    """Withdraw it. held_s: it flaps, and is not asked again for so long; 0: as usual."""

    reason: str
    held_s: float = 0.0


Effect = BecameReady | BecameUnready


class Health:
    """The verdict on one instance. Invariant: effects alternate, and the first is BecameReady."""

    def __init__(self, policy: Policy, now: float, random: Random | None = None) -> None:
        """random: for the jitter; without it there is none."""
        self._policy = policy
        self._random = random
        self.phase = Phase.STARTING
        self._since = now
        self._successes = 0
        self._failures = 0
        self._start_interval_s = policy.first_interval_s
        self._next_probe_at: float | None = now
        self._flips: deque[float] = deque()
        self._hold_s = 0.0  # how long it was held last, since it last settled

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
                held_s = self._flipped(now)
                effects.append(self._leave_ready(Phase.FAILED, f"check failed: {reason}", now, held_s))
        elif self._successes >= self._policy.rise:
            effects.append(BecameReady(now - self._since))
            self.phase, self._since = Phase.READY, now
        held_s = effects[0].held_s if effects and isinstance(effects[0], BecameUnready) else 0.0
        self._next_probe_at = now + (held_s or self._pause_s(ok))
        return effects

    def ended(self, reason: str, now: float) -> list[Effect]:
        """The command exited, or a stop was asked for."""
        was_ready = self.phase is Phase.READY
        self._next_probe_at = None
        if was_ready:
            return [self._leave_ready(Phase.STOPPED, reason, now, 0.0)]
        self.phase = Phase.STOPPED
        return []

    def _leave_ready(self, phase: Phase, reason: str, now: float, held_s: float) -> Effect:
        self.phase, self._since, self._successes = phase, now, 0
        return BecameUnready(reason, held_s)

    def _flipped(self, now: float) -> float:
        """It was ready since self._since and is not any more; for how long it is held, 0 where it is not."""
        policy = self._policy
        if policy.flips == 0:
            return 0.0
        if now - self._since >= policy.flip_window_s:  # it had settled
            self._flips.clear()
            self._hold_s = 0.0
        while self._flips and now - self._flips[0] >= policy.flip_window_s:
            self._flips.popleft()
        self._flips.append(now)
        if not self._hold_s and len(self._flips) <= policy.flips:
            return 0.0
        self._hold_s = min(self._hold_s * 2, policy.hold_longest_s) if self._hold_s else policy.hold_s
        return self._hold_s

    def _pause_s(self, ok: bool) -> float:
        policy = self._policy
        if self.phase is not Phase.STARTING:
            spread = policy.jitter * self._random.uniform(-1, 1) if self._random is not None else 0.0
            return policy.interval_s * (1 + spread)
        if ok:
            return policy.first_interval_s  # part of the way to `rise`: no reason to wait
        pause_s = self._start_interval_s
        longest_s = max(policy.first_interval_s, policy.start_interval_s)
        self._start_interval_s = min(pause_s * policy.growth, longest_s)
        return pause_s
