"""Whose turn it is. Pure: no clock, no I/O; `now` is passed in.

round-robin     smooth and weighted: in every stretch of sum(weights) picks each instance comes up weight times,
                spread as evenly as the weights allow; with equal weights it is plain round robin.
least-requests  the fewest requests in flight for its weight; among equals it is as above.

Who is asked at all, each step only where the one before leaves somebody:

1. ready, with a weight
2. not ejected (ejection.py). When everybody is, everybody is asked all the same: a guess that an instance is dead
   must never be what turns a request away.
3. in the preferred zone, while those there weigh at least ZONE_SHARE of what a zone weighs on average. Below that
   the few left would be asked to carry what was meant for many, and all zones are asked.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kvstore.readiness.instance import Instance
from kvstore.routing.ejection import Ejections, Policy

ZONE_SHARE = 0.5


class Order(StrEnum):
    ROUND_ROBIN = "round-robin"
    LEAST_REQUESTS = "least-requests"


@dataclass(slots=True)
class Candidate:
    """in_flight_count is for whoever sends requests to keep."""

    instance: Instance
    credit: float = 0.0
    in_flight_count: int = 0


class Balance:
    """Converges on the set it is told; an instance that stays keeps its place in the order."""

    def __init__(
        self, policy: Policy | None = None, *, order: Order = Order.ROUND_ROBIN, zone: str = ""
    ) -> None:
        self._ejections = Ejections(policy or Policy())
        self._order = order
        self._zone = zone
        self._candidates: dict[str, Candidate] = {}
        # Worked out when something has changed, not at every pick; _pool_until: when it changes by itself.
        self._able: list[Candidate] = []
        self._awake: list[Candidate] = []
        self._pool: list[Candidate] = []
        self._pool_until = -math.inf

    def __len__(self) -> int:
        return len(self._candidates)

    def candidates(self) -> list[Candidate]:
        return list(self._candidates.values())

    def reconcile(self, instances: Sequence[Instance]) -> None:
        """A new instance is next in turn. So is one that announced itself again (its `since` or anything else
        differs): it starts afresh, but for the requests it still has."""
        before, self._candidates = self._candidates, {}
        first = max((one.credit for one in before.values()), default=0.0)
        for instance in instances:
            known = before.get(instance.id)
            if known is None or known.instance.address != instance.address:
                known = Candidate(instance, first + instance.weight if before else 0.0)
                self._ejections.forget(instance.id)
            elif known.instance != instance:
                known.instance, known.credit = instance, first + instance.weight
                self._ejections.forget(instance.id)
            self._candidates[instance.id] = known
        self._ejections.keep(self._candidates)
        self._pool_until = -math.inf

    def is_empty(self, now: float) -> bool:
        """pick() would find nobody."""
        if now >= self._pool_until:
            self._fill(now)
        return not self._pool

    def pick(self, now: float, exclude: Collection[str] = ()) -> Candidate | None:
        """The next in turn whose id is not in exclude; None when there is none."""
        if now >= self._pool_until:
            self._fill(now)
        pool = self._pool
        if exclude:
            for wider in (self._pool, self._awake, self._able):
                pool = [one for one in wider if one.instance.id not in exclude]
                if pool:
                    break
        if not pool:
            return None
        if self._order is Order.LEAST_REQUESTS:
            pool = _least_loaded(pool)
        return _next_in_turn(pool)

    def failed(self, name: str, now: float, *, is_connected: bool) -> float | None:
        """A request failed there. For how many seconds it is passed over now; None when it is not, or was."""
        if name not in self._candidates:
            return None
        seconds = self._ejections.failed(name, now, is_connected=is_connected)
        if seconds is not None:
            self._pool_until = -math.inf
        return seconds

    def answered(self, name: str, sent_at: float, now: float) -> None:
        if self._ejections.answered(name, sent_at, now):
            self._pool_until = -math.inf

    def ejected_for(self, name: str, now: float) -> float:
        """Seconds; 0: it is not."""
        return max(0.0, self._ejections.until(name) - now)

    def _fill(self, now: float) -> None:
        self._able = [
            one for one in self._candidates.values() if one.instance.weight and one.instance.is_ready
        ]
        ends = [self._ejections.until(one.instance.id) for one in self._able]
        self._awake = [one for one, end in zip(self._able, ends) if end <= now] or self._able
        self._pool = _in_zone(self._awake, self._zone)
        self._pool_until = min((end for end in ends if end > now), default=math.inf)


def _in_zone(awake: list[Candidate], zone: str) -> list[Candidate]:
    if not zone:
        return awake
    local = [one for one in awake if one.instance.zone == zone]
    zone_count = len({one.instance.zone for one in awake})
    local_weight = sum(one.instance.weight for one in local)
    weight = sum(one.instance.weight for one in awake)
    return local if local and local_weight * zone_count >= ZONE_SHARE * weight else awake


def _least_loaded(pool: list[Candidate]) -> list[Candidate]:
    loads = [one.in_flight_count / one.instance.weight for one in pool]
    least = min(loads)
    return [one for one, load in zip(pool, loads) if load == least]


def _next_in_turn(pool: list[Candidate]) -> Candidate:
    """Each gets its weight in credit; the richest is chosen, and pays for all. Credit summed over the pool stays
    the same, and nobody's runs away: whoever is chosen had at least the average."""
    chosen = pool[0]
    total = 0
    for one in pool:
        weight = one.instance.weight
        total += weight
        one.credit += weight
        if one.credit > chosen.credit:
            chosen = one
    chosen.credit -= total
    return chosen
