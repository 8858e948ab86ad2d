"""kvctl check perf, datascale: is this cluster fit for such a load?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from kvstore.cli.failures import BAD_FEATURE, ERROR, INVALID_INPUT, CommandFailed
from kvstore.cli.kv import as_bytes
from kvstore.cli.load import Load, Outcome, put_from_processes, put_under_load
from kvstore.cli.options import Noun, Settings, Verb, one_of

if TYPE_CHECKING:
    from kvstore.client import Client

PERF = {
    "s": Load(clients=50, puts_per_second=150, duration_s=60),
    "m": Load(clients=200, puts_per_second=1000, duration_s=60),
    "l": Load(clients=500, puts_per_second=8000, duration_s=60),
    "xl": Load(clients=1000, puts_per_second=15000, duration_s=60),
}
DATASCALE = {
    name: Load(clients=clients, puts=puts, key_bytes=512, value=bytes(512))
    for name, clients, puts in (
        ("s", 50, 10_000),
        ("m", 200, 100_000),
        ("l", 500, 1_000_000),
        ("xl", 1000, 3_000_000),
    )
}
ALIASES = {"small": "s", "medium": "m", "large": "l", "xLarge": "xl"}
LEAST_SHARE = 0.9
SLOWEST_S = 0.5
DEVIATION_S = 0.1
PUTS_A_PROCESS = 2000  # what one process of ours can send, a second
LAG_S = 0.005
LONG_TIMEOUT_S = 30.0
MEMORY_METRIC = "process_resident_memory_bytes"


@click.group("check", cls=Noun)
def check() -> None:
    """Is the cluster fit for a load? Both checks write keys, and delete them afterwards."""


def _flags(prefix: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--auto-defrag", is_flag=True, help="Defragment the servers afterwards."),
            click.option("--auto-compact", is_flag=True, help="Give up the history this makes afterwards."),
            click.option("--prefix", default=prefix, show_default=True, help="Of the keys that are written."),
            click.option(
                "--load",
                default="s",
                show_default=True,
                metavar="s|m|l|xl",
                shell_complete=one_of("s", "m", "l", "xl"),
                help="Small, medium, large or very large.",
            ),
            click.argument("arguments", nargs=-1, metavar=""),
        ):
            command = option(command)
        return command

    return add


PERF_EXAMPLE = """\b
Examples:
  kvctl check perf
  kvctl check perf --load m --auto-compact

For 60 seconds s writes 150 keys a second from 50 clients, m 1000 from 200, l 8000 from 500, xl 15000 from 1000."""


@check.command("perf", cls=Verb, epilog=PERF_EXAMPLE)
@_flags("/etcdctl-check-perf/")
@click.pass_obj
def perf(
    settings: Settings,
    /,
    arguments: tuple[str, ...],
    load: str,
    prefix: str,
    auto_compact: bool,
    auto_defrag: bool,
) -> None:
    """Write for a minute: are the writes taken at that rate, and each within half a second?"""
    run = Check(settings, _load(PERF, load), as_bytes(prefix), auto_compact, auto_defrag)
    from kvstore.cli.run import with_client

    outcome = with_client(settings, run.perform)
    if not judge(outcome, run.load):
        if outcome.lag_s > LAG_S:
            click.echo("kvctl itself could not keep up here, so the cluster may be fit for more", err=True)
        raise CommandFailed(None, ERROR)


SCALE_EXAMPLE = """\b
Examples:
  kvctl check datascale
  kvctl check datascale --load m --auto-compact --auto-defrag

