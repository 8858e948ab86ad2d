"""kvctl route: make a proxy agree, at every moment, with who is ready."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from kvstore.cli.announce import client_maker
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Duration, Noun, Settings
from kvstore.readiness import console
from kvstore.readiness.instance import InvalidInstance, check_name
from kvstore.routing.view import DEFAULT_KEEP_S

FIRST_LIST_S = 2.0


def _check_service(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return check_name("service", value)
    except InvalidInstance as problem:
        raise click.BadParameter(problem.reason) from None


def _common(command: Any) -> Any:
    for option in (
        click.option(
            "--service", required=True, callback=_check_service, help="Whose ready instances to route to."
        ),
        click.option(
            "--keep-empty",
            type=Duration(),
            default=DEFAULT_KEEP_S,
            show_default=f"{DEFAULT_KEEP_S:g}s",
            help="When two or more instances vanish in one moment and none is left, keep them this long; 0: never.",
        ),
    ):
        command = option(command)
    return command


@click.group("route", cls=Noun)
def route() -> None:
    """Keep a proxy in agreement with the instances that are ready.

    While the store cannot be reached, the proxy keeps the last known instances.
    """


@route.command(
    "builtin",
    epilog="\b\nExample:\n  kvctl route builtin --service web --listen 0.0.0.0:8000",
)
@_common
@click.option(
    "--listen", required=True, metavar="[HOST]:PORT", help="Without HOST: all addresses. Port 0: any."
)
@click.option(
    "--connect-timeout",
    type=Duration(),
    default="1s",
    show_default=True,
    help="For a connection to an instance; then another is tried.",
)
@click.option(
    "--timeout", type=Duration(), default="60s", show_default=True, help="Between two pieces of an answer."
)
@click.option(
    "--stop-timeout",
    type=Duration(),
    default="10s",
    show_default=True,
    help="How long requests on their way may take after SIGTERM.",
)
@click.pass_obj
def builtin(settings: Settings, /, **options: Any) -> int:
    """Be the proxy: HTTP/1.1, round robin, one process, no configuration."""
    host, _, port = options["listen"].rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{options['listen']!r} is not [HOST]:PORT", param_hint="'--listen'")
    console.configure(settings.debug)
    return asyncio.run(_route_builtin(settings, host.strip("[]"), int(port), options))


async def _route_builtin(settings: Settings, host: str, port: int, options: dict[str, Any]) -> int:
    from kvstore.routing.builtin import BuiltinProxy, Listener
    from kvstore.routing.upstreams import Timeouts

    proxy = BuiltinProxy(options["service"], Timeouts(options["connect_timeout"], options["timeout"]))
    listener = Listener(proxy, host or "0.0.0.0", port, options["stop_timeout"])

    async def run(stopped: asyncio.Event) -> int:
        try:
            await listener.start()
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise CommandFailed(f"cannot listen on {options['listen']}: {reason}") from None
        click.echo(f"listening on {listener.address}")
        await stopped.wait()
        return 0

    try:
        return await _follow(settings, options, proxy, run)
    finally:
        await listener.stop()


@route.command(
    "haproxy",
    epilog="\b\nExample:\n  kvctl route haproxy --service web --socket /run/haproxy/admin.sock --backend web\n\n"
    "HAProxy needs `stats socket PATH level admin` and a backend with a dynamic balance algorithm (roundrobin, "
    "leastconn, random); it may be empty.",
)
@_common
@click.option("--socket", "socket_path", required=True, metavar="PATH", help="HAProxy's stats socket.")
@click.option("--backend", required=True, help="The backend whose servers are ours to add and delete.")
@click.option(
    "--interval",
    type=Duration(),
    default="1s",
    show_default=True,
    help="Between two comparisons with HAProxy.",
)
@click.option(
    "--drain",
    type=Duration(),
    default="1s",
    show_default=True,
    help="How long requests on their way to an instance that has gone may still take.",
)
@click.option("--server-options", default="", help="Appended to `add server`, for example 'check inter 1s'.")
@click.pass_obj
def haproxy(settings: Settings, /, **options: Any) -> int:
    """Drive a running HAProxy (2.6 or later) over its runtime API, without a reload."""
    console.configure(settings.debug)
    return asyncio.run(_route_haproxy(settings, options))


async def _route_haproxy(settings: Settings, options: dict[str, Any]) -> int:
    from kvstore.routing.haproxy import HaproxyDriver, Settings

    driver = HaproxyDriver(
        Settings(
            socket_path=options["socket_path"],
            backend=options["backend"],
            interval_s=options["interval"],
            drain_s=options["drain"],
            server_options=options["server_options"],
        )
    )

    async def run(stopped: asyncio.Event) -> int:
        driving = asyncio.ensure_future(driver.run())
        waiting = asyncio.ensure_future(stopped.wait())
        await asyncio.wait([driving, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        driving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driving
        return 0

    return await _follow(settings, options, driver, run)


async def _follow(
    settings: Settings, options: dict[str, Any], driver: Any, run: Callable[[asyncio.Event], Awaitable[int]]
) -> int:
    """run begins when the driver has its first set, or when that takes too long; it ends with a signal."""
    from kvstore.routing.follow import Follower

    with _stop_signal() as stopped:
        try:
            async with client_maker(settings)() as client, asyncio.TaskGroup() as group:
                follower = Follower(client, options["service"], driver, keep_s=options["keep_empty"])
                following = group.create_task(follower.run(), name="follow")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_LIST_S):
                        await follower.listed.wait()
                status = await run(stopped)
                following.cancel()
        except* CommandFailed as failed:
            raise failed.exceptions[0] from None
        except* ValueError as problem:  # an endpoint that cannot be read
            raise CommandFailed(str(problem.exceptions[0])) from None
    return status


@contextmanager
def _stop_signal() -> Iterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
