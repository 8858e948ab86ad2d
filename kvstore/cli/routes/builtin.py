"""kvctl route builtin: be the proxy."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from kvstore.cli import loop
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Duration, Settings, Verb
from kvstore.cli.routes.shared import follow_all, one_service
from kvstore.readiness import console


@click.command(
    "builtin",
    cls=Verb,
    epilog="\b\nExamples:\n"
    "  kvctl route builtin --service web --listen 0.0.0.0:8000\n"
    "  kvctl route builtin --service web --listen :443 --tls-cert web.pem --tls-key web.key\n"
    "  kvctl route builtin --service web --listen :8000 --balance least-requests --zone eu-1\n"
    "  kvctl route builtin --service web --listen :8000 --status-listen 127.0.0.1:8001\n\n"
    "Websockets are passed on. The guide: docs/route-builtin.md.",
)
@one_service
@click.option(
    "--listen", required=True, metavar="[HOST]:PORT", help="Without HOST: all addresses. Port 0: any."
)
@click.option("--tls-cert", metavar="FILE", help="Speak TLS (1.2 or newer) with this certificate chain, PEM.")
@click.option(
    "--tls-key", metavar="FILE", help="Its private key. Both are read again whenever they have changed."
)
@click.option(
    "--balance",
    type=click.Choice(["round-robin", "least-requests"]),
    default="round-robin",
    show_default=True,
    help="Both by the instances' weights. least-requests: the fewest in flight for its weight.",
)
@click.option(
    "--zone",
    default="",
    metavar="NAME",
    help="Prefer instances of this zone, while they weigh at least half of what a zone weighs on average.",
)
@click.option(
    "--connect-timeout",
    type=Duration(),
    default="1s",
    show_default=True,
    help="For a connection to an instance; then another is tried.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="60s",
    show_default=True,
    help="Between two pieces of a body, either way, and until an answer begins.",
)
@click.option(
    "--stop-timeout",
    type=Duration(),
    default="10s",
    show_default=True,
    help="How long requests on their way may take after SIGTERM. Websockets get 1001 then.",
)
@click.option(
    "--drain-limit",
    type=Duration(),
    default="60s",
    show_default=True,
    help="How long websockets to an instance that drains, or has gone, stay open.",
)
@click.option(
    "--eject-after",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Pass over an instance that failed N requests in a row (broken off, silent, 502, 503, 504); 0: never. "
    "One that takes no connection is passed over at once.",
)
@click.option(
    "--eject-time",
    type=Duration(),
    default="1s",
    show_default=True,
    help="For how long at first; doubles every time, up to 30 times it.",
)
@click.option(
    "--eject-share",
    type=click.IntRange(0, 100),
    default=50,
    show_default=True,
    metavar="PERCENT",
    help="Of the instances, at most, at a time; those that take no connection apart.",
)
@click.option(
    "--retry-share",
    type=click.IntRange(0, 100),
    default=20,
    show_default=True,
    metavar="PERCENT",
    help="Requests of the last 10 s that may be sent to another instance after a fault, on top of --retry-min.",
)
@click.option(
    "--retry-min",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    metavar="RATE",
    help="And so many a second.",
)
@click.option(
    "--trust",
    multiple=True,
    metavar="NETWORK",
    help="Believe X-Forwarded-* of proxies in this network, as 10.0.0.0/8; may be repeated. Else they are replaced.",
)
@click.option(
    "--max-header",
    type=click.IntRange(1024, 1024 * 1024),
    default=16384,
    show_default=True,
    metavar="BYTES",
    help="Of one header, and of the request line; longer: 400.",
)
@click.option(
    "--status-listen", metavar="[HOST]:PORT", help="Serve / (JSON), /metrics and /ready there. Port 0: any."
)
@click.pass_obj
def builtin(settings: Settings, /, **options: Any) -> int:
    """Be the proxy: HTTP/1.1 and websockets, with or without TLS, one process, no configuration."""
    host, port = _address("--listen", options["listen"])
    status = _address("--status-listen", options["status_listen"]) if options["status_listen"] else None
    if bool(options["tls_cert"]) != bool(options["tls_key"]):
        raise click.UsageError("--tls-cert and --tls-key belong together: give both or neither")
    for name in ("timeout", "connect_timeout"):
        if options[name] <= 0:
            raise click.BadParameter("more than 0", param_hint=f"'--{name.replace('_', '-')}'")
    console.configure(settings.debug)
    return loop.run(_route_builtin(settings, host, port, status, options))


def _address(option: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not [HOST]:PORT", param_hint=f"'{option}'")
    return host.strip("[]") or "0.0.0.0", int(port)


async def _route_builtin(
    settings: Settings, host: str, port: int, status_at: tuple[str, int] | None, options: dict[str, Any]
) -> int:
    from kvstore.routing.builtin import BuiltinProxy
    from kvstore.routing.certificates import CertificateError, Certificates
    from kvstore.routing.listener import Listener
    from kvstore.routing.status import Status

    try:
        pair = Certificates(options["tls_cert"], options["tls_key"]) if options["tls_cert"] else None
    except CertificateError as problem:
        raise CommandFailed(str(problem)) from None
    proxy = BuiltinProxy(options["service"], _options(options))
    tls = pair.context() if pair is not None else None
    listener = Listener(proxy, host, port, options["stop_timeout"], tls, options["max_header"])
    status = Status(proxy, *status_at) if status_at is not None else None

    async def run(stopped: asyncio.Event) -> int:
        if status is not None:
            await _start(status, options["status_listen"])
            click.echo(f"status on {status.address}")
        await _start(listener, options["listen"])
        click.echo(f"listening on {listener.address}")
        await stopped.wait()
        return 0

    try:
        drivers = {options["service"]: proxy}
        return await follow_all(settings, drivers, options["keep_empty"], run)
    finally:
        await listener.stop()
        if status is not None:
            await status.stop()


async def _start(what: Any, where: str) -> None:
    try:
        await what.start()
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise CommandFailed(f"cannot listen on {where}: {reason}") from None


def _options(options: dict[str, Any]) -> Any:
    from kvstore.routing.balance import Order
    from kvstore.routing.builtin import Options
    from kvstore.routing.ejection import Policy
    from kvstore.routing.headers import Trusted
    from kvstore.routing.retry import Budget
    from kvstore.routing.upstreams import Timeouts

    first_s = options["eject_time"]
    try:
        trusted = Trusted(options["trust"])
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="'--trust'") from None
    return Options(
        order=Order(options["balance"]),
        zone=options["zone"],
        timeouts=Timeouts(options["connect_timeout"], options["timeout"], options["drain_limit"]),
        ejection=Policy(options["eject_after"], first_s, 30 * first_s, options["eject_share"] / 100),
        budget=Budget(options["retry_share"] / 100, options["retry_min"]),
        trusted=trusted,
    )
