"""What the commands that announce have in common: their options, and where they find the store."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.options import Duration, Settings
from kvstore.readiness.health import Policy

if TYPE_CHECKING:
    from kvstore.client import Client

TTL_MIN_MS = 500  # the store's
JITTER = 0.1
HOLD_LONGEST_S = 300.0


def staying(command: Callable[..., Any]) -> Callable[..., Any]:
    """How long an instance stays, and what the store is told of it."""
    return _all(
        command,
        click.option(
            "--ttl", type=Duration(), default="2s", show_default=True, help="How long it stays if we vanish."
        ),
        click.option(
            "--grace",
            type=Duration(),
            default="500ms",
            show_default=True,
            help="How long it stays when our connection breaks; 0 to go at once.",
        ),
        click.option(
            "--show-unready",
            is_flag=True,
            help="Have the store show it as starting and failed too; proxies leave it alone then.",
        ),
    )


def checking(command: Callable[..., Any]) -> Callable[..., Any]:
    """How it is checked."""
    return _all(
        command,
        click.option(
            "--interval",
            type=Duration(),
            default="200ms",
            show_default=True,
            help="Between two checks, ±10 %.",
        ),
        click.option("--timeout", type=Duration(), default="1s", show_default=True, help="For one check."),
        click.option(
            "--rise", type=click.IntRange(1), default=1, show_default=True, help="Good checks until ready."
        ),
        click.option(
            "--fall", type=click.IntRange(1), default=2, show_default=True, help="Bad checks until withdrawn."
        ),
        click.option(
            "--flips",
            type=click.IntRange(0),
            default=5,
            show_default=True,
            help="More changes from ready to failed than these within --flip-window hold it withdrawn for a "
            "while; 0: any.",
        ),
        click.option("--flip-window", type=Duration(), default="60s", show_default=True, help="For --flips."),
        click.option(
            "--hold",
            type=Duration(),
            default="5s",
            show_default=True,
            help="How long it is held withdrawn first; twice as long each time it flips again, up to 5m.",
        ),
    )


def _all(command: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def policy_of(options: dict[str, Any]) -> Policy:
    return Policy(
        rise=options["rise"],
        fall=options["fall"],
        interval_s=options["interval"],
        jitter=JITTER,
        flips=options["flips"],
        flip_window_s=options["flip_window"],
        hold_s=options["hold"],
        hold_longest_s=max(HOLD_LONGEST_S, options["hold"]),
    )


def client_maker(settings: Settings) -> Callable[[], Client]:
    """Makes clients that begin at an endpoint of their own, so that many announcers and routers spread."""
    shuffled = random.sample(settings.endpoints, len(settings.endpoints))
    return replace(settings, endpoints=tuple(shuffled)).client


def local_host(endpoint: str) -> str:
    """The address this host uses to reach the endpoint. Nothing is sent."""
    host = endpoint.partition("://")[2] or endpoint
    name, _, port = host.split(",")[0].rpartition(":")
    family = socket.AF_INET6 if name.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((name.strip("[]") or "127.0.0.1", int(port)))
        found = str(probe.getsockname()[0])
    return f"[{found}]" if ":" in found else found


def full_address(address: str, endpoints: Sequence[str], option: str = "'--address'") -> str:
    """The address, with this host's own where it has none: the one that reaches the first endpoint whose name
    is known."""
    if not address.startswith(":"):
        return address
    problem: Exception = ValueError("no endpoints")
    for endpoint in endpoints:
        try:
            return local_host(endpoint) + address
        except (OSError, ValueError) as failure:
            problem = failure
    raise click.BadParameter(
        f"{address!r} has no host, and this host's own address is not known ({problem}); give HOST:PORT",
        param_hint=option,
    )
