"""kvctl member list, add, replace, promote, update, remove; kvctl move-leader."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from kvstore.cli.failures import BAD_FEATURE, CommandFailed, bad_arguments
from kvstore.cli.options import Noun, Settings, Verb, one_of

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.pb import etcdserverpb_pb2 as pb

REPLACED_LOOK_S = 0.2


@click.group("member", cls=Noun)
def member() -> None:
    """Members of the cluster."""


@member.command("list", cls=Verb, epilog="\b\nExample:\n  kvctl member list -w table")
@click.argument("arguments", nargs=-1, metavar="")
@click.option(
    "--consistency",
    default="l",
    metavar="l|s",
    shell_complete=one_of("l", "s"),
    help="Linearizable, or serializable (as the asked member knows it).",
)
@click.pass_obj
def member_list(settings: Settings, arguments: tuple[str, ...], consistency: str) -> None:
    """List the members: id, status, name, peer addresses, client addresses, is a learner."""
    if consistency not in ("l", "s"):
        raise CommandFailed(f'unknown consistency flag "{consistency}"', BAD_FEATURE)
    printer = settings.printer(table=True)
    from kvstore.cli.run import with_client, write

    async def read(client: Client) -> pb.MemberListResponse:
        return await members_of(client, linearizable=consistency == "l")

    write(printer.member_list(with_client(settings, read)))


ADD_EXAMPLE = """\b
Examples:
  # A member that votes as soon as it has caught up; then start it with the settings this prints:
  kvctl member add n4 --peer-urls=http://10.0.0.4:2380

  # A learner, which waits for `kvctl member promote`:
  kvctl member add n4 --peer-urls=http://10.0.0.4:2380 --learner"""


@member.command("add", cls=Verb, epilog=ADD_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="NAME")
@click.option("--peer-urls", default="", metavar="URL[,URL]", help="Where the other members reach it.")
@click.option("--learner", is_flag=True, help="Let it wait without a vote until it is promoted.")
@click.pass_obj
def member_add(settings: Settings, arguments: tuple[str, ...], peer_urls: str, learner: bool) -> None:
    """Add a member, and print the settings to start it with.

    Without --learner the leader gives it its vote by itself once it has caught up, so that no write ever waits for
    it. A server that is etcd gives it at once."""
    if not arguments:
        raise bad_arguments("member name not provided")
    if len(arguments) > 1:
        raise bad_arguments(TOO_MANY if "=" not in "".join(arguments[1:]) else TOO_MANY_OLD)
    urls = _urls(peer_urls)
    printer = settings.printer(fields=False)
    from kvstore.cli.run import with_client, write
    from kvstore.client.errors import ClientError
    from kvstore.client.methods import MEMBER_ADD, OWN_MEMBER_ADD
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> tuple[pb.MemberAddResponse, pb.MemberListResponse]:
        request = pb.MemberAddRequest(peerURLs=urls, isLearner=True)
        if learner:
            added = await client.caller.write(MEMBER_ADD, request)
        else:
            try:
                added = await client.caller.write(OWN_MEMBER_ADD, request, metadata=PROMOTE)
            except ClientError as error:
                if error.code.name != "UNIMPLEMENTED":
                    raise
                request.isLearner = False
                added = await client.caller.write(MEMBER_ADD, request)
        return added, await members_of(client)

    added, listed = with_client(settings, do)
    write(printer.member_change(added, _told(added.member.ID, "added to", added)))
    if settings.write_out == "simple":
        click.echo(_environment(arguments[0], added.member.ID, urls, listed))


TOO_MANY = "too many arguments"
TOO_MANY_OLD = "too many arguments, did you mean --peer-urls=URL?"
PROMOTE = (("kvstore-promote", "true"),)

REPLACE_EXAMPLE = """\b
Example:
  kvctl member replace 8211f1d0f64f3269 n4 --peer-urls=http://10.0.0.4:2380"""


