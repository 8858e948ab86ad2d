"""python -m tests.whole_member --first-seed N --seeds M [--jobs J] [--story] [--trace-hash] [--json FILE]

Runs M schedules over whole members and ends with the counts; exit status 1 on any violation. --story prints one
schedule, one event a line. --trace-hash prints the SHA-256 of each story, which is the same for the same seed and
code under any PYTHONHASHSEED.
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

from tests.whole_member.schedule import Outcome, run_schedule

SAID = (
    ("simulated_s", "simulated seconds"),
    ("operations", "operations checked"),
    ("unknown", "of unknown outcome"),
    ("steps", "events"),
    ("watches", "watches"),
    ("watch_events", "watch events checked"),
    ("leases", "leases"),
    ("renewals", "renewals"),
    ("crashes", "crashes"),
    ("stops", "stops"),
    ("elections", "elections"),
    ("snapshots", "snapshots installed"),
    ("compactions", "compactions"),
    ("states_compared", "states compared"),
)


def tell_story(seed: int) -> int:
    """Prints one schedule as it happens. Exit status 1 where something does not hold."""
    outcome = run_schedule(seed, story=print)
    if outcome.violation:
        print(f"VIOLATION: {outcome.violation}")
        return 1
    print(f"seed {seed}: {int(outcome.counts['operations'])} operations checked, no violation")
    return 0


def _run(job: tuple[int, bool]) -> Outcome:
    seed, trace = job
    return run_schedule(seed, trace=trace)


def _report(outcome: Outcome) -> None:
    print(f"seed {outcome.seed} VIOLATION: {outcome.violation}")
    print(f"  replay: python -m tests.whole_member --first-seed {outcome.seed} --story")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.whole_member", description=__doc__)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--story", action="store_true", help="print the first seed's story and nothing else")
    parser.add_argument("--trace-hash", action="store_true", help="print the SHA-256 of each story")
    parser.add_argument("--json", metavar="FILE", help="write the counts")
    options = parser.parse_args()
    if options.story:
        return tell_story(options.first_seed)
    jobs = [(options.first_seed + number, options.trace_hash) for number in range(options.seeds)]
    started, violations, counts = time.monotonic(), 0, Counter[str]()
    with multiprocessing.get_context("fork").Pool(max(1, options.jobs)) as pool:
        for done, outcome in enumerate(pool.imap(_run, jobs, chunksize=4), 1):
            counts.update(outcome.counts)
            if options.trace_hash:
                print(f"seed {outcome.seed} {outcome.trace_hash}")
            if outcome.violation:
                violations += 1
                _report(outcome)
            if sys.stderr.isatty():
                print(f"\r{done}/{len(jobs)} schedules", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    elapsed = time.monotonic() - started
    said = ", ".join(f"{int(counts[name]):,} {text}" for name, text in SAID)
    print(f"{len(jobs)} schedules, {said}, {violations} violations in {elapsed:.1f} s")
    if options.json:
        numbers = {name: int(counts[name]) for name, _ in SAID}
        result = {
            "schedules": len(jobs),
            "first_seed": options.first_seed,
            **numbers,
            "violations": violations,
            "seconds": round(elapsed, 1),
        }
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
