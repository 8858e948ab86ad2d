"""kvctl lock and elect: the recipes of client/concurrency.py, so that they work with any server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import click

from kvstore.cli.failures import CommandFailed, bad_arguments
from kvstore.cli.options import Settings, Verb

if TYPE_CHECKING:
    from kvstore.cli.output import Printer
    from kvstore.cli.signals import Stop
    from kvstore.client import Client, LeaseSession
    from kvstore.client.concurrency import Turn

ELECTION_TTL_S = 60

LOCK_EXAMPLE = """\b
Examples:
  kvctl lock backup                             until it is stopped with Ctrl-C
  kvctl lock backup --ttl 30 -- ./backup --full

The command finds the lock's key in ETCD_LOCK_KEY and its revision in ETCD_LOCK_REV. Its exit status becomes ours."""


@click.command("lock", cls=Verb, epilog=LOCK_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="NAME [-- COMMAND...]")
@click.option(
    "--ttl", type=int, default=10, show_default=True, help="Seconds until others get it if we vanish."
)
@click.pass_obj
def lock(settings: Settings, arguments: tuple[str, ...], ttl: int) -> int:
    """Wait for the lock NAME. Hold it until stopped, or while COMMAND runs."""
    if not arguments:
        raise bad_arguments("lock takes a lock name argument and an optional command to execute")
    printer = settings.printer()
    from kvstore.cli.run import with_client

    async def hold(client: Client) -> int:
        from kvstore.cli.signals import stopping
        from kvstore.client.concurrency import Turn

        async with stopping() as stop, client.lease(ttl) as session:
            turn = Turn(client, as_name(arguments[0]), session.id)
            await _acquire(turn, session, stop, b"")
            if len(arguments) > 1:
                status = await _run(arguments[1:], turn, session, stop)
                await turn.release()
                return status
            await _show(client, turn, printer)
            await _hold(turn, session, stop)
            return 0

    return with_client(settings, hold)


ELECT_EXAMPLE = """\b
Examples:
  kvctl elect primary 10.0.0.5:5432     campaign with this value, and lead until stopped
  kvctl elect -l primary                print who leads, again with each change"""


@click.command("elect", cls=Verb, epilog=ELECT_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="NAME [VALUE]")
@click.option("-l", "--listen", is_flag=True, help="Watch the election instead of taking part.")
@click.pass_obj
def elect(settings: Settings, arguments: tuple[str, ...], listen: bool) -> None:
    """Take part in the election NAME, and lead it until stopped; or follow it."""
    if len(arguments) not in (1, 2):
        raise bad_arguments("elect takes one election name argument and an optional proposal argument")
    if len(arguments) == 1 and not listen:
        raise bad_arguments("no proposal argument but -l not set")
    if len(arguments) == 2 and listen:
        raise bad_arguments("proposal given but -l is set")
    printer = settings.printer()
    from kvstore.cli.run import with_client

    if listen:
        with_client(settings, lambda client: _observe(client, arguments[0], printer))
        return

    async def campaign(client: Client) -> None:
        from kvstore.cli.signals import stopping
        from kvstore.client.concurrency import Turn

        async with stopping() as stop, client.lease(ELECTION_TTL_S) as session:
            turn = Turn(client, as_name(arguments[0]), session.id)
            await _acquire(turn, session, stop, as_name(arguments[1]))
            await _show(client, turn, printer)
            await _hold(turn, session, stop)

    with_client(settings, campaign)


def as_name(argument: str) -> bytes:
    return argument.encode("utf-8", "surrogateescape")


async def _acquire(turn: Turn, session: LeaseSession, stop: asyncio.Event, value: bytes) -> None:
    from kvstore.cli.signals import until_any

    if not await until_any(turn.acquire(value), stop, session.lost):
        raise CommandFailed("stopped while waiting" if stop.is_set() else "session expired")


async def _show(client: Client, turn: Turn, printer: Printer) -> None:
    """Prints the key. That it is there says that the turn has not been lost on the way."""
    from kvstore.cli.run import write
    from kvstore.client.methods import RANGE
    from kvstore.pb import etcdserverpb_pb2 as pb

    found = await client.caller.read(RANGE, pb.RangeRequest(key=turn.key))
    if not found.kvs:
        raise CommandFailed("lock lost on init")
    write(printer.get(found))


async def _hold(turn: Turn, session: LeaseSession, stop: asyncio.Event) -> None:
    from kvstore.cli.signals import until_any

    await until_any(stop.wait(), session.lost)
    if not stop.is_set():
        raise CommandFailed("session expired")
    await turn.release()


async def _run(command: tuple[str, ...], turn: Turn, session: LeaseSession, stop: Stop) -> int:
    """Runs the command with the lock's variables and returns its exit status; a signal to stop is passed on. A
    lock that is lost meanwhile is told of, and no more: only the command knows what is safe then."""
    variables = {"ETCD_LOCK_KEY": os.fsdecode(turn.key), "ETCD_LOCK_REV": str(turn.header.revision)}
    try:
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **variables})
    except OSError as problem:
        await turn.release()
        raise CommandFailed(f"{command[0]}: {problem.strerror}") from None

    async def pass_on() -> None:
        await stop.wait()
        if (
            stop.received is signal.SIGTERM
        ):  # SIGINT comes from a terminal, which has sent it to the command too
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def tell() -> None:
        await session.lost.wait()
        click.echo("the lock is lost: its session expired; the command still runs", err=True)

    helpers = [asyncio.create_task(pass_on()), asyncio.create_task(tell())]
    try:
        status = await process.wait()
    finally:
        for helper in helpers:
            helper.cancel()
    if status:
        click.echo(f"Error: {'exit status' if status > 0 else 'signal'} {abs(status)}", err=True)
    return status if status >= 0 else 128 - status


async def _observe(client: Client, name: str, printer: Printer) -> None:
    from kvstore.cli.output.as_protobuf import header_message, key_value_message
    from kvstore.cli.run import write
    from kvstore.cli.signals import stopping, until_any
    from kvstore.client.concurrency import observe
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def follow() -> None:
        async for header, holder in observe(client, as_name(name)):
            shown = pb.RangeResponse(header=header_message(header), kvs=[key_value_message(holder)])
            write(printer.get(shown))

    async with stopping() as stop:
        await until_any(follow(), stop)
