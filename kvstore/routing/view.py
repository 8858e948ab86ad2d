"""Who is ready, from a list and the events after it. Pure: no clock, no I/O; `now` is passed in.

Emptiness threshold. When two or more ready instances vanish in one step and none is left, that is rarely the truth:
a store restored from nothing, a lease server that lost its clock, somebody's `del --prefix`. The set is then kept for
keep_s seconds (fail static), one by one: an instance that announces itself again takes its own place, and what has
not come back when the time is over is dropped. A step is one watch batch, or one list taken after the watch could
not be resumed. Not kept, because it is the everyday case: the last instance going alone, and instances that went
one step after another. An instance that says it is not ready any more (draining, failed) has not vanished.

An unreachable store is not a step at all: nobody calls, and the view stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kvstore.readiness.instance import Instance, State
from kvstore.readiness.roster import Item, Roster

DEFAULT_KEEP_S = 10.0
THRESHOLD = 2


@dataclass(slots=True)
class View:
    """revision: everything up to and including it has been seen; 0 before the first list.

    Invariant: kept and roster share no key. ready() is the roster's that are ready, and the kept ones.
    """

    keep_s: float = DEFAULT_KEEP_S
    revision: int = 0
    _roster: Roster = field(default_factory=Roster)
    _kept: dict[bytes, Instance] = field(default_factory=dict)
    _kept_until: float = 0.0

    def ready(self) -> list[Instance]:
        """Ordered by id, so that two routers with the same view agree on the order too."""
        found = [instance for _, instance in self._roster if instance.is_ready]
        return sorted([*found, *self._kept.values()], key=lambda instance: instance.id)

    def serving(self) -> list[Instance]:
        """ready(), and those that are draining: they get nothing new, and finish what they have. By id."""
        draining = [instance for _, instance in self._roster if instance.state is State.DRAINING]
        return sorted([*self.ready(), *draining], key=lambda instance: instance.id)

    @property
    def refused(self) -> dict[bytes, str]:
        """What could not be read, with the reason, for the log."""
        return self._roster.refused

    @property
    def kept_count(self) -> int:
        """How many of ready() are there only because of the emptiness threshold."""
        return len(self._kept)

    @property
    def next_deadline(self) -> float | None:
        """When expire() has something to do; None when it never has."""
        return self._kept_until if self._kept else None

    def load(self, items: Iterable[Item], revision: int, now: float) -> None:
        """The whole content of the service as of revision: replaces what was known."""
        before = self._ready_by_key()
        listed = list(items)
        self._roster.replace(listed)
        self._keep_vanished(before, listed, now)
        self.revision = revision

    def apply(self, items: Iterable[Item], revision: int, now: float) -> None:
        """The changes up to revision, oldest first. A batch that was applied before changes nothing."""
        if revision <= self.revision:
            return
        before = self._ready_by_key()
        changes = list(items)
        self._roster.take(changes)
        self._keep_vanished(before, changes, now)
        self.revision = revision

    def expire(self, now: float) -> None:
        """Drops what was kept when its time is over."""
        if self._kept and now >= self._kept_until:
            self._kept.clear()

    def _ready_by_key(self) -> dict[bytes, Instance]:
        return {key: instance for key, instance in self._roster if instance.is_ready}

    def _keep_vanished(self, before: dict[bytes, Instance], step: Iterable[Item], now: float) -> None:
        """before: who was ready before this step. Whoever the step heard of again is not kept any more."""
        for item in step:
            if item.value is not None:
                self._kept.pop(item.key, None)
        roster = self._roster
        vanished = {key: instance for key, instance in before.items() if key not in roster}
        is_empty = not any(instance.is_ready for _, instance in roster)
        if is_empty and len(vanished) >= THRESHOLD and self.keep_s > 0:
            self._kept.update(vanished)
            self._kept_until = now + self.keep_s
