"""kvctl endpoint status, health, hashkv; alarm list, disarm; defrag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from kvstore.cli.failures import ERROR, CommandFailed, bad_arguments
from kvstore.cli.member import members_of
from kvstore.cli.options import Noun, Settings, Verb

if TYPE_CHECKING:
    from kvstore.cli.output import EndpointHash, EndpointHealth, EndpointStatus
    from kvstore.client import Client
    from kvstore.client.endpoints import Endpoint
    from kvstore.pb import etcdserverpb_pb2 as pb

Result = TypeVar("Result")
CLUSTER = "kvctl.cluster"  # --cluster may also stand before the verb


@click.group("endpoint", cls=Noun)
@click.option("--cluster", is_flag=True, help="Every member of the cluster instead of --endpoints.")
@click.pass_context
def endpoint(context: click.Context, cluster: bool) -> None:
    """The servers named by --endpoints, one by one."""
    context.meta[CLUSTER] = cluster


@endpoint.command("status", cls=Verb, epilog="\b\nExample:\n  kvctl endpoint status --cluster -w table")
@click.argument("arguments", nargs=-1, metavar="")
@click.option("--cluster", is_flag=True, help="Every member of the cluster instead of --endpoints.")
@click.pass_obj
def status(settings: Settings, arguments: tuple[str, ...], cluster: bool) -> None:
    """Print the version, size, role and progress of each server."""
    printer = settings.printer(table=True, protobuf=False)
    from kvstore.cli.output import EndpointStatus
    from kvstore.cli.run import write
    from kvstore.client.methods import STATUS
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def ask(client: Client, target: Endpoint) -> EndpointStatus:
        return EndpointStatus(target.name, await client.caller.at(target, STATUS, pb.StatusRequest()))

    found, complete = _ask_each(settings, cluster, ask, "Failed to get the status of endpoint")
    write(printer.endpoint_status(found))
    if not complete:
        raise CommandFailed(None, ERROR)


@endpoint.command("hashkv", cls=Verb, epilog="\b\nExample:\n  kvctl endpoint hashkv --cluster")
@click.argument("arguments", nargs=-1, metavar="")
@click.option("--cluster", is_flag=True, help="Every member of the cluster instead of --endpoints.")
@click.option("--rev", type=int, default=0, help="History up to this revision.  [default: all]")
@click.pass_obj
def hashkv(settings: Settings, arguments: tuple[str, ...], cluster: bool, rev: int) -> None:
    """Print a hash of each server's history: members that agree print the same."""
    printer = settings.printer(table=True, protobuf=False)
    from kvstore.cli.output import EndpointHash
    from kvstore.cli.run import write
    from kvstore.client.methods import HASH_KV
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def ask(client: Client, target: Endpoint) -> EndpointHash:
        return EndpointHash(
            target.name, await client.caller.at(target, HASH_KV, pb.HashKVRequest(revision=rev))
        )

    found, complete = _ask_each(settings, cluster, ask, "Failed to get the hash of endpoint")
    write(printer.endpoint_hashkv(found))
    if not complete:
        raise CommandFailed(None, ERROR)


@endpoint.command("health", cls=Verb, epilog="\b\nExample:\n  kvctl endpoint health --cluster")
@click.argument("arguments", nargs=-1, metavar="")
@click.option("--cluster", is_flag=True, help="Every member of the cluster instead of --endpoints.")
@click.pass_obj
def health(settings: Settings, arguments: tuple[str, ...], cluster: bool) -> None:
    """Have each server answer a linearizable read. Exit status 1 if one does not."""
    printer = settings.printer(table=True, protobuf=False)
    from kvstore.cli.output import EndpointHealth
    from kvstore.cli.run import write
    from kvstore.client.errors import ClientError

    async def ask(client: Client, target: Endpoint) -> EndpointHealth:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            problem = await _problem(client, target)
        except ClientError as error:
            problem = _short(error, settings)
        return EndpointHealth(target.name, not problem, clock() - started, problem)

    found, _ = _ask_each(settings, cluster, ask, "")
    write(printer.endpoint_health(found))
    sick = [each for each in found if not each.healthy]
    if settings.write_out == "simple":
        for each in sick:
            click.echo(f"{each.endpoint} is unhealthy: failed to commit proposal: {each.error}", err=True)
    if sick:
        raise CommandFailed("unhealthy cluster")


@click.group("alarm", cls=Noun)
def alarm() -> None:
    """Alarms: a member out of space, or with damaged data."""


@alarm.command("list", cls=Verb, epilog="\b\nExample:\n  kvctl alarm list")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def alarm_list(settings: Settings, arguments: tuple[str, ...]) -> None:
    """List all alarms."""
    if arguments:
        raise bad_arguments("alarm list command accepts no arguments")
    printer = settings.printer()
    from kvstore.cli.run import with_client, write

    write(printer.alarms(with_client(settings, _alarms)))


