"""kvctl route dns: answer for a zone."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import click

from kvstore.cli import loop
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Settings, Verb
from kvstore.cli.routes.shared import follow_all, keep_empty, services
from kvstore.readiness import console

MISSING = "this needs dnspython: pip install 'kvstore[dns]'"


@click.command(
    "dns",
    cls=Verb,
    epilog="\b\nExamples:\n"
    "  kvctl route dns --service web --zone kv.internal --listen 127.0.0.1:5353\n"
    "  dig @127.0.0.1 -p 5353 web.kv.internal A\n"
    "  dig @127.0.0.1 -p 5353 _web._tcp.kv.internal SRV",
)
@services
@keep_empty
@click.option("--zone", required=True, metavar="NAME", help="Answered for: SERVICE.NAME and what is below.")
@click.option("--listen", required=True, metavar="HOST:PORT", help="UDP and TCP. Port 0: any.")
@click.option(
    "--ttl",
    type=click.IntRange(0, 3600),
    default=0,
    show_default=True,
    help="Seconds that others may remember an answer; 0: not at all.",
)
@click.pass_obj
def dns(settings: Settings, /, **options: Any) -> int:
    """Answer DNS: A, AAAA and SRV of the instances that are ready.

    Instances that drain are left out. While the store cannot be reached, the last known ones are answered.
    """
    host, _, port = options["listen"].rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{options['listen']!r} is not HOST:PORT", param_hint="'--listen'")
    console.configure(settings.debug)
    return loop.run(_route_dns(settings, host.strip("[]"), int(port), options))


async def _route_dns(settings: Settings, host: str, port: int, options: dict[str, Any]) -> int:
    try:
        from kvstore.routing.dns_zone import Zone
    except ImportError:
        raise CommandFailed(MISSING) from None
    from kvstore.routing.dns_server import DnsServer

    try:
        zone = Zone(options["zone"], options["service"], ttl_s=options["ttl"], random=random.SystemRandom())
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="'--zone'") from None
    server = DnsServer(lambda packet, tcp: zone.answer(packet, tcp=tcp), host, port)

    async def run(stopped: asyncio.Event) -> int:
        try:
            await server.start()
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise CommandFailed(f"cannot listen on {options['listen']}: {reason}") from None
        click.echo(f"listening on {server.address}")
        await stopped.wait()
        return 0

    drivers = {name: zone.services[name.lower()] for name in options["service"]}
    try:
        return await follow_all(settings, drivers, options["keep_empty"], run)
    finally:
        await server.stop()