@member.command("replace", cls=Verb, epilog=REPLACE_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="OLD-ID NAME")
@click.option(
    "--peer-urls", default="", metavar="URL[,URL]", help="Where the other members reach the new one."
)
@click.option(
    "--wait/--no-wait", default=None, help="Until it is done.  [default: wait where stdout is a terminal]"
)
@click.pass_obj
def member_replace(settings: Settings, arguments: tuple[str, ...], peer_urls: str, wait: bool | None) -> None:
    """Let a new member take another's place.

    It catches up without a vote; then both changes are made in one joint step, so that the number of votes never
    moves. The old one may be down. Not possible with a server that is etcd."""
    if len(arguments) != 2:
        raise bad_arguments("member replace needs the old member's ID and the new one's name")
    old, name = _id(arguments[0]), arguments[1]
    urls = _urls(peer_urls)
    printer = settings.printer(fields=False)
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import OWN_MEMBER_ADD
    from kvstore.pb import etcdserverpb_pb2 as pb

    waits = sys.stdout.isatty() if wait is None else wait

    async def do(client: Client) -> None:
        request = pb.MemberAddRequest(peerURLs=urls, isLearner=True)
        metadata = (*PROMOTE, ("kvstore-replaces", f"{old:x}"))
        added = await client.caller.write(OWN_MEMBER_ADD, request, metadata=metadata)
        listed = await members_of(client)
        write(printer.member_change(added, _told(added.member.ID, "added to", added)))
        if settings.write_out == "simple":
            click.echo(_environment(name, added.member.ID, urls, listed))
        if waits:
            click.echo("start it; waiting until it has taken the place", err=True)
            while any(  # noqa: ASYNC110 - the server sends no word of it
                each.ID == old for each in (await members_of(client)).members
            ):
                await asyncio.sleep(REPLACED_LOOK_S)
            click.echo(f"Member {old:x} replaced by {added.member.ID:x}", err=True)

    with_client(settings, do)