@alarm.command("disarm", cls=Verb, epilog="\b\nExample:\n  kvctl alarm disarm")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def alarm_disarm(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Take back all alarms. Prints those there were."""
    if arguments:
        raise bad_arguments("alarm disarm command accepts no arguments")
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import ALARM
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> pb.AlarmResponse:
        disarmed = pb.AlarmResponse()
        for each in (await _alarms(client)).alarms:
            request = pb.AlarmRequest(
                action=pb.AlarmRequest.DEACTIVATE, memberID=each.memberID, alarm=each.alarm
            )
            disarmed.alarms.extend((await client.caller.write(ALARM, request)).alarms)
        return disarmed

    write(printer.alarms(with_client(settings, do)))


@click.command(
    "defrag", cls=Verb, epilog="\b\nExamples:\n  kvctl defrag\n  kvctl defrag --cluster --command-timeout 1m"
)
@click.argument("arguments", nargs=-1, metavar="")
@click.option("--cluster", is_flag=True, help="Every member of the cluster instead of --endpoints.")
@click.option("--data-dir", default="", hidden=True)
@click.pass_obj
def defrag(settings: Settings, arguments: tuple[str, ...], cluster: bool, data_dir: str) -> None:
    """Have the servers give back the space they do not use, one after another. etcd stands still meanwhile."""
    if data_dir:
        raise bad_arguments(
            "--data-dir is not supported: start the member and leave the flag out; for etcd's files there is "
            "etcdutl defrag"
        )
    from kvstore.cli.run import with_client
    from kvstore.client.errors import ClientError
    from kvstore.client.methods import DEFRAGMENT
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def one_by_one(client: Client) -> bool:
        complete = True
        for target in await _targets(client, cluster):
            try:
                await client.caller.at(target, DEFRAGMENT, pb.DefragmentRequest(), write=True)
            except ClientError as error:
                complete = False
                why = _short(error, settings)
                click.echo(f"Failed to defragment etcd member[{target.name}] ({why})", err=True)
            else:
                click.echo(f"Finished defragmenting etcd member[{target.name}]")
        return complete

    if not with_client(settings, one_by_one):
        raise CommandFailed(None, ERROR)


async def _alarms(client: Client) -> pb.AlarmResponse:
    from kvstore.client.methods import ALARM
    from kvstore.pb import etcdserverpb_pb2 as pb

    return await client.caller.read(ALARM, pb.AlarmRequest(action=pb.AlarmRequest.GET))


async def _problem(client: Client, target: Endpoint) -> str:
    """Empty when the server commits reads and has no alarm. A refusal for want of permission is an answer."""
    from kvstore.client.errors import PermissionDenied
    from kvstore.client.methods import ALARM, RANGE
    from kvstore.pb import etcdserverpb_pb2 as pb

    try:
        await client.caller.at(target, RANGE, pb.RangeRequest(key=b"health"))
        answer = await client.caller.at(target, ALARM, pb.AlarmRequest(action=pb.AlarmRequest.GET))
    except PermissionDenied:
        return ""
    names = "".join(f"{pb.AlarmType.Name(each.alarm)} " for each in answer.alarms)
    return f"Active Alarm(s): {names}" if names else ""


def _ask_each(
    settings: Settings,
    cluster: bool,
    ask: Callable[[Client, Endpoint], Awaitable[Result]],
    failing: str,
) -> tuple[list[Result], bool]:
    """Asks all servers at once. Returns the answers in the servers' order, and whether all answered; what
    the others did goes to stderr."""
    from kvstore.cli.run import with_client
    from kvstore.client.errors import ClientError

    everywhere = click.get_current_context().meta[CLUSTER]

    async def one(client: Client, target: Endpoint) -> Result | None:
        try:
            return await ask(client, target)
        except ClientError as error:
            click.echo(f"{failing} {target.name} ({_short(error, settings)})", err=True)
            return None

    async def all_(client: Client) -> list[Result | None]:
        targets = await _targets(client, cluster or everywhere)
        return await asyncio.gather(*(one(client, target) for target in targets))

    answers = with_client(settings, all_)
    found = [answer for answer in answers if answer is not None]
    return found, len(found) == len(answers)


async def _targets(client: Client, cluster: bool) -> Sequence[Endpoint]:
    """Those of --endpoints, or those of all members."""
    from kvstore.client.endpoints import parse_endpoints

    if not cluster:
        return client.caller.choice.endpoints
    members = (await members_of(client)).members
    return parse_endpoints([url for each in members for url in each.clientURLs])


def _short(error: Exception, settings: Settings) -> str:
    """Why one server of several did not answer; which one, the line says already."""
    from kvstore.client.errors import ClientError, RequestTimeout, Unreachable

    assert isinstance(error, ClientError)
    if isinstance(error, Unreachable) and error.by_tls:
        return "; ".join(error.reasons.values())
    if isinstance(error, RequestTimeout):
        return f"no answer within {settings.command_timeout_s:g} s"
    return error.message
