"""kvctl user add, delete, get, list, passwd, grant-role, revoke-role."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

import click

from kvstore.cli.failures import bad_arguments
from kvstore.cli.options import Noun, Settings, Verb

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.pb import etcdserverpb_pb2 as pb


@click.group("user", cls=Noun)
def user() -> None:
    """Users, and the roles they have."""


ADD_EXAMPLE = """\b
Examples:
  kvctl user add alice                          asks for the password, twice
  kvctl user add alice --interactive=false < password
  kvctl user add alice --no-password            known by the name in a certificate"""


@user.command("add", cls=Verb, epilog=ADD_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="NAME[:PASSWORD]")
@click.option(
    "--interactive",
    is_flag=True,
    flag_value=True,
    default=True,
    help="Ask for the password; =false reads it from stdin without a word.",
)
@click.option(
    "--new-user-password", default="", metavar="PASSWORD", help="The password; NAME is all name then."
)
@click.option("--no-password", is_flag=True, help="A user that only a certificate can prove to be.")
@click.pass_obj
def add(
    settings: Settings,
    arguments: tuple[str, ...],
    interactive: bool,
    new_user_password: str,
    no_password: bool,
) -> None:
    """Add a user, who may do nothing until given a role."""
    if len(arguments) != 1:
        raise bad_arguments("user add command requires user name as its argument")
    name, password = arguments[0], ""
    printer = settings.printer()
    if not no_password:
        before, colon, after = name.partition(":")
        if new_user_password:
            password = new_user_password
        elif colon:
            if not before:
                raise bad_arguments("empty user name is not allowed")
            name, password = before, after
        else:
            password = new_password(name, interactive=interactive)
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import USER_ADD
    from kvstore.pb import authpb_pb2 as authpb
    from kvstore.pb import etcdserverpb_pb2 as pb

    options = authpb.UserAddOptions(no_password=no_password)
    request = pb.AuthUserAddRequest(name=name, password=password, options=options)
    write(printer.reply(ask(settings, USER_ADD, request), f"User {name} created"))


@user.command("delete", cls=Verb, epilog="\b\nExample:\n  kvctl user delete alice")
@click.argument("arguments", nargs=-1, metavar="NAME")
@click.pass_obj
def delete(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Delete a user."""
    if len(arguments) != 1:
        raise bad_arguments("user delete command requires user name as its argument")
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import USER_DELETE
    from kvstore.pb import etcdserverpb_pb2 as pb

    response = ask(settings, USER_DELETE, pb.AuthUserDeleteRequest(name=arguments[0]))
    write(printer.reply(response, f"User {arguments[0]} deleted"))


@user.command("get", cls=Verb, epilog="\b\nExample:\n  kvctl user get alice --detail")
@click.argument("arguments", nargs=-1, metavar="NAME")
@click.option("--detail", is_flag=True, help="What each of the roles permits.")
@click.pass_obj
def get(settings: Settings, arguments: tuple[str, ...], detail: bool) -> None:
    """Print the roles a user has."""
    if len(arguments) != 1:
        raise bad_arguments("user get command requires user name as its argument")
    name = arguments[0]
    printer = settings.printer(fields=detail)
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import ROLE_GET, USER_GET
    from kvstore.pb import etcdserverpb_pb2 as pb

    async def read(client: Client) -> tuple[pb.AuthUserGetResponse, list[pb.AuthRoleGetResponse]]:
        found = await client.caller.read(USER_GET, pb.AuthUserGetRequest(name=name))
        wanted = found.roles if detail else ()
        return found, [
            await client.caller.read(ROLE_GET, pb.AuthRoleGetRequest(role=role)) for role in wanted
        ]

    found, roles = with_client(settings, read)
    if not detail:
        write(printer.reply(found, f"User: {name}\nRoles:" + "".join(f" {role}" for role in found.roles)))
        return
    write(f"User: {name}\n".encode())
    for role, permitted in zip(found.roles, roles):
        write(b"\n" + printer.role(role, permitted))


@user.command("list", cls=Verb, epilog="\b\nExample:\n  kvctl user list")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def list_(settings: Settings, arguments: tuple[str, ...]) -> None:
    """List all users."""
    if arguments:
        raise bad_arguments("user list command requires no arguments")
    printer = settings.printer(fields=False)
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import USER_LIST
    from kvstore.pb import etcdserverpb_pb2 as pb

    found = ask(settings, USER_LIST, pb.AuthUserListRequest(), write=False)
    write(printer.names(found, found.users))


@user.command("passwd", cls=Verb, epilog="\b\nExample:\n  kvctl user passwd alice")
@click.argument("arguments", nargs=-1, metavar="NAME")
@click.option(
    "--interactive",
    is_flag=True,
    flag_value=True,
    default=True,
    help="Ask for the password; =false reads it from stdin without a word.",
)
@click.pass_obj
def passwd(settings: Settings, arguments: tuple[str, ...], interactive: bool) -> None:
    """Change a user's password."""
    if len(arguments) != 1:
        raise bad_arguments("user passwd command requires user name as its argument")
    printer = settings.printer()
    password = new_password(arguments[0], interactive=interactive)
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import USER_CHANGE_PASSWORD
    from kvstore.pb import etcdserverpb_pb2 as pb

    request = pb.AuthUserChangePasswordRequest(name=arguments[0], password=password)
    write(printer.reply(ask(settings, USER_CHANGE_PASSWORD, request), "Password updated"))


@user.command("grant-role", cls=Verb, epilog="\b\nExample:\n  kvctl user grant-role alice reader")
@click.argument("arguments", nargs=-1, metavar="NAME ROLE")
@click.pass_obj
def grant_role(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Give a user a role."""
    if len(arguments) != 2:
        raise bad_arguments("user grant command requires user name and role name as its argument")
    name, role = arguments
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import USER_GRANT_ROLE
    from kvstore.pb import etcdserverpb_pb2 as pb

    response = ask(settings, USER_GRANT_ROLE, pb.AuthUserGrantRoleRequest(user=name, role=role))
    write(printer.reply(response, f"Role {role} is granted to user {name}"))


@user.command("revoke-role", cls=Verb, epilog="\b\nExample:\n  kvctl user revoke-role alice reader")
@click.argument("arguments", nargs=-1, metavar="NAME ROLE")
@click.pass_obj
def revoke_role(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Take a role from a user."""
    if len(arguments) != 2:
        raise bad_arguments("user revoke-role requires user name and role name as its argument")
    name, role = arguments
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import USER_REVOKE_ROLE
    from kvstore.pb import etcdserverpb_pb2 as pb

    response = ask(settings, USER_REVOKE_ROLE, pb.AuthUserRevokeRoleRequest(name=name, role=role))
    write(printer.reply(response, f"Role {role} is revoked from user {name}"))


def new_password(name: str, *, interactive: bool) -> str:
    """Asked for twice, or the first line of stdin. An empty one is refused either way: what was meant to be
    piped in may just not have been there."""
    if not interactive:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise bad_arguments("empty password")
        return password
    password = ask_password(f"Password of {name}: ")
    if not password:
        raise bad_arguments("empty password")
    if ask_password(f"Type password of {name} again for confirmation: ") != password:
        raise bad_arguments("given passwords are different")
    return password


def ask_password(prompt: str) -> str:
    """From the terminal without showing it; where stdin is none, a line of it, so that a pipe can answer."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    click.echo(prompt, nl=False)
    line = sys.stdin.readline()
    click.echo()
    return line.rstrip("\r\n")
