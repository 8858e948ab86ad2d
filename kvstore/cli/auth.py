"""kvctl auth enable, disable, status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvstore.cli.failures import bad_arguments
from kvstore.cli.options import Noun, Settings, Verb

if TYPE_CHECKING:
    from kvstore.client import Client

ROOT_WITHOUT_ROLE = "etcdserver: root user does not have root role"


@click.group("auth", cls=Noun)
def auth() -> None:
    """Authentication: whether users must say who they are."""


ENABLE_EXAMPLE = """\b
Example: the first user must be root.
  kvctl user add root
  kvctl auth enable
  kvctl --user root get greeting"""


@auth.command("enable", cls=Verb, epilog=ENABLE_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def enable(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Ask everybody who they are from now on. A user root must exist; it is given the role root, which is
    made, if it has not got it."""
    if arguments:
        raise bad_arguments("auth enable command does not accept any arguments")
    from kvstore.cli.run import with_client, write
    from kvstore.client.errors import ClientError
    from kvstore.client.methods import AUTH_ENABLE, ROLE_ADD, USER_GRANT_ROLE
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def do(client: Client) -> None:
        call = client.caller.write
        try:
            await call(AUTH_ENABLE, pb.AuthEnableRequest())
        except ClientError as error:
            if error.message != ROOT_WITHOUT_ROLE:
                raise
            await call(ROLE_ADD, pb.AuthRoleAddRequest(name="root"))
            await call(USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user="root", role="root"))
            await call(AUTH_ENABLE, pb.AuthEnableRequest())

    with_client(settings, do)
    write(b"Authentication Enabled\n")


@auth.command("disable", cls=Verb, epilog="\b\nExample:\n  kvctl auth disable --user root")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def disable(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Let everybody do everything again. Users and roles stay."""
    if arguments:
        raise bad_arguments("auth disable command does not accept any arguments")
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import AUTH_DISABLE
    from kvstore.pb import etcdserverpb_pb2 as pb

    ask(settings, AUTH_DISABLE, pb.AuthDisableRequest())
    write(b"Authentication Disabled\n")


@auth.command("status", cls=Verb, epilog="\b\nExample:\n  kvctl auth status")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def status(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Print whether authentication is on, and how often users and roles have changed."""
    if arguments:
        raise bad_arguments("auth status command does not accept any arguments")
    printer = settings.printer(fields=False)
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import AUTH_STATUS
    from kvstore.pb import etcdserverpb_pb2 as pb

    found = ask(settings, AUTH_STATUS, pb.AuthStatusRequest(), write=False)
    enabled = "true" if found.enabled else "false"
    write(printer.reply(found, f"Authentication Status: {enabled}\nAuthRevision: {found.authRevision}"))
