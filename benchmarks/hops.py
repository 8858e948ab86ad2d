"""Where the time of a put goes: three traced members, one client, 32 and 256 puts in flight, hop by hop.

Tracing costs time of its own (kvstore/tracing.py), so that the shares count and the sums are somewhat high. "acked →
committed" is the wait for the second disk, the leader's own or another follower's, where it came after the first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import trace
from benchmarks.bench import leader_of
from benchmarks.figures import percentile
from benchmarks.load import LoadFailed, Shape, body, drive, put_request
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT
from benchmarks.watch import WATCH
from kvstore.demo.cluster import LocalCluster, MemberProcess, server_program
from kvstore.demo.processes import ProgramFailed, Programs
from kvstore.pb.etcdserverpb_pb2 import WatchCreateRequest, WatchRequest

LOADS = (Shape(1, 1, 2_000), Shape(32, 1, 16_000), Shape(8, 32, 60_000))
QUICK = (Shape(1, 1, 300), Shape(32, 1, 2_000), Shape(8, 32, 6_000))

Ways = Mapping[str, Sequence[trace.Way]]
"""Those of each load, by its name."""


async def measure(loads: Sequence[Shape]) -> dict[str, list[trace.Way]]:
    with tempfile.TemporaryDirectory(prefix="kvstore-hops-") as name:
        folder = Path(name)
        with traced(folder):
            async with Programs() as programs:
                cluster = await LocalCluster.start(server_program(), folder, programs)
                leader = await leader_of(cluster)
                watcher = await watching(leader)
                windows = {}
                for shape in loads:
                    since = time.monotonic_ns()
                    await drive(f"http://{leader.endpoint}{PUT}", shape, body(folder, put_request()))
                    windows[str(shape)] = (since, time.monotonic_ns())
                watcher.close()
        members = []
        for path in sorted(folder.glob("*.trace")):
            with path.open(encoding="ascii") as lines:
                members.append(trace.read(lines))
        return {load: trace.ways(members, *window) for load, window in windows.items()}


@contextlib.contextmanager
def traced(folder: Path) -> Iterator[None]:
    """Members that are started meanwhile write what they do into the folder."""
    before = os.environ.get("KVSTORE_TRACE")
    os.environ["KVSTORE_TRACE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["KVSTORE_TRACE"]
        else:
            os.environ["KVSTORE_TRACE"] = before


async def watching(member: MemberProcess) -> RawConnection:
    connection = await RawConnection.connect(member.endpoint)
    created: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(_: bytes) -> None:
        if not created.done():
            created.set_result(None)

    request = WatchRequest(create_request=WatchCreateRequest(key=put_request().key))
    connection.open(WATCH, hear, None, request.SerializeToString())
    async with asyncio.timeout(30):
        await created
    return connection


def show(ways: Ways, console: Console) -> None:
    table = Table("µs", title="a put's way through three members, by puts in flight")
    for share in ("p50", "p99"):
        for load in ways:
            table.add_column(f"{load} {share}", justify="right")
    rows = (*trace.HOPS, trace.WHOLE, *trace.BESIDE)
    for first, last in rows:
        if (first, last) in (trace.WHOLE, trace.BESIDE[0]):
            table.add_section()
        took = [trace.took(found, first, last) for found in ways.values()]
        cells = [f"{percentile(each, share):,.0f}" if each else "–" for share in (0.5, 0.99) for each in took]
        table.add_row(f"{first} → {last}", *cells)
    table.caption = ", ".join(f"{load}: {len(found):,} puts seen" for load, found in ways.items())
    console.print(table)


def draw(ways: Ways, path: Path) -> None:
    """Medians of the hops, one after the other, as a share of their sum. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "kvstore", "font.size": 9})
    from matplotlib import colormaps, pyplot

    canvas, axes = pyplot.subplots(figsize=(9, 0.7 * len(ways) + 1.8), layout="constrained")
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    loads = [load for load, found in ways.items() if found]
    left = [0.0] * len(loads)
    for number, (first, last) in enumerate(trace.HOPS):
        widths = []
        for load in loads:
            total = sum(percentile(trace.took(ways[load], *hop), 0.5) for hop in trace.HOPS)
            widths.append(100 * percentile(trace.took(ways[load], first, last), 0.5) / total)
        axes.barh(loads, widths, left=left, color=colours[number], label=f"{first} → {last}")
        left = [a + b for a, b in zip(left, widths)]
    axes.invert_yaxis()
    axes.set_xlabel("% of the sum of the hops' medians")
    axes.spines[["top", "right"]].set_visible(False)
    canvas.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    canvas.savefig(path, metadata={"Date": None})
    pyplot.close(canvas)


def main() -> int:
    epilog = (
        "  python -m benchmarks.hops --quick\n  python -m benchmarks.hops --picture docs/performance/hops.svg"
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hops",
        description=__doc__,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the puts, for a look")
    parser.add_argument("--picture", type=Path, help="also draw the hops into this file (SVG)")
    options = parser.parse_args()
    try:
        ways = uvloop.run(measure(QUICK if options.quick else LOADS))
    except (LoadFailed, ProgramFailed) as problem:
        print(problem, file=sys.stderr)
        return 1
    show(ways, Console(width=None if sys.stdout.isatty() else 150))
    if options.picture is not None:
        draw(ways, options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
