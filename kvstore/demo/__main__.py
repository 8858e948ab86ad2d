"""python -m kvstore.demo: see the package. Exit status 0 when everything shown was so."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from kvstore.client import Client
from kvstore.demo.cluster import LocalCluster, server_program
from kvstore.demo.hops import HOPS
from kvstore.demo.processes import ProgramFailed, Programs
from kvstore.demo.story import Show


class Teller:
    """Prints what happens as it happens, with milliseconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        since_ms = (time.monotonic() - self._started) * 1e3
        self._console.print(f"[dim]{since_ms:7.0f} ms[/dim]  {text}", highlight=False, soft_wrap=True)


@click.command()
@click.option("--keep", is_flag=True, help="Stay up afterwards, and say how to talk to it.")
@click.option("--server", default="kvstore", show_default=True, help="Server program; `etcd` to compare.")
def main(keep: bool, server: str) -> None:
    """Three members, a proxy and four web servers on loopback: announce, route, kill, and nothing is lost."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    try:
        status = asyncio.run(_main(console, keep, server_program(server)))
    except KeyboardInterrupt:
        status = 130
    except (ProgramFailed, FileNotFoundError) as problem:
        console.print(f"[red]the demo could not go on:[/red] {problem}", highlight=False)
        status = 1
    sys.exit(status)


async def _main(console: Console, keep: bool, server: str) -> int:
    say = Teller(console)
    ours = asyncio.current_task()
    assert ours is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ours.cancel)
    with tempfile.TemporaryDirectory(prefix="kvstore-demo-") as folder:
        async with Programs() as programs:
            cluster = await LocalCluster.start(server, Path(folder), programs)
            say(f"three members of {Path(server).name} serve on {', '.join(cluster.endpoints)}")
            async with Client(cluster.endpoints) as client:
                show = Show(cluster, programs, client, say)
                await show.run()
                is_so = _print_table(console, show)
                if keep:
                    _explain(console, show)
                    await asyncio.Event().wait()
    return 0 if is_so else 1


def _print_table(console: Console, show: Show) -> bool:
    hops = Table(title=f"from ready to the first answer, median of {len(show.webs)}")
    for name in ("proxy", *HOPS):
        hops.add_column(name)
    for proxy_row in show.hops.rows():
        hops.add_row(*proxy_row)
    console.print(hops)
    table = Table(title="what was shown")
    for name in ("", "figure", "as it should be"):
        table.add_column(name)
    marks = {None: "", True: "[green]yes[/green]", False: "[red]NO[/red]"}
    for row in show.rows:
        table.add_row(row.what, row.figure, marks[row.is_so])
    console.print(table)
    return all(row.is_so is not False for row in show.rows)


def _explain(console: Console, show: Show) -> None:
    endpoints = ",".join(show.cluster.endpoints)
    lines = [
        "it stays up until Ctrl-C. In another terminal:",
        f"  curl {show.url}",
        f"  export KVCTL_ENDPOINTS={endpoints}",
        "  kvctl endpoint status -w table",
        "  kvctl get --prefix /kvstore/services/demo/",
        "  kvctl watch --prefix /kvstore/services/demo/",
        f"  kill -9 {show.webs[0].pid}    # {show.webs[0].name}; watch it being taken out",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
