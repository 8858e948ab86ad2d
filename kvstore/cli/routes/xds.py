"""kvctl route xds: be the control plane of Envoy and of gRPC clients."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli import loop
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Settings, Verb
from kvstore.cli.routes.shared import follow_all, keep_empty, services
from kvstore.readiness import console

if TYPE_CHECKING:
    from kvstore.routing.xds.catalogue import Catalogue
    from kvstore.routing.xds.resources import Door
    from kvstore.routing.xds.server import Tls

MISSING = "this needs xds-protos: pip install 'kvstore[xds]'"
EPILOG = """\b
Examples:
  kvctl route xds --service web --listen 127.0.0.1:18000 --envoy-listener web=127.0.0.1:10000
  kvctl route xds-bootstrap envoy --server 127.0.0.1:18000 > envoy.json
  envoy -c envoy.json

\b
  kvctl route xds-bootstrap grpc --server 127.0.0.1:18000 > grpc.json
  GRPC_XDS_BOOTSTRAP=grpc.json ./client xds:///web

docs/route-envoy.md and docs/route-grpc.md have more."""

log = logging.getLogger("kvstore.routing.xds")


@click.command("xds", cls=Verb, epilog=EPILOG)
@services
@keep_empty
@click.option("--listen", required=True, metavar="HOST:PORT", help="For xDS clients. Port 0: any.")
@click.option(
    "--envoy-listener",
    "doors",
    multiple=True,
    metavar="SERVICE=[tcp://]HOST:PORT",
    help="Have every Envoy listen there for the service: HTTP, or with tcp:// whatever it is. May be repeated.",
)
@click.option(
    "--prefer-zone",
    is_flag=True,
    help="Clients that say their zone get the instances of that zone, and others when none is left there.",
)
@click.option("--cert-file", default="", metavar="FILE", help="Serve over TLS, with this certificate.")
@click.option("--key-file", default="", metavar="FILE", help="The private key of --cert-file.")
@click.option("--client-ca-file", default="", metavar="FILE", help="Clients need a certificate of this CA.")
@click.pass_obj
def xds(settings: Settings, /, **options: Any) -> int:
    """Tell Envoy and gRPC clients over xDS (ADS, also incremental) which instances are ready.

    Instances that drain keep their connections and get nothing new. While the store cannot be reached, clients keep
    the last known instances.
    """
    host, _, port = options["listen"].rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{options['listen']!r} is not HOST:PORT", param_hint="'--listen'")
    if bool(options["cert_file"]) != bool(options["key_file"]):
        raise click.UsageError("--cert-file and --key-file are given together, or neither")
    if options["client_ca_file"] and not options["cert_file"]:
        raise click.UsageError("--client-ca-file is for TLS: it needs --cert-file and --key-file")
    console.configure(settings.debug)
    return loop.run(_route_xds(settings, host.strip("[]"), int(port), options))


async def _route_xds(settings: Settings, host: str, port: int, options: dict[str, Any]) -> int:
    try:
        from kvstore.routing.xds.catalogue import Catalogue
    except ImportError:
        raise CommandFailed(MISSING) from None
    from kvstore.routing.xds.plane import Plane, ServiceDriver
    from kvstore.routing.xds.server import XdsServer

    names = list(dict.fromkeys(options["service"]))
    catalogue = Catalogue(names, _doors(options, names), prefers_zone=options["prefer_zone"])
    plane = Plane(catalogue)
    server = XdsServer(plane, host, port, _tls(options))

    async def run(stopped: asyncio.Event) -> int:
        _say_unlisted(catalogue)
        await stopped.wait()
        return 0

    drivers = {name: ServiceDriver(plane, name) for name in names}
    try:
        await server.start()  # before the store is asked: clients may come, and wait with us
    except OSError as problem:
        where = problem.filename or f"cannot listen on {options['listen']}"
        raise CommandFailed(f"{where}: {problem.strerror or problem}") from None
    click.echo(f"listening on {server.address}")
    try:
        return await follow_all(settings, drivers, options["keep_empty"], run)
    finally:
        await server.stop()
        await plane.close()


def _doors(options: dict[str, Any], services: list[str]) -> list[Door]:
    from kvstore.routing.xds.resources import parse_door

    found: dict[str, Door] = {}
    for text in options["doors"]:
        try:
            door = parse_door(text)
        except ValueError as problem:
            raise click.BadParameter(str(problem), param_hint="'--envoy-listener'") from None
        address = door.name.partition("@")[2]
        if door.service not in services:
            problem_text = f"{text!r}: there is no --service {door.service}"
            raise click.BadParameter(problem_text, param_hint="'--envoy-listener'")
        if address in found:
            problem_text = f"{text!r}: {address} is given to {found[address].service} already"
            raise click.BadParameter(problem_text, param_hint="'--envoy-listener'")
        found[address] = door
    return list(found.values())


def _tls(options: dict[str, Any]) -> Tls | None:
    from kvstore.routing.xds.server import Tls

    if not options["cert_file"]:
        return None
    return Tls(options["cert_file"], options["key_file"], options["client_ca_file"])


def _say_unlisted(catalogue: Catalogue) -> None:
    if catalogue.unlisted:
        log.warning(
            "nothing is known of %s yet: until it is, clients get no answer and keep what they have",
            ", ".join(catalogue.unlisted),
        )
