"""kvctl route haproxy: drive a running HAProxy."""

from __future__ import annotations

from typing import Any

import click

from kvstore.cli import loop
from kvstore.cli.options import Duration, Settings, Verb
from kvstore.cli.routes.shared import common, drive
from kvstore.readiness import console


@click.command(
    "haproxy",
    cls=Verb,
    epilog="\b\nExample:\n  kvctl route haproxy --service web --socket /run/haproxy/admin.sock --backend web\n\n"
    "HAProxy needs `stats socket PATH level admin` and a backend with a dynamic balance algorithm (roundrobin, "
    "leastconn, random). The backend may be empty: servers are added as they are needed. Or it sets some aside, "
    "which are used first: `server-template kv 1-20 0.0.0.0:0 disabled`.",
)
@common
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
@click.option(
    "--slots",
    metavar="PREFIX",
    default="kv",
    show_default=True,
    help="Servers of the configuration with this name and a number are used first: `server-template`.",
)
@click.pass_obj
def haproxy(settings: Settings, /, **options: Any) -> int:
    """Drive a running HAProxy (2.6 or later) over its runtime API, without a reload."""
    console.configure(settings.debug)
    return loop.run(_route_haproxy(settings, options))


async def _route_haproxy(settings: Settings, options: dict[str, Any]) -> int:
    from kvstore.routing.haproxy import HaproxyDriver, Settings

    driver = HaproxyDriver(
        Settings(
            socket_path=options["socket_path"],
            backend=options["backend"],
            interval_s=options["interval"],
            drain_s=options["drain"],
            server_options=options["server_options"],
            slots=options["slots"],
        )
    )
    return await drive(settings, options, driver)
