"""What the commands of `kvctl route` have in common: whose instances, following the store, and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from kvstore.cli.announce_options import client_maker
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Duration, Settings
from kvstore.readiness.instance import InvalidInstance, check_name
from kvstore.routing.view import DEFAULT_KEEP_S

FIRST_LIST_S = 2.0


def _check_service(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return check_name("service", value)
    except InvalidInstance as problem:
        raise click.BadParameter(problem.reason) from None


def _check_services(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(_check_service(context, parameter, value) for value in values)


keep_empty = click.option(
    "--keep-empty",
    type=Duration(),
    default=DEFAULT_KEEP_S,
    show_default=f"{DEFAULT_KEEP_S:g}s",
    help="When two or more instances vanish in one moment and none is left, keep them this long; 0: never.",
)
services = click.option(
    "--service",
    required=True,
    multiple=True,
    callback=_check_services,
    help="Whose ready instances to route to; may be repeated.",
)


zone = click.option(
    "--zone",
    default="",
    help="Route to instances of this zone alone, while any of it is ready.  [default: all]",
)


def one_service(command: Any) -> Any:
    one = click.option(
        "--service", required=True, callback=_check_service, help="Whose ready instances to route to."
    )
    return keep_empty(one(command))


def common(command: Any) -> Any:
    return one_service(zone(command))


async def follow(
    settings: Settings, options: dict[str, Any], driver: Any, run: Callable[[asyncio.Event], Awaitable[int]]
) -> int:
    """run begins when the driver has its first set, or when that takes too long; it ends with a signal."""
    from kvstore.routing.zones import Zoned

    if options["zone"]:
        driver = Zoned(driver, options["zone"])
    return await follow_all(settings, {options["service"]: driver}, options["keep_empty"], run)


async def drive(settings: Settings, options: dict[str, Any], driver: Any) -> int:
    """As follow, for a driver with a run() of its own that goes on until it is cancelled."""

    async def run(stopped: asyncio.Event) -> int:
        driving = asyncio.ensure_future(driver.run())
        waiting = asyncio.ensure_future(stopped.wait())
        await asyncio.wait([driving, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        driving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await driving
        return 0

    return await follow(settings, options, driver, run)


async def follow_all(
    settings: Settings,
    drivers: Mapping[str, Any],
    keep_s: float,
    run: Callable[[asyncio.Event], Awaitable[int]],
) -> int:
    """The same for several services, each with its driver."""
    from kvstore.routing.follow import Follower

    with stop_signal() as stopped:
        try:
            async with client_maker(settings)() as client, asyncio.TaskGroup() as group:
                followers = [
                    Follower(client, name, driver, keep_s=keep_s) for name, driver in drivers.items()
                ]
                following = [group.create_task(each.run(), name="follow") for each in followers]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_LIST_S):
                        for follower in followers:
                            await follower.listed.wait()
                status = await run(stopped)
                for task in following:
                    task.cancel()
        except* CommandFailed as failed:
            raise failed.exceptions[0] from None
        except* ValueError as problem:  # an endpoint that cannot be read
            raise CommandFailed(str(problem.exceptions[0])) from None
    return status


@contextmanager
def stop_signal() -> Iterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
