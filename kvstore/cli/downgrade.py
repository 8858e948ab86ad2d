"""kvctl downgrade validate, enable, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.failures import bad_arguments
from kvstore.cli.options import Noun, Settings, Verb

if TYPE_CHECKING:
    from kvstore.pb import etcdserverpb_pb2 as pb


@click.group("downgrade", cls=Noun)
def downgrade() -> None:
    """Prepare a cluster for members of the minor version before."""


@downgrade.command("validate", cls=Verb, epilog="\b\nExample:\n  kvctl downgrade validate 3.5")
@click.argument("arguments", nargs=-1, metavar="VERSION")
@click.pass_obj
def validate(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Could the cluster be taken down to VERSION?"""
    _ask(settings, "VALIDATE", _version(arguments))


@downgrade.command("enable", cls=Verb, epilog="\b\nExample:\n  kvctl downgrade enable 3.5")
@click.argument("arguments", nargs=-1, metavar="VERSION")
@click.pass_obj
def enable(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Let members of VERSION join; then replace the members one by one."""
    _ask(settings, "ENABLE", _version(arguments))


@downgrade.command("cancel", cls=Verb, epilog="\b\nExample:\n  kvctl downgrade cancel")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def cancel(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Stay with the version the cluster has."""
    _ask(settings, "CANCEL", "")


def _ask(settings: Settings, action: Any, version: str) -> None:
    printer = settings.printer(fields=False)
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import DOWNGRADE
    from kvstore.pb import etcdserverpb_pb2 as pb

    request = pb.DowngradeRequest(action=action, version=version)
    response: pb.DowngradeResponse = ask(settings, DOWNGRADE, request)
    done = f"Downgrade {action.lower()} success, cluster version {response.version}"
    write(printer.reply(response, done))


def _version(arguments: tuple[str, ...]) -> str:
    if not arguments:
        raise bad_arguments("TARGET_VERSION not provided")
    if len(arguments) > 1:
        raise bad_arguments("too many arguments")
    if not arguments[0]:
        raise bad_arguments("target version not provided")
    return arguments[0]
