"""Every seeded bug is found, within a bounded number of schedules; the code without one is not accused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.cluster import run_schedule
from tests.simulation.mutants import MUTANTS, Patches, mutated

SEEDS_MAX = 2500
EVENTS = 1000


def seeds_to_kill(mutant: Callable[[], Patches], seeds_max: int = SEEDS_MAX) -> int | None:
    """How many schedules it takes until one breaks an invariant, from seed 1; None where none does."""
    with mutated(mutant):
        for seed in range(1, seeds_max + 1):
            if run_schedule(seed, events=EVENTS).violation:
                return seed
    return None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_bug_is_found(mutant: Callable[[], Patches]) -> None:
    assert seeds_to_kill(mutant) is not None, f"{mutant.__name__} survives {SEEDS_MAX} schedules"


def test_without_a_bug_nothing_is_found() -> None:
    assert [seed for seed in range(1, 101) if run_schedule(seed, events=EVENTS).violation] == []
