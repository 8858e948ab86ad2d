"""python -m tests.simulation --first-seed N --seeds M [--events E] [--jobs J] [--story] [--trace-hash]

Runs M schedules over the real raft/ code and ends with one line that counts schedules, events and violations;
exit status 1 on any violation. --story prints one schedule, one event a line. --trace-hash prints the SHA-256
of each story, which is the same for the same seed and code under any PYTHONHASHSEED.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

from tests.simulation.cluster import Outcome, Schedule, run_schedule

DEFAULT_EVENTS = 1000


def _run(job: tuple[int, int, bool]) -> Outcome:
    seed, events, trace = job
    return run_schedule(seed, events=events, trace=trace)


def tell_story(seed: int, events: int) -> int:
    """Prints one schedule as it happens. Exit status 1 where it breaks an invariant."""
    schedule = Schedule(seed, events=events, story=print)
    try:
        schedule.run()
    except AssertionError as problem:
        print(f"VIOLATION: {problem}")
        return 1
    print(f"seed {seed}: {schedule.events} events, {schedule.history.highest} committed, no violation")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument(
        "--events", type=int, default=DEFAULT_EVENTS, help="of the fault phase of each schedule"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--story", action="store_true", help="print the first seed's story and nothing else")
    parser.add_argument("--trace-hash", action="store_true", help="print the SHA-256 of each story")
    options = parser.parse_args()
    if options.story:
        return tell_story(options.first_seed, options.events)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [(seed, options.events, options.trace_hash) for seed in seeds]
    started, events, commits, leaders = time.monotonic(), 0, 0, 0
    violations: list[Outcome] = []
    with multiprocessing.get_context("fork").Pool(max(1, options.jobs)) as pool:
        for count, outcome in enumerate(pool.imap(_run, jobs, chunksize=8), 1):
            events += outcome.events
            commits += outcome.commits
            leaders += outcome.leaders
            if outcome.trace_hash:
                print(f"seed {outcome.seed} {outcome.trace_hash}")
            if outcome.violation:
                violations.append(outcome)
                print(f"seed {outcome.seed} VIOLATION: {outcome.violation}")
                print(
                    f"  replay: python -m tests.simulation --first-seed {outcome.seed} --seeds 1 "
                    f"--events {options.events} --story"
                )
            if sys.stderr.isatty():
                print(f"\r{count}/{len(jobs)} schedules", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(
        f"{len(jobs)} schedules, {events} events, {leaders} leaderships, {commits} commits, "
        f"{len(violations)} violations in {time.monotonic() - started:.1f} s"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
