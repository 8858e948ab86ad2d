"""python -m tests.mutants [--seeds-max N] [--jobs J] [--json FILE] [NAME…]

Tries every seeded bug, or those named, and counts the simulated schedules it takes until a check fails. Exit
status 1 where one survives.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.mutants.catalogue import ALL, FAMILIES, OF_MEMBERS
from tests.mutants.kill import Killed, seeds_to_kill, violation_of_cores, violation_of_members

SEEDS_MAX = 20_000
MEMBERS_SHARE = 10
"""A schedule of whole members takes as long as so many of the core."""


def _try(job: tuple[str, int]) -> tuple[str, Killed | None]:
    name, seeds_max = job
    mutant = next(each for each in ALL if each.__name__ == name)
    if name in OF_MEMBERS:
        return name, seeds_to_kill(mutant, max(1, seeds_max // MEMBERS_SHARE), violation_of_members)
    return name, seeds_to_kill(mutant, seeds_max, violation_of_cores)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seeds-max", type=int, default=SEEDS_MAX)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", metavar="FILE", help="write the counts")
    options = parser.parse_args()
    known = [each.__name__ for each in ALL]
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no seeded bug is called {', '.join(unknown)}")
    jobs = [(name, options.seeds_max) for name in options.names or known]
    console = Console(width=None if sys.stdout.isatty() else 150)
    found: dict[str, Killed | None] = {}
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        tried = pool.imap_unordered(_try, jobs)
        for name, killed in track(tried, "seeded bugs", total=len(jobs), console=Console(stderr=True)):
            found[name] = killed
    table = Table("seeded bug", "row", "schedules", "found by")
    for family, mutants in FAMILIES.items():
        table.add_section()
        table.add_row(f"[bold]{family}")
        for mutant in mutants:
            if mutant.__name__ in found:
                killed = found[mutant.__name__]
                row = (mutant.__doc__ or "").partition(":")[0]
                told = (str(killed.seeds), killed.by[:90]) if killed else ("survives", "")
                table.add_row(mutant.__name__, row, *told)
    console.print(table, highlight=False)
    seeds = [killed.seeds for killed in found.values() if killed is not None]
    median = statistics.median(seeds) if seeds else 0
    print(
        f"{len(seeds)} of {len(found)} seeded bugs found, median {median:g} schedules, most {max(seeds, default=0)}"
    )
    if options.json:
        counts = {
            "bugs": len(found),
            "found": len(seeds),
            "median_schedules": median,
            "most_schedules": max(seeds, default=0),
            "schedules": {name: killed.seeds if killed else None for name, killed in sorted(found.items())},
        }
        Path(options.json).write_text(json.dumps(counts, indent=1))
    return 0 if len(seeds) == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
