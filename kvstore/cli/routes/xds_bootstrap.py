"""kvctl route xds-bootstrap: what an Envoy or a gRPC client has to be told so that it asks us for the rest."""

from __future__ import annotations

import json
import socket
from typing import Any

import click

from kvstore.cli.options import Settings, Verb
from kvstore.readiness.instance import InvalidInstance, split_address


def _check_address(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        if value:
            split_address(value)
    except InvalidInstance as problem:
        raise click.BadParameter(problem.reason) from None
    return value


def _check_addresses(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(_check_address(context, parameter, value) for value in values)


EPILOG = """\b
Examples:
  kvctl route xds-bootstrap envoy --server 127.0.0.1:18000 > envoy.json
  kvctl route xds-bootstrap grpc --server 10.0.0.1:18000 --server 10.0.0.2:18000 --zone a > grpc.json"""


@click.command("xds-bootstrap", cls=Verb, epilog=EPILOG)
@click.argument("client", type=click.Choice(["envoy", "grpc"]))
@click.option(
    "--server",
    "servers",
    required=True,
    multiple=True,
    callback=_check_addresses,
    metavar="HOST:PORT",
    help="Where kvctl route xds listens. With more than one, any of them will do.",
)
@click.option("--node-id", default="", help="What the client is called in logs.  [default: the host's name]")
@click.option("--zone", default="", help="Where it runs; what --prefer-zone goes by.")
@click.option("--delta", "is_delta", is_flag=True, help="Envoy: only changes (incremental xDS).")
@click.option(
    "--admin",
    default="",
    callback=_check_address,
    metavar="HOST:PORT",
    help="Envoy: where its administration is to listen.  [default: nowhere]",
)
@click.option(
    "--ca-file", default="", metavar="FILE", help="TLS to the control plane, whose certificate is of this CA."
)
@click.option("--cert-file", default="", metavar="FILE", help="Certificate to show to it.")
@click.option("--key-file", default="", metavar="FILE", help="The private key of --cert-file.")
@click.pass_obj
def xds_bootstrap(settings: Settings, /, client: str, **options: Any) -> int:
    """Print the bootstrap file of an Envoy or of gRPC clients that kvctl route xds is to serve."""
    from kvstore.routing.xds import bootstrap as made

    if bool(options["cert_file"]) != bool(options["key_file"]):
        raise click.UsageError("--cert-file and --key-file are given together, or neither")
    if options["cert_file"] and not options["ca_file"]:
        raise click.UsageError("--cert-file is for TLS: it needs --ca-file")
    if client == "grpc" and (options["is_delta"] or options["admin"]):
        raise click.UsageError("--delta and --admin are Envoy's")
    options["node_id"] = options["node_id"] or socket.gethostname()
    content = (made.envoy if client == "envoy" else made.grpc)(made.Client(**options))
    click.echo(json.dumps(content, indent=2))
    return 0
