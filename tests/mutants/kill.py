"""How many schedules it takes to find a seeded bug."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.mutants.patches import Mutant, mutated
from tests.simulation import cluster
from tests.whole_member import schedule

EVENTS = 1000


@dataclass(frozen=True)
class Killed:
    """seeds: schedules until one broke a check, from seed 1. by: what the check said."""

    seeds: int
    by: str


def violation_of_cores(seed: int) -> str:
    return cluster.run_schedule(seed, events=EVENTS).violation


def violation_of_members(seed: int) -> str:
    return schedule.run_schedule(seed).violation


def seeds_to_kill(mutant: Mutant, seeds_max: int, violation_of: Callable[[int], str]) -> Killed | None:
    """violation_of: runs the schedule of a seed and says what it found."""
    with mutated(mutant):
        for seed in range(1, seeds_max + 1):
            violation = violation_of(seed)
            if violation:
                return Killed(seed, violation)
    return None
