"""What kvctl announce may be asked to write for Traefik."""

from __future__ import annotations

from typing import Any

import click

from kvstore.readiness.instance import Instance, check_name
from kvstore.readiness.traefik_schema import SCHEMES, Route


def traefik_options(command: Any) -> Any:
    rule = click.option(
        "--traefik",
        "traefik_rule",
        default="",
        metavar="RULE",
        help="Traefik routes what matches to the instance, through its etcd provider: 'Host(`web.example`)'.",
    )
    entrypoints = click.option(
        "--traefik-entrypoint",
        "traefik_entrypoints",
        multiple=True,
        metavar="NAME",
        help="Of Traefik; may be repeated.  [default: its default ones]",
    )
    return rule(entrypoints(command))


def route_of(instance: Instance, options: dict[str, Any]) -> Route | None:
    """None without --traefik. Raises UsageError, InvalidInstance."""
    rule, names = options["traefik_rule"].strip(), options["traefik_entrypoints"]
    if not rule:
        if names:
            raise click.UsageError("--traefik-entrypoint goes with --traefik RULE")
        return None
    if instance.protocol not in SCHEMES:
        raise click.UsageError(
            f"--traefik is for --protocol {', '.join(SCHEMES)}, not for {instance.protocol!r}"
        )
    return Route(rule, tuple(check_name("traefik-entrypoint", name) for name in names))
