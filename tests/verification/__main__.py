"""python -m tests.verification --ci | --release [--scale F] [--first-seed N] [--record]

Runs all of: simulated cores, whole members, seeded bugs, exhaustive search, crash states of the log. --ci is what fits
into a quarter of an hour on two cores, --release what is published. --scale 0.1 runs a tenth of it. --record adds the
counts to docs/verification.json and writes them into docs/verification.md; seeds that were counted before are
refused, so that the sums there count nothing twice. Exit status 1 where any of them finds something.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.verification.report import RECORD, Run, recorded, write_report


@dataclass(frozen=True)
class Check:
    """One command. ci, release: how much of it, in its own unit; flag: how it is told; seeded: whether seeds can
    be split over runs."""

    name: str
    flag: str
    ci: int
    release: int
    fixed: tuple[str, ...] = ()
    seeded: bool = True
    scaled: bool = True


CHECKS = (
    Check("simulation", "--seeds", 20_000, 1_000_000),
    Check("crash", "--states", 5_000, 100_000),
    Check("mutants", "--seeds-max", 20_000, 20_000, seeded=False, scaled=False),
    Check(
        "exhaustive", "--states-max", 100_000, 5_000_000, ("--depth", "14", "--walks", "100"), seeded=False
    ),
    Check("whole_member", "--seeds", 1_000, 50_000),
)
REACH_SHARE = 2_000
"""Every situation has to come about once in so many core schedules."""


def arguments_of(check: Check, count: int, first_seed: int, output: Path) -> list[str]:
    words = [sys.executable, "-m", f"tests.{check.name}", check.flag, str(count), *check.fixed]
    words += ["--json", str(output)]
    if check.seeded:
        words += ["--first-seed", str(first_seed)]
    if check.name == "simulation":
        words += ["--reach", str(count // REACH_SHARE)]
    return words


def overlapping(runs: list[Run], check: Check, first_seed: int, count: int) -> Run | None:
    """A recorded run of the check that has counted one of these seeds."""
    for run in runs:
        begin, end = run["first_seed"], run["first_seed"] + run["count"]
        if check.seeded and run["check"] == check.name and first_seed < end and begin < first_seed + count:
            return run
    return None


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.verification",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--ci", action="store_true")
    size.add_argument("--release", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="share of each count to run")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[check.name for check in CHECKS])
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    runs = recorded()
    failed: list[str] = []
    for check in CHECKS:
        if options.only and check.name not in options.only:
            continue
        count = check.ci if options.ci else check.release
        if check.scaled:
            count = max(1, round(count * options.scale))
        before = overlapping(runs, check, options.first_seed, count)
        if options.record and before is not None:
            parser.error(
                f"{check.name}: seeds from {before['first_seed']} on were counted in {before['commit']}"
            )
        print(f"== {check.name}: {count:,} {check.flag.strip('-')}", flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "counts.json"
            status = subprocess.run(arguments_of(check, count, options.first_seed, output)).returncode
            counts: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
        if status:
            failed.append(check.name)
        runs.append(
            Run(
                check=check.name,
                commit=commit(),
                date=datetime.date.today().isoformat(),
                first_seed=options.first_seed,
                count=count,
                seconds=round(time.monotonic() - started),
                failed=bool(status),
                counts=counts,
            )
        )
        if options.record:
            RECORD.write_text(json.dumps(runs, indent=1) + "\n")
            write_report(runs)
    print(f"failed: {', '.join(failed)}" if failed else "nothing was found")
    return 1 if failed else 0


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
