"""kvctl watch."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.failures import INTERRUPTED, CommandFailed, bad_arguments
from kvstore.cli.kv import as_bytes
from kvstore.cli.options import Settings, Verb
from kvstore.cli.text import quote

if TYPE_CHECKING:
    from kvstore.cli.output import Printer
    from kvstore.client import Client, Watch, WatchBatch

LAST_COMMAND_S = 1.0
EXCLUSIVE = "`range_end` and `--prefix` are mutually exclusive"


class WatchVerb(Verb):
    """What follows -- is a command to run, flags and all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = list(args)
        split = words.index("--") if "--" in words else len(words)
        rest = super().parse_args(ctx, words[:split])
        ctx.params["command"] = tuple(words[split + 1 :])
        if split == len(words) - 1:
            raise bad_arguments("bad number of arguments (found separator --, but no commands)")
        return rest


@click.command(
    "watch",
    cls=WatchVerb,
    epilog="\b\nExamples:\n  kvctl watch greeting\n  kvctl watch services/ --prefix --rev 1200\n"
    "  kvctl watch config -- sh -c 'echo $ETCD_WATCH_VALUE'\n"
    "  kvctl watch -i                    then lines such as: watch services/ --prefix, and: progress\n\n"
    "The command after -- runs once for each event, with ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, "
    "ETCD_WATCH_KEY and ETCD_WATCH_VALUE (the last three quoted).",
)
@click.argument("arguments", nargs=-1, metavar="KEY [RANGE_END] [-- COMMAND...]")
@click.option("-i", "--interactive", is_flag=True, help="Read watches from stdin, one a line.")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--rev", type=int, default=0, help="From this revision on; the past is sent first.")
@click.option("--prev-kv", is_flag=True, help="Print the pair as it was before, too.")
@click.option("--progress-notify", is_flag=True, help="Print how far the watch is, when nothing happens.")
@click.pass_obj
def watch(settings: Settings, /, **flags: Any) -> None:
    """Print every change of KEY, or of the keys from KEY up to RANGE_END, until stopped. It goes on at
    another endpoint when the connection is lost, without losing or repeating a change."""
    if flags["interactive"]:
        _interactive(settings)
        return
    watched(flags["arguments"], flags["prefix"], os.environ)
    printer = settings.printer()
    from kvstore.cli.run import with_client

    async def run(client: Client) -> None:
        made = open_watch(client, flags)
        await follow(made, printer, flags["command"], progress=flags["progress_notify"])
        raise CommandFailed("watch is canceled by the server", INTERRUPTED)

    with_client(settings, run)


def _interactive(settings: Settings) -> None:
    printer = settings.printer()
    from kvstore.cli.run import with_client
    from kvstore.cli.watch_interactive import Session

    with_client(settings, lambda client: Session(client, printer, watch).run())


def open_watch(client: Client, flags: Mapping[str, Any]) -> Watch:
    """The watch that the command's flags describe. Nothing is sent yet."""
    key, range_end = watched(flags["arguments"], flags["prefix"], os.environ)
    return client.watch(
        key,
        range_end=range_end,
        prefix=flags["prefix"],
        start_revision=flags["rev"],
        prev_kv=flags["prev_kv"],
    )


def watched(
    arguments: tuple[str, ...], prefix: bool, environment: Mapping[str, str]
) -> tuple[bytes, bytes | None]:
    """(key, range_end), from the arguments or else from ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END."""
    named = environment.get("KVCTL_WATCH_KEY") or environment.get("ETCDCTL_WATCH_KEY")
    end = environment.get("KVCTL_WATCH_RANGE_END") or environment.get("ETCDCTL_WATCH_RANGE_END")
    if named:
        if arguments:
            raise bad_arguments("bad number of arguments (found conflicting environment key)")
        arguments = (named, end) if end else (named,)
    elif end:
        raise bad_arguments(f"ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={quote(end)}")
    if not 1 <= len(arguments) <= 2:
        raise bad_arguments("bad number of arguments")
    if len(arguments) == 2 and prefix:
        raise bad_arguments(EXCLUSIVE)
    return as_bytes(arguments[0]), as_bytes(arguments[1]) if len(arguments) == 2 else None


def event_environments(batch: WatchBatch) -> list[dict[str, str]]:
    """The variables for the command, one set an event."""
    return [
        {
            "ETCD_WATCH_REVISION": str(batch.header.revision),
            "ETCD_WATCH_EVENT_TYPE": quote(event.type),
            "ETCD_WATCH_KEY": quote(event.kv.key),
            "ETCD_WATCH_VALUE": quote(event.kv.value),
        }
        for event in batch.events
    ]


async def follow(made: Watch, printer: Printer, command: tuple[str, ...], *, progress: bool) -> None:
    """Prints the watch until the server ends it for good, and then why. Raises what else goes wrong."""
    from kvstore.cli.output import WatchEnd
    from kvstore.cli.run import write
    from kvstore.client.errors import Compacted, WatchCanceled

    try:
        async with made:
            async for batch in made:
                if batch.is_progress:
                    if not progress:
                        continue
                    write(b"progress notify: %d\n" % batch.revision)
                write(printer.watch(batch))
                if command:
                    await _run_command(command, batch)
    except (Compacted, WatchCanceled) as ended:
        click.echo(f"watch was canceled ({ended.message})", err=True)
        if isinstance(ended, Compacted):
            end = WatchEnd(ended.header, ended.compact_revision)
        else:
            end = WatchEnd(None if ended.refused else ended.header)
        write(printer.watch_end(end))


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Its exit status. Also who gives up waiting waits a moment: asyncio would complain of a child that ends after
    the loop."""
    ending = asyncio.ensure_future(process.wait())
    try:
        return await asyncio.shield(ending)
    except asyncio.CancelledError:
        await asyncio.wait({ending}, timeout=LAST_COMMAND_S)
        raise


async def _run_command(command: tuple[str, ...], batch: WatchBatch) -> None:
    """Runs to its end before the next event is read: a watch's commands never overlap, and keep its order."""
    named = "[" + " ".join(quote(word) for word in command) + "]"
    for variables in event_environments(batch):
        try:
            process = await asyncio.create_subprocess_exec(
                *command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL
            )
        except OSError as problem:
            text = f"exec: {quote(command[0])}: {problem.strerror}"
            print(f"command {named} error ({text})", file=sys.stderr)
            raise CommandFailed(None) from None
        status = await _ended(process)
        if status:
            ended = f"exit status {status}" if status > 0 else f"signal {-status}"
            print(f"command {named} error ({ended})", file=sys.stderr)
            raise CommandFailed(None)
