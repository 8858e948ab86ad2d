"""Every falsified history is found out, and the histories they were made from are not accused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

import pytest

from tests.checkers import everything
from tests.checkers.corruptions import ALL, Corruption
from tests.checkers.history import History, Violation
from tests.whole_member.options import Options
from tests.whole_member.schedule import run_schedule

EACH = 22
TRIES = 40 * EACH
SEEDS = range(1, 13)  # a watch that compaction cancels comes about in few of them


@cache
def histories() -> tuple[History, ...]:
    """Of short runs with every kind of traffic, in which next to nothing breaks."""
    found: list[History] = []
    for seed in SEEDS:
        options = replace(
            Options.draw(Random(seed)),
            members=3,
            duration_s=2.5,
            delay_s=0.005,
            loss=0.02,
            duplication=0.05,
            cut_rate=0.0,
            one_way_rate=0.0,
            crash_rate=0.3,
            torn_write_rate=0.0,
            blackout_rate=0.0,
            stop_rate=0.0,
            pause_rate=0.0,
            disk_error_rate=0.0,
            slice_revisions=3,
            fragment_bytes=100,
            sessions=5,
            think_s=0.05,
            profiles=("kubernetes", "lease", "watch", "lease", "mixed"),
            compaction_s=0.3,
            trim_commands=10_000,
        )
        outcome = run_schedule(seed, options=options, keep=found)
        assert not outcome.violation, f"seed {seed}: {outcome.violation}"
    return tuple(found)


def test_the_histories_themselves_are_valid() -> None:
    checked = [everything.check(history) for history in histories()]
    least = {"operations": 200, "watch_events": 150, "leases": 10}
    assert all(sum(each[name] for each in checked) >= count for name, count in least.items()), checked


@pytest.mark.parametrize("corruption", ALL, ids=lambda each: str(each.__name__))
def test_is_found(corruption: Corruption) -> None:
    random, made = Random(corruption.__name__), 0
    for _ in range(TRIES):
        history = corruption(random, random.choice(histories()))
        if history is None:
            continue
        made += 1
        with pytest.raises(Violation):
            everything.check(history)
        if made == EACH:
            return
    raise AssertionError(f"only {made} places for {corruption.__name__}")


def test_there_are_a_thousand_of_them() -> None:
    assert len(ALL) >= 12
    assert len(ALL) * EACH >= 1000
