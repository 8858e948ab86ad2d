"""python -m tests.differential [--calls N] [--seed N] [--server kvstore|mounted]

Gives generated calls to etcd 3.5.1 and to a member of ours, until so many were made or one was answered differently.
That one is made as small as it gets, and printed. Exit status 1 then.
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.differential.run import find_difference, running_pair

EXAMPLES = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--server", default="kvstore", choices=("kvstore", "mounted"), help="which of ours")
    options = parser.parse_args()
    columns = (TextColumn("calls"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found, seed = "", options.seed
    with running_pair(options.server) as pair, Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("calls", total=options.calls)
        while not found and pair.calls.total() < options.calls:
            found = find_difference(pair, seed, EXAMPLES)
            progress.update(bar, completed=min(pair.calls.total(), options.calls))
            seed += 1
    for name, count in sorted({**pair.calls, **pair.codes}.items(), key=lambda each: -each[1]):
        print(f"{count:9,}  {name}")
    if found:
        print(found)
        return 1
    print(f"{pair.calls.total():,} calls, seeds {options.seed} to {seed - 1}, no difference")
    return 0


sys.exit(main())
