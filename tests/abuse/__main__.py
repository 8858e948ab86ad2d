"""python -m tests.abuse [SERVER [ATTACK...]]: attacks on a real member, what each cost in memory, and what another
client felt. SERVER is "kvstore", "etcd" or a path; without ATTACK it is all of them.

A client puts one after the other: for a while without an attack, beside a process that is as busy and attacks nobody,
and then beside each. Its p99 depends on what else the machine does, and on as few cores as two on the attacker's own
work, so it is shown here, beside both, and asserted nowhere; memory is a test's (tests/abuse/test_abuse.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import percentile
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT
from kvstore.demo.cluster import LocalCluster, server_program
from kvstore.demo.processes import Programs
from kvstore.pb.etcdserverpb_pb2 import PutRequest
from tests.abuse.attacks import ATTACKS, BUSY, carried_out
from tests.abuse.victim import Memory, fill

QUIET_S = 3.0
PAUSE_S = 2.5  # until whoever flooded is heard again


async def puts(connection: RawConnection, took: list[float]) -> None:
    put = PutRequest(key=b"neighbour", value=b"v" * 100).SerializeToString()
    while True:
        began = time.perf_counter()
        await connection.ask(PUT, put)
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.001)


async def run(server: str, attacks: Sequence[str]) -> Table:
    columns = ("attack", "sent", "memory", "puts beside it", "p99", "of none", "of busy", "ended with")
    table = Table(*columns, title=server)
    with tempfile.TemporaryDirectory(prefix="kvstore-abuse-") as folder:
        async with Programs() as programs:
            cluster = await LocalCluster.start(server_program(server), Path(folder), programs, 1)
            (member,) = cluster.members
            await fill(member.endpoint)
            connection = await RawConnection.connect(member.endpoint)
            took: list[float] = []
            neighbour = asyncio.ensure_future(puts(connection, took))
            await asyncio.sleep(QUIET_S)
            normal = percentile(took, 0.99)
            table.add_row("none", "", "", f"{len(took):,}", f"{1e3 * normal:.1f} ms")
            beside_busy = float("nan")
            assert member.program is not None
            for name in (BUSY, *attacks):
                took.clear()
                async with Memory.watching(member.program.pid) as memory:
                    report = await carried_out(name, member.endpoint)
                p99 = percentile(took, 0.99) if took else float("nan")
                if name == BUSY:
                    beside_busy = p99
                table.add_row(
                    *(name, f"{report.sent_bytes / 2**20:.1f} MiB", f"+{memory.growth_mb:.0f} MiB"),
                    *(f"{len(took):,}", f"{1e3 * p99:.1f} ms"),
                    *(f"{p99 / normal:.1f} x", f"{p99 / beside_busy:.1f} x", report.ended[:40]),
                )
                await asyncio.sleep(PAUSE_S)
            neighbour.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await neighbour
            connection.close()
    return table


def main(server: str = "kvstore", *attacks: str) -> None:
    unknown = [name for name in attacks if name not in ATTACKS]
    if unknown:
        raise SystemExit(f"no attack is called {unknown[0]!r}; there are: {', '.join(ATTACKS)}")
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(asyncio.run(run(server, attacks or tuple(ATTACKS))))


if __name__ == "__main__":
    main(*sys.argv[1:])
