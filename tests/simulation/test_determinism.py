"""The same seed tells the same story: twice, and whatever PYTHONHASHSEED is."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.simulation.cluster import run_schedule

SEEDS = range(1, 31)


def test_twice_in_one_process() -> None:
    first = [run_schedule(seed, events=500, trace=True).trace_hash for seed in SEEDS]
    second = [run_schedule(seed, events=500, trace=True).trace_hash for seed in SEEDS]
    assert first == second
    assert len(set(first)) == len(first)


def test_under_different_hash_seeds() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "30", "--events", "500", "--trace-hash"]
    outputs = []
    for hash_seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        outputs.append([line for line in done.stdout.splitlines() if line.startswith("seed ")])
    assert len(outputs[0]) == 30
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_command_counts_and_fails_on_a_violation() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "3", "--events", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("3 schedules, ")
    assert ", 0 violations in " in done.stdout.splitlines()[-1]
