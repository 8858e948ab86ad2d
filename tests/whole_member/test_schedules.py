"""A small share of what `python -m tests.whole_member` runs; and the same seed tells the same story."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.whole_member.schedule import run_schedule

SEEDS = range(1, 21)
COMMAND = [sys.executable, "-m", "tests.whole_member", "--jobs", "1"]


@pytest.mark.parametrize("seed", SEEDS)
def test_schedule(seed: int) -> None:
    outcome = run_schedule(seed)
    assert not outcome.violation, f"seed {seed}: {outcome.violation}"
    assert outcome.counts["operations"]


def test_the_same_story_twice_and_under_other_hash_seeds() -> None:
    here = [f"seed {seed} {run_schedule(seed, trace=True).trace_hash}" for seed in (1, 2, 3)]
    again = [f"seed {seed} {run_schedule(seed, trace=True).trace_hash}" for seed in (1, 2, 3)]
    assert here == again
    assert len(set(here)) == len(here)
    for hash_seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [*COMMAND, "--seeds", "3", "--trace-hash"],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert [line for line in done.stdout.splitlines() if line.startswith("seed ")] == here
        assert ", 0 violations in " in done.stdout.splitlines()[-1]
