"""kvctl route caddy: drive a running Caddy."""

from __future__ import annotations

import re
from typing import Any

import click

from kvstore.cli import loop
from kvstore.cli.options import Duration, Settings, Verb
from kvstore.cli.routes.shared import common, drive
from kvstore.readiness import console


@click.command(
    "caddy",
    cls=Verb,
    epilog="\b\nExamples:\n"
    "  kvctl route caddy --service web --admin http://127.0.0.1:2019 --id web-upstreams\n"
    "  kvctl route caddy --service web --admin unix:///run/caddy/admin.sock --id web-upstreams\n\n"
    'Caddy\'s configuration needs `"@id": "web-upstreams"` in the reverse_proxy handler whose upstreams are ours. '
    "A Caddyfile has no word for it: `caddy adapt` makes JSON of one.",
)
@common
@click.option(
    "--admin",
    default="http://127.0.0.1:2019",
    show_default=True,
    metavar="URL",
    help="Caddy's admin address: http://HOST:PORT or unix:///PATH.",
)
@click.option(
    "--id", "name", required=True, metavar="NAME", help='"@id" of the reverse_proxy whose upstreams are ours.'
)
@click.option(
    "--interval",
    type=Duration(),
    default="250ms",
    show_default=True,
    help="Between two comparisons with Caddy.",
)
@click.pass_obj
def caddy(settings: Settings, /, **options: Any) -> int:
    """Drive a running Caddy 2 through its admin API, without a reload.

    Caddy has no weights here: all that are ready get the same, and those of weight 0 nothing.
    """
    if not re.fullmatch(r"https?://[^/\s]+/?|unix:///\S+", options["admin"]):
        raise click.BadParameter(
            f"{options['admin']!r} is not http://HOST:PORT or unix:///PATH", param_hint="'--admin'"
        )
    if not re.fullmatch(r"[A-Za-z0-9._~-]+", options["name"]):
        raise click.BadParameter(
            f"{options['name']!r}: letters, digits, '.', '_', '~' and '-' only", param_hint="'--id'"
        )
    console.configure(settings.debug)
    return loop.run(_route_caddy(settings, options))


async def _route_caddy(settings: Settings, options: dict[str, Any]) -> int:
    from kvstore.routing import caddy as routing

    driver = routing.CaddyDriver(
        routing.Settings(admin=options["admin"], name=options["name"], interval_s=options["interval"])
    )
    return await drive(settings, options, driver)
