"""How many schedules it takes to find a seeded bug."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.patches import Mutant, mutated
from tests.simulation.cluster import run_schedule

EVENTS = 1000


@dataclass(frozen=True)
class Killed:
    """seeds: schedules until one broke a check, from seed 1. by: what the check said."""

    seeds: int
    by: str


def seeds_to_kill(mutant: Mutant, seeds_max: int) -> Killed | None:
    with mutated(mutant):
        for seed in range(1, seeds_max + 1):
            violation = run_schedule(seed, events=EVENTS).violation
            if violation:
                return Killed(seed, violation)
    return None
