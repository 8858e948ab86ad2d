"""Does a member's memory grow? Three of them under a mixed load at a bounded rate, and the slope with its confidence.

Of a hundred operations 62 are puts and 16 deletes on a bounded set of keys, 10 gets, 8 leases with a key each that
run out after ten seconds, 4 watches, each closed when a hundred newer ones are open; every five thousandth compacts
the history away but for a thousand revisions. So what is kept is bounded, and what grows is a leak. The first third
of the time is for caches to fill, and does not count.

"resident" has the pages of the database file that are in memory; "own" has not, and is where a leak shows.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.figures import OURS, THEIRS
from benchmarks.leases import GRANT, first_id
from benchmarks.load import LoadFailed
from benchmarks.memory import memory_of
from benchmarks.raw_client import RawConnection, RawFailed
from benchmarks.slope import SAMPLES_MIN, Slope, slope
from benchmarks.unary import PUT, RANGE
from benchmarks.upkeep import COMPACT
from benchmarks.watch import WATCH
from kvstore.demo.cluster import LocalCluster, server_program
from kvstore.demo.processes import ProgramFailed, Programs
from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    WatchCreateRequest,
    WatchRequest,
)

DELETE = "/etcdserverpb.KV/DeleteRange"
KEYS = 2_000
IN_FLIGHT = 16
WATCHES_OPEN = 100
COMPACT_EVERY, REVISIONS_KEPT = 5_000, 1_000
LEASE_TTL_S = 10
SAMPLES = 200
CALL_LIMIT_S = 60.0
WARM_UP = 1 / 3
HOURS = 5 / 60


class Load:
    """The operations, by number: the same number is the same operation in every run."""

    def __init__(self, connections: list[RawConnection]) -> None:
        self._connections = connections
        self._watches: deque[tuple[RawConnection, int]] = deque()
        self._first_lease = first_id()
        self._revision = self._compacted = 0

    async def one(self, number: int) -> None:
        """Raises RawFailed, TimeoutError."""
        connection = self._connections[number % len(self._connections)]
        key = b"soak/%04d" % (number * 7919 % KEYS)
        async with asyncio.timeout(CALL_LIMIT_S):
            if number % COMPACT_EVERY == COMPACT_EVERY - 1:
                await self._compact(connection)
            match number * 37 % 100:
                case kind if kind < 62:
                    await self._put(connection, PutRequest(key=key, value=b"v" * (64 + number % 7 * 128)))
                case kind if kind < 78:
                    await connection.ask(DELETE, DeleteRangeRequest(key=key).SerializeToString())
                case kind if kind < 88:
                    await connection.ask(RANGE, RangeRequest(key=key).SerializeToString())
                case kind if kind < 96:
                    lease = self._first_lease + number
                    await connection.ask(
                        GRANT, LeaseGrantRequest(ID=lease, TTL=LEASE_TTL_S).SerializeToString()
                    )
                    await self._put(connection, PutRequest(key=b"%b/leased" % key, value=b"v", lease=lease))
                case _:
                    self._watch(connection, key)

    async def _put(self, connection: RawConnection, put: PutRequest) -> None:
        response = PutResponse.FromString(await connection.ask(PUT, put.SerializeToString()))
        self._revision = max(self._revision, response.header.revision)

    async def _compact(self, connection: RawConnection) -> None:
        target = self._revision - REVISIONS_KEPT
        if target > self._compacted:
            self._compacted = target
            await connection.ask(COMPACT, CompactionRequest(revision=target).SerializeToString())

    def _watch(self, connection: RawConnection, key: bytes) -> None:
        create = WatchCreateRequest(key=key[:-2], range_end=key[:-2] + b"\xff", prev_kv=True)
        stream = connection.open(WATCH, None, None, WatchRequest(create_request=create).SerializeToString())
        self._watches.append((connection, stream))
        if len(self._watches) > WATCHES_OPEN:
            old, stream = self._watches.popleft()
            old.reset(stream)


@dataclass(slots=True)
class Samples:
    """MiB by member, with the hours they were taken at."""

    operations: int = 0
    hours: list[float] = field(default_factory=list)
    resident: dict[str, list[float]] = field(default_factory=dict)
    own: dict[str, list[float]] = field(default_factory=dict)

    def take(self, cluster: LocalCluster, hours: float) -> None:
        self.hours.append(hours)
        for member in cluster.members:
            assert member.program is not None
            if member.program.status is not None:
                raise LoadFailed(f"{member.name} has ended:\n{member.program.tail()}")
            resident, own = memory_of(member.program.pid)
            self.resident.setdefault(member.name, []).append(resident)
            self.own.setdefault(member.name, []).append(own)


async def soak(server: str, hours: float, rate: float, virtual: bool) -> Samples:
    """Raises LoadFailed, ProgramFailed."""
    count = int(hours * 3600 * rate)
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="kvstore-soak-") as folder:
        async with Programs() as programs:
            cluster = await LocalCluster.start(server_program(server), Path(folder), programs)
            connections = [await RawConnection.connect(endpoint) for endpoint in cluster.endpoints]
            load, numbers = Load(connections), itertools.count()
            began = time.perf_counter()

            async def work() -> None:
                while (number := next(numbers)) < count:
                    took = time.perf_counter() - began
                    if not virtual and took > hours * 3600:
                        return  # the cluster is slower than the rate: the time is kept, not the count
                    if not virtual and took < number / rate:
                        await asyncio.sleep(number / rate - took)
                    await load.one(number)
                    samples.operations += 1
                    if number % max(1, count // SAMPLES) == 0:
                        seconds = number / rate if virtual else time.perf_counter() - began
                        samples.take(cluster, seconds / 3600)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(IN_FLIGHT):
                        group.create_task(work())
            except ExceptionGroup as problems:
                first = problems.exceptions[0]
                if isinstance(first, (RawFailed, TimeoutError)):
                    raise LoadFailed(f"an operation failed: {first!r}") from None
                raise first from None
            for connection in connections:
                connection.close()
    return samples


def slopes(samples: Samples) -> dict[tuple[str, str], tuple[float, float, Slope]]:
    """(member, "own" or "resident") → (MiB at first, MiB at last, slope), without the warm-up."""
    skip = int(len(samples.hours) * WARM_UP)
    hours = samples.hours[skip:]
    return {
        (name, kind): (values[skip], values[-1], slope(hours, values[skip:]))
        for kind, by_member in (("own", samples.own), ("resident", samples.resident))
        for name, values in by_member.items()
    }


def show(samples: Samples, title: str, console: Console) -> None:
    table = Table("", "memory", "after a third", "at the end", "slope, 95 % confidence", title=title)
    for (name, kind), (first, last, each) in slopes(samples).items():
        table.add_row(name, kind, f"{first:.1f} MiB", f"{last:.1f} MiB", str(each))
    console.print(table)


def main() -> int:
    epilog = (
        "  python -m benchmarks.soak                       five minutes\n"
        "  python -m benchmarks.soak --hours 8 --most 1    overnight; fails where 1 %/h is exceeded for sure\n"
        "  python -m benchmarks.soak --hours 8 --virtual   the operations of eight hours as fast as they go"
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hours", type=float, default=HOURS, help="how long (default: 5 minutes)")
    parser.add_argument("--rate", type=float, default=200.0, help="operations a second (default: 200)")
    parser.add_argument(
        "--virtual",
        action="store_true",
        help="do not wait: an hour is 3600 times --rate operations, however soon they are done. Leases and timers "
        "keep to the wall's time",
    )
    parser.add_argument("--server", choices=(OURS, THEIRS), default=OURS, help="(default: kvstore)")
    parser.add_argument("--most", type=float, metavar="PERCENT", help="of own memory an hour; more fails")
    options = parser.parse_args()
    if options.hours * 3600 * options.rate < 3 * SAMPLES_MIN or options.rate <= 0:
        parser.error("--hours times --rate are too few operations for a slope")
    try:
        samples = uvloop.run(soak(options.server, options.hours, options.rate, options.virtual))
    except (LoadFailed, ProgramFailed) as problem:
        print(problem, file=sys.stderr)
        return 1
    if len(samples.hours) * (1 - WARM_UP) < SAMPLES_MIN + 1:
        print("too little was done for a slope: more --hours, or a lower --rate", file=sys.stderr)
        return 1
    pace = "as fast as they go, an hour being" if options.virtual else "at most"
    title = (
        f"{options.server}, three members, {samples.operations:,} operations {pace} {options.rate:g} a second"
    )
    show(samples, title, Console(width=None if sys.stdout.isatty() else 130))
    if options.most is not None:
        worst = max(each.at_least for (_, kind), (_, _, each) in slopes(samples).items() if kind == "own")
        if worst > options.most:
            print(f"own memory grows by at least {worst:.1f} %/h, above {options.most:g}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
