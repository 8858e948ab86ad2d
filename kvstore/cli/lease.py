"""kvctl lease grant, revoke, timetolive, list, keep-alive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from kvstore.cli.failures import BAD_CONNECTION, CommandFailed, bad_arguments
from kvstore.cli.options import Noun, Settings, Verb
from kvstore.cli.text import parse_int

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.pb import etcdserverpb_pb2 as pb


@click.group("lease", cls=Noun)
def lease() -> None:
    """Leases: keys that go when nobody keeps their lease alive. Lease ids are hexadecimal."""


@lease.command("grant", cls=Verb, epilog="\b\nExample:\n  kvctl lease grant 60")
@click.argument("arguments", nargs=-1, metavar="TTL")
@click.pass_obj
def grant(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Create a lease of TTL seconds."""
    if len(arguments) != 1:
        raise bad_arguments("lease grant command needs TTL argument")
    try:
        ttl_s = parse_int(arguments[0])
    except ValueError as problem:
        raise bad_arguments(f"bad TTL ({problem})") from None
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import LEASE_GRANT
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> pb.LeaseGrantResponse:
        return await client.caller.write(LEASE_GRANT, pb.LeaseGrantRequest(TTL=ttl_s))

    write(printer.lease_grant(with_client(settings, do, failing="failed to grant lease")))


@lease.command("revoke", cls=Verb, epilog="\b\nExample:\n  kvctl lease revoke 32695410dcc0ca06")
@click.argument("arguments", nargs=-1, metavar="ID")
@click.pass_obj
def revoke(settings: Settings, arguments: tuple[str, ...]) -> None:
    """End a lease, and delete its keys."""
    if len(arguments) != 1:
        raise bad_arguments("lease revoke command needs 1 argument")
    lease_id = _lease_id(arguments[0])
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import LEASE_REVOKE
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> pb.LeaseRevokeResponse:
        return await client.caller.write(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease_id))

    response = with_client(settings, do, failing="failed to revoke lease")
    write(printer.lease_revoke(lease_id, response))


@lease.command(
    "timetolive", cls=Verb, epilog="\b\nExample:\n  kvctl lease timetolive 32695410dcc0ca06 --keys"
)
@click.argument("arguments", nargs=-1, metavar="ID")
@click.option("--keys", is_flag=True, help="Its keys too.")
@click.pass_obj
def timetolive(settings: Settings, arguments: tuple[str, ...], keys: bool) -> None:
    """Print what is left of a lease."""
    if len(arguments) != 1:
        raise bad_arguments("lease timetolive command needs lease ID as argument")
    lease_id = _lease_id(arguments[0])
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import LEASE_TIME_TO_LIVE
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> pb.LeaseTimeToLiveResponse:
        request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        return await client.caller.read(LEASE_TIME_TO_LIVE, request)

    write(printer.lease_time_to_live(with_client(settings, do), keys=keys))


@lease.command("list", cls=Verb, epilog="\b\nExample:\n  kvctl lease list")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def list_(settings: Settings, arguments: tuple[str, ...]) -> None:
    """List all leases."""
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import LEASE_LEASES
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> pb.LeaseLeasesResponse:
        return await client.caller.read(LEASE_LEASES, pb.LeaseLeasesRequest())

    write(printer.lease_list(with_client(settings, do)))


@lease.command("keep-alive", cls=Verb, epilog="\b\nExample:\n  kvctl lease keep-alive 32695410dcc0ca06")
@click.argument("arguments", nargs=-1, metavar="ID")
@click.option("--once", is_flag=True, help="Renew it once and leave.")
@click.pass_obj
def keep_alive(settings: Settings, arguments: tuple[str, ...], once: bool) -> None:
    """Renew a lease every third of its time, until it is gone or this is stopped."""
    if len(arguments) != 1:
        raise bad_arguments("lease keep-alive command needs lease ID as argument")
    lease_id = _lease_id(arguments[0])
    printer = settings.printer()
    from kvstore.cli.run import explain, with_client, write
    from kvstore.client.errors import ClientError, LeaseNotFound
    from kvstore.client.lease import keep_alive_once

    async def renew(client: Client) -> None:
        while True:
            try:
                response = await keep_alive_once(client.caller, lease_id)
            except LeaseNotFound:
                if once:
                    raise
                write(printer.lease_lost(lease_id))
                return
            write(printer.lease_keep_alive(response))
            if once:
                return
            await asyncio.sleep(max(response.TTL / 3, 0.5))

    async def do(client: Client) -> None:
        try:
            await renew(client)
        except ClientError as error:
            raise CommandFailed(explain(error, settings), BAD_CONNECTION) from None

    with_client(settings, do)


def _lease_id(text: str) -> int:
    try:
        return parse_int(text, 16)
    except ValueError as problem:
        raise bad_arguments(f"bad lease ID arg ({problem}), expecting ID in Hex") from None
