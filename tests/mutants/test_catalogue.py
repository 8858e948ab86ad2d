"""Seeded bugs are found within a bounded number of schedules, and the code without one is not accused. All of the
catalogue, with as many schedules as it takes: make mutants.
"""

from __future__ import annotations

import pytest

from tests.mutants.catalogue import ALL, FAMILIES, OF_MEMBERS, RARE
from tests.mutants.kill import seeds_to_kill, violation_of_cores
from tests.mutants.patches import Mutant

SEEDS_MAX = 30
QUICK = [mutant for mutant in ALL if mutant.__name__ not in RARE | OF_MEMBERS]


@pytest.mark.parametrize("mutant", QUICK, ids=lambda mutant: str(mutant.__name__))
def test_the_bug_is_found(mutant: Mutant) -> None:
    assert seeds_to_kill(mutant, SEEDS_MAX, violation_of_cores) is not None, (
        f"{mutant.__name__} survives {SEEDS_MAX} schedules"
    )


def test_without_a_bug_nothing_is_found() -> None:
    assert [seed for seed in range(1, SEEDS_MAX + 1) if violation_of_cores(seed)] == []


def test_every_bug_names_its_row() -> None:
    assert len(ALL) >= 60
    assert len({mutant.__name__ for mutant in ALL}) == len(ALL)
    for mutant in ALL:
        row = (mutant.__doc__ or "").partition(":")[0]
        assert row.isdigit() and 1 <= int(row) <= 60, mutant.__name__
    assert set(RARE) <= {mutant.__name__ for mutant in ALL}
    assert all(FAMILIES.values())
