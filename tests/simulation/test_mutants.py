"""Seeded bugs are found, within a bounded number of schedules; the code without one is not accused.

python -m tests.simulation.test_mutants tries all of them and prints how many schedules each took.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import pytest

from tests.simulation.cluster import run_schedule
from tests.simulation.mutants import QUICK, SLOW, SURVIVING, Patches, mutated

SEEDS_MAX = 600
EVENTS = 1000


def seeds_to_kill(mutant: Callable[[], Patches], seeds_max: int = SEEDS_MAX) -> int | None:
    """How many schedules it takes until one breaks an invariant, from seed 1; None where none does."""
    with mutated(mutant):
        for seed in range(1, seeds_max + 1):
            if run_schedule(seed, events=EVENTS).violation:
                return seed
    return None


@pytest.mark.parametrize("mutant", QUICK, ids=lambda mutant: str(mutant.__name__))
def test_the_bug_is_found(mutant: Callable[[], Patches]) -> None:
    assert seeds_to_kill(mutant) is not None, f"{mutant.__name__} survives {SEEDS_MAX} schedules"


def test_without_a_bug_nothing_is_found() -> None:
    assert [seed for seed in range(1, 101) if run_schedule(seed, events=EVENTS).violation] == []


def _try(mutant: Callable[[], Patches]) -> tuple[str, int | None]:
    return mutant.__name__, seeds_to_kill(mutant, 3_000)


def main() -> None:
    everything = [*QUICK, *SLOW, *SURVIVING]
    killed = 0
    with multiprocessing.get_context("fork").Pool() as pool:
        for name, seeds in pool.imap_unordered(_try, everything):
            killed += seeds is not None
            print(
                f"{name:<40} {f'found by schedule {seeds}' if seeds else 'survives 3,000 schedules'}",
                flush=True,
            )
    print(f"{killed} of {len(everything)} seeded bugs found")


if __name__ == "__main__":
    main()
