"""Whose turn it is. Pure: no clock, no I/O; `now` is passed in.

Smooth weighted round robin: in every stretch of sum(weights) picks each instance comes up weight times, spread as
evenly as the weights allow; with equal weights this is plain round robin. An instance that refused a connection is
passed over until its rest ends, unless everybody is resting: then they are asked all the same, because a guess that
an instance is dead must never be what turns a request away.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kvstore.readiness.instance import Instance

DEFAULT_REST_S = 1.0


@dataclass(slots=True)
class _Slot:
    instance: Instance
    credit: float = 0.0
    rests_until: float = 0.0


class Balance:
    """Converges on the set it is told; an instance that stays keeps its place in the order."""

    def __init__(self, rest_s: float = DEFAULT_REST_S) -> None:
        self._rest_s = rest_s
        self._slots: dict[str, _Slot] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def reconcile(self, instances: Sequence[Instance]) -> None:
        """A new instance is next in turn. So is one that announced itself again (its `since` or anything else
        differs): it starts afresh."""
        slots: dict[str, _Slot] = {}
        first = max((slot.credit for slot in self._slots.values()), default=0.0)
        for instance in instances:
            known = self._slots.get(instance.id)
            if known is not None and known.instance == instance:
                slots[instance.id] = known
            else:
                slots[instance.id] = _Slot(instance, first + instance.weight if self._slots else 0.0)
        self._slots = slots

    def pick(self, now: float, exclude: Collection[str] = ()) -> Instance | None:
        """The next in turn whose id is not in exclude; None when there is none."""
        able = [
            slot
            for name, slot in self._slots.items()
            if slot.instance.weight > 0 and slot.instance.is_ready and name not in exclude
        ]
        awake = [slot for slot in able if slot.rests_until <= now]
        chosen: _Slot | None = None
        total = 0
        for slot in awake or able:
            total += slot.instance.weight
            slot.credit += slot.instance.weight
            if chosen is None or slot.credit > chosen.credit:
                chosen = slot
        if chosen is None:
            return None
        chosen.credit -= total
        return chosen.instance

    def refused(self, name: str, now: float) -> None:
        """It did not take a connection: passed over for a while."""
        if slot := self._slots.get(name):
            slot.rests_until = now + self._rest_s

    def answered(self, name: str) -> None:
        if slot := self._slots.get(name):
            slot.rests_until = 0.0