s writes 10,000 keys of 1 KiB, m 100,000, l a million, xl three million."""


@check.command("datascale", cls=Verb, epilog=SCALE_EXAMPLE)
@_flags("/etcdctl-check-datascale/")
@click.pass_obj
def datascale(
    settings: Settings,
    /,
    arguments: tuple[str, ...],
    load: str,
    prefix: str,
    auto_compact: bool,
    auto_defrag: bool,
) -> None:
    """Write many keys: how much more memory does the first endpoint take for them? Its /metrics must say."""
    run = Check(settings, _load(DATASCALE, load), as_bytes(prefix), auto_compact, auto_defrag)
    from kvstore.cli.run import with_client

    async def measure(client: Client) -> tuple[Outcome, float]:
        await run.refuse_keys(client)
        before = await _memory(settings, "before")
        click.echo(
            f"Start data scale check for work load [{run.load.puts} key-value pairs, "
            f"{run.load.key_bytes + len(run.load.value)} bytes per key-value, "
            f"{run.load.clients} concurrent clients]."
        )
        outcome = await run.write()
        after = await _memory(settings, "after")
        await run.clean_up(client)
        return outcome, (after - before) / 2**20

    outcome, used_mib = with_client(settings, measure)
    if outcome.errors:
        _tell_errors(outcome)
        raise CommandFailed(None, ERROR)
    click.echo(f"PASS: Approximate system memory used : {used_mib:.2f} MB.")


@dataclass(frozen=True)
class Check:
    """One check: its load, and where it goes."""

    settings: Settings
    load: Load
    prefix: bytes
    auto_compact: bool
    auto_defrag: bool

    async def perform(self, client: Client) -> Outcome:
        await self.refuse_keys(client)
        outcome = await self.write()
        await self.clean_up(client)
        return outcome

    async def refuse_keys(self, client: Client) -> None:
        """They would be deleted with those of the check."""
        if (await client.get(self.prefix, prefix=True, limit=1, keys_only=True)).kvs:
            shown = self.prefix.decode("utf-8", "replace")
            raise CommandFailed(
                f"prefix \"{shown}\" has keys. Delete with 'kvctl del --prefix {shown}' first", INVALID_INPUT
            )

    async def write(self) -> Outcome:
        count = min(-(-self.load.puts_per_second // PUTS_A_PROCESS), max(1, (os.cpu_count() or 1) - 1))
        with _progress(self.load) as progress:
            if count > 1:
                return await put_from_processes(self.settings, self.prefix, self.load, count, progress)
            return await put_under_load(self.settings, self.prefix, self.load, progress)

    async def clean_up(self, client: Client) -> None:
        from kvstore.client.compare import delete_request
        from kvstore.client.methods import COMPACT, DEFRAGMENT, DELETE_RANGE
        from kvstore.pb import etcdserverpb_pb2 as pb

        caller = client.caller
        delete = delete_request(self.prefix, prefix=True)
        deleted = await caller.write(DELETE_RANGE, delete, timeout_s=LONG_TIMEOUT_S)
        if self.auto_compact:
            revision = deleted.header.revision
            click.echo(f"Compacting with revision {revision}")
            compaction = pb.CompactionRequest(revision=revision, physical=True)
            await caller.write(COMPACT, compaction, timeout_s=LONG_TIMEOUT_S)
            click.echo(f"Compacted with revision {revision}")
        if self.auto_defrag:
            for target in caller.choice.endpoints:
                click.echo(f'Defragmenting "{target.name}"')
                await caller.at(target, DEFRAGMENT, pb.DefragmentRequest(), timeout_s=LONG_TIMEOUT_S)
                click.echo(f'Defragmented "{target.name}"')


def judge(outcome: Outcome, load: Load) -> bool:
    """Prints what was found. Returns whether all is well."""
    fit = not outcome.errors
    if outcome.errors:
        _tell_errors(outcome)
    rate = int(outcome.puts_per_second) + 1
    if outcome.puts_per_second / load.puts_per_second <= LEAST_SHARE:
        click.echo(f"FAIL: Throughput too low: {rate} writes/s")
        fit = False
    else:
        click.echo(f"PASS: Throughput is {rate} writes/s")
    for value_s, limit_s, passed, failed in (
        (outcome.slowest_s, SLOWEST_S, "Slowest request took", "Slowest request took too long:"),
        (outcome.deviation_s, DEVIATION_S, "Stddev is", "Stddev too high:"),
    ):
        if value_s > limit_s:
            click.echo(f"{failed} {value_s:f}s")
            fit = False
        else:
            click.echo(f"PASS: {passed} {value_s:f}s")
    click.echo("PASS" if fit else "FAIL")
    return fit


def _tell_errors(outcome: Outcome) -> None:
    click.echo("FAIL: too many errors")
    for message, count in outcome.errors.items():
        click.echo(f"FAIL: ERROR({message}) -> {count}")


def _load(loads: dict[str, Load], name: str) -> Load:
    found = loads.get(ALIASES.get(name, name))
    if found is None:
        raise CommandFailed(f"unknown load option {name}", BAD_FEATURE)
    return found


@contextlib.contextmanager
def _progress(load: Load) -> Iterator[Callable[[int, float], None]]:
    """A bar on stderr, where that is a terminal: of the seconds, or of the puts where their number is the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda puts, elapsed_s: None
        return
    with Progress(BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=load.puts or load.duration_s)
        yield lambda puts, elapsed_s: bar.update(task, completed=puts if load.puts else elapsed_s)


async def _memory(settings: Settings, when: str) -> float:
    """Of the process at the first endpoint, in bytes."""
    from kvstore.client.endpoints import parse_endpoints

    target = parse_endpoints(settings.endpoints[0])[0]
    url = f"{'https' if target.secure else 'http'}://{target.target}/metrics"
    try:
        text = await asyncio.to_thread(_fetch, url, settings)
        line = next(line for line in text.splitlines() if line.startswith(MEMORY_METRIC + " "))
        return float(line.split()[1])
    except (OSError, ValueError, urllib.error.URLError, StopIteration) as problem:
        why = str(problem) or f"no {MEMORY_METRIC} there"
        print(f"{url}: {why}", file=sys.stderr)
        click.echo(f"FAIL: Could not read {MEMORY_METRIC} {when} the put operations.")
        raise CommandFailed(None, ERROR) from None


def _fetch(url: str, settings: Settings) -> str:
    import ssl

    context = None
    if url.startswith("https:"):
        context = ssl.create_default_context(cafile=settings.cacert or None)
        if settings.insecure_skip_tls_verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key or None)
    with urllib.request.urlopen(url, timeout=settings.command_timeout_s, context=context) as answer:
        return str(answer.read().decode())