@member.command("remove", cls=Verb, epilog="\b\nExample:\n  kvctl member remove 8211f1d0f64f3269")
@click.argument("arguments", nargs=-1, metavar="ID")
@click.pass_obj
def member_remove(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Remove a member. It stops, and never comes back under its id."""
    if len(arguments) != 1:
        raise bad_arguments("member ID is not provided")
    member_id = _id(arguments[0])
    printer = settings.printer(fields=False)
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import MEMBER_REMOVE
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> pb.MemberRemoveResponse:
        return await client.caller.write(MEMBER_REMOVE, pb.MemberRemoveRequest(ID=member_id))

    removed = with_client(settings, do)
    write(printer.member_change(removed, _told(member_id, "removed from", removed)))


UPDATE_EXAMPLE = """\b
Example:
  kvctl member update 8211f1d0f64f3269 --peer-urls=http://10.0.0.9:2380"""


@member.command("update", cls=Verb, epilog=UPDATE_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="ID")
@click.option("--peer-urls", default="", metavar="URL[,URL]", help="Where the other members reach it now.")
@click.pass_obj
def member_update(settings: Settings, arguments: tuple[str, ...], peer_urls: str) -> None:
    """Tell the cluster where a member is reached."""
    if len(arguments) != 1:
        raise bad_arguments("member ID is not provided")
    member_id = _id(arguments[0])
    if not peer_urls:
        raise bad_arguments("member peer urls not provided")
    printer = settings.printer(fields=False)
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import MEMBER_UPDATE
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> pb.MemberUpdateResponse:
        request = pb.MemberUpdateRequest(ID=member_id, peerURLs=_urls(peer_urls))
        return await client.caller.write(MEMBER_UPDATE, request)

    updated = with_client(settings, do)
    write(printer.member_change(updated, _told(member_id, "updated in", updated)))


@member.command("promote", cls=Verb, epilog="\b\nExample:\n  kvctl member promote 8211f1d0f64f3269")
@click.argument("arguments", nargs=-1, metavar="ID")
@click.pass_obj
def member_promote(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Give a learner that has caught up its vote."""
    if len(arguments) != 1:
        raise bad_arguments("member ID is not provided")
    member_id = _id(arguments[0])
    printer = settings.printer(fields=False)
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import MEMBER_PROMOTE
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> pb.MemberPromoteResponse:
        return await client.caller.write(MEMBER_PROMOTE, pb.MemberPromoteRequest(ID=member_id))

    promoted = with_client(settings, do)
    write(printer.reply(promoted, _told(member_id, "promoted in", promoted)))


@click.command("move-leader", cls=Verb, epilog="\b\nExample:\n  kvctl move-leader 8211f1d0f64f3269")
@click.argument("arguments", nargs=-1, metavar="ID")
@click.pass_obj
def move_leader(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Hand leadership over to a member. The leader must be among --endpoints."""
    if len(arguments) != 1:
        raise bad_arguments("move-leader command needs 1 argument")
    target = _hexadecimal(arguments[0], "{}")
    printer = settings.printer(fields=False)
    from kvstore.cli.run import with_client, write
    from kvstore.client.errors import ClientError
    from kvstore.client.methods import MOVE_LEADER, STATUS
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> tuple[int, pb.MoveLeaderResponse]:
        for endpoint in client.caller.choice.endpoints:
            try:
                status = await client.caller.at(endpoint, STATUS, pb.StatusRequest())
            except ClientError:
                continue
            if status.leader and status.leader == status.header.member_id:
                request = pb.MoveLeaderRequest(targetID=target)
                return status.leader, await client.caller.at(endpoint, MOVE_LEADER, request, write=True)
        raise CommandFailed(f"no leader endpoint given at [{' '.join(settings.endpoints)}]")

    leader, moved = with_client(settings, do)
    write(printer.reply(moved, f"Leadership transferred from {leader:x} to {target:x}"))


async def members_of(client: Client, *, linearizable: bool = True) -> pb.MemberListResponse:
    from kvstore.client.methods import MEMBER_LIST
    from kvstore.pb import etcdserverpb_pb2 as pb

    request = pb.MemberListRequest(linearizable=linearizable)
    return await client.caller.read(MEMBER_LIST, request, leader=linearizable)


def _told(member_id: int, done: str, response: Any) -> str:
    """etcdctl pads ids with blanks."""
    return f"Member {member_id:16x} {done} cluster {response.header.cluster_id:16x}"


def _id(text: str) -> int:
    return _hexadecimal(text, "bad member ID arg ({}), expecting ID in Hex")


def _hexadecimal(text: str, told: str) -> int:
    """told: etcdctl's sentence around Go's."""
    try:
        return int(text, 16)
    except ValueError:
        raise bad_arguments(told.format(f'strconv.ParseUint: parsing "{text}": invalid syntax')) from None


def _urls(text: str) -> list[str]:
    if not text:
        raise bad_arguments("member peer urls not provided")
    urls = text.split(",")
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "unix", "unixs"):
            raise CommandFailed(f"URL scheme must be http, https, unix, or unixs: {url}")
        if ":" not in parts.netloc:
            raise CommandFailed(f'URL address does not have the form "host:port": {url}')
        if parts.path:
            raise CommandFailed(f"URL must not contain a path: {url}")
    return urls


def _environment(name: str, member_id: int, urls: list[str], listed: pb.MemberListResponse) -> str:
    """What the new member is started with."""
    cluster = [
        f"{name if each.ID == member_id else each.name}={url}"
        for each in listed.members
        for url in each.peerURLs
    ]
    return "\n".join(
        (
            "",
            f'ETCD_NAME="{name}"',
            f'ETCD_INITIAL_CLUSTER="{",".join(cluster)}"',
            f'ETCD_INITIAL_ADVERTISE_PEER_URLS="{",".join(urls)}"',
            'ETCD_INITIAL_CLUSTER_STATE="existing"',
        )
    )
