"""kvctl route: make a proxy agree, at every moment, with who is ready. A command's module is imported when called."""

from __future__ import annotations

import importlib

import click

from kvstore.cli.options import Noun

MODULES = (
    "builtin",
    "dns",
    "haproxy",
    "template",
    "xds",
    "xds-bootstrap",
)  # below kvstore.cli.routes; the module's attribute is its name


class Routes(Noun):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in MODULES:
            return None
        name = cmd_name.replace("-", "_")
        found = getattr(importlib.import_module(f"kvstore.cli.routes.{name}"), name)
        assert isinstance(found, click.Command), f"no command {cmd_name}"
        return found


@click.group("route", cls=Routes)
def route() -> None:
    """Keep a proxy in agreement with the instances that are ready.

    While the store cannot be reached, the proxy keeps the last known instances.
    """
