"""python -m tests.crash [--first-seed N] [--states M] [--jobs J] [--json FILE]

Runs the real write-ahead log (kvstore/replication/wal.py) on a simulated disk, cuts the power at every step of each
run in turn, keeps none, all, a prefix or any subset of the 512-byte sectors and names that were not synced, and
starts from what is left: what was promised must be there, and nothing else. Now and then the power goes again
during the recovery. Exit status 1 where a state breaks a promise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import Progress

from kvstore.replication.wal import Wal
from tests.unit.replication.simulated_disk import PowerCut, SimulatedDisk
from tests.unit.replication.test_wal_crash import MODES, recover_and_check
from tests.unit.replication.wal_runs import DIRECTORY, Model, execute, plan

STEPS = 25


def states_of(seed: int) -> tuple[int, int, str]:
    """(seed, crash states tried, what went wrong) of one run."""
    steps = plan(seed, STEPS)
    whole = SimulatedDisk()
    execute(whole, steps, [])
    states = 0
    for cut in range(1, whole.steps + 1):
        for attempt, mode in enumerate(MODES):
            disk, promised, rng = (
                SimulatedDisk(crash_at=cut),
                list[Model](),
                Random(f"{seed} {cut} {attempt}"),
            )
            with contextlib.suppress(PowerCut):
                execute(disk, steps, promised)
            disk.crash(rng, mode)
            if rng.random() < 0.2:
                disk.crash_at = disk.steps + rng.randint(1, 6)
                with contextlib.suppress(PowerCut):
                    if Wal.exists(DIRECTORY, disk):
                        Wal.open(DIRECTORY, disk, 4096)
                disk.crash(rng)
                states += 1
            disk.crash_at = None
            where = f"seed {seed}, cut {cut}, {mode} ({attempt})"
            try:
                recover_and_check(disk, promised, where)
            except Exception as problem:  # whatever keeps a log from opening is a finding
                return seed, states, f"{where}: {problem!r}"
            states += 1
    return seed, states, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--states", type=int, default=5_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", metavar="FILE", help="write the counts")
    options = parser.parse_args()
    started, states, runs = time.monotonic(), 0, 0
    problems: list[str] = []
    console = Console(stderr=True)
    with (
        multiprocessing.get_context("fork").Pool(options.jobs) as pool,
        Progress(console=console) as progress,
    ):
        bar = progress.add_task("crash states", total=options.states)
        seeds = iter(range(options.first_seed, sys.maxsize))
        while states < options.states and not problems:
            chunk = [next(seeds) for _ in range(2 * options.jobs)]
            for _, count, problem in pool.imap_unordered(states_of, chunk):
                states, runs = states + count, runs + 1
                progress.update(bar, completed=min(states, options.states))
                if problem:
                    problems.append(problem)
                    print(f"VIOLATION: {problem}")
    print(
        f"{states} crash states of {runs} runs, {len(problems)} violations in {time.monotonic() - started:.1f} s"
    )
    if options.json:
        counts = {
            "states": states,
            "runs": runs,
            "first_seed": options.first_seed,
            "violations": len(problems),
        }
        Path(options.json).write_text(json.dumps(counts, indent=1))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
