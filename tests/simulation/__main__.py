"""python -m tests.simulation --first-seed N --seeds M [--events E] [--jobs J] [--story] [--trace-hash]

Runs M schedules over the real raft/ code and ends with one line that counts schedules, events and violations;
exit status 1 on any violation. --story prints one schedule, one event a line. --trace-hash prints the SHA-256
of each story, which is the same for the same seed and code under any PYTHONHASHSEED.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path

from kvstore.version import COMPILED
from tests.simulation import reach
from tests.simulation.cluster import Outcome, Schedule, run_schedule
from tests.simulation.reach import POINTS

DEFAULT_EVENTS = 1000
TICK_S = 0.1  # what a member takes a tick for


def report_points(reached: Counter[str], needed: int) -> bool:
    """Says how often each situation came about. False where one did less often than needed."""
    rare = sorted((reached[point], point) for point in POINTS if reached[point] < max(needed, 1))
    print(
        f"{sum(1 for point in POINTS if reached[point])} of {len(POINTS)} situations reached, the rarest "
        f"{min(reached[point] for point in POINTS)} times"
    )
    for count, point in rare:
        print(f"  {count:6} x {point}")
    return not rare


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
    parser.add_argument(
        "--reach", type=int, default=0, help="fail where a situation came about less often than this"
    )
    parser.add_argument("--json", metavar="FILE", help="write the counts")
    parser.add_argument("--trace-hash", action="store_true", help="print the SHA-256 of each story")
    options = parser.parse_args()
    if options.story:
        return tell_story(options.first_seed, options.events)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [(seed, options.events, options.trace_hash) for seed in seeds]
    started, events, commits, leaders = time.monotonic(), 0, 0, 0
    violations: list[Outcome] = []
    reached: Counter[str] = Counter()
    ticks = 0.0
    if not COMPILED:  # nothing can be put around compiled functions
        reach.install()
    with multiprocessing.get_context("fork").Pool(max(1, options.jobs)) as pool:
        for count, outcome in enumerate(pool.imap(_run, jobs, chunksize=8), 1):
            events += outcome.events
            commits += outcome.commits
            leaders += outcome.leaders
            reached += outcome.reached
            ticks += outcome.ticks
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
    enough = COMPILED or report_points(reached, options.reach)
    if COMPILED:
        print("compiled: neither the situations reached were counted nor the specification compared")
    if options.json:
        counts = {
            "schedules": len(jobs),
            "first_seed": options.first_seed,
            "events": events,
            "leaderships": leaders,
            "commits": commits,
            "simulated_s": ticks * TICK_S,
            "violations": len(violations),
            "situations": {point: reached[point] for point in POINTS},
        }
        Path(options.json).write_text(json.dumps(counts, indent=1))
    print(
        f"{len(jobs)} schedules, {events} events, {leaders} leaderships, {commits} commits, "
        f"{len(violations)} violations in {time.monotonic() - started:.1f} s"
    )
    return 1 if violations or (options.reach and not enough) else 0


if __name__ == "__main__":
    sys.exit(main())
