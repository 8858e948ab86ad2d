"""kvctl route builtin: be the proxy."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Duration, Settings, Verb
from kvstore.cli.routes.shared import common, follow
from kvstore.readiness import console


@click.command(
    "builtin",
    cls=Verb,
    epilog="\b\nExample:\n  kvctl route builtin --service web --listen 0.0.0.0:8000",
)
@common
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
        return await follow(settings, options, proxy, run)
    finally:
        await listener.stop()
