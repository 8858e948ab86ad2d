"""kvctl role add, delete, get, list, grant-permission, revoke-permission."""

from __future__ import annotations

import click

from kvstore.cli.failures import CommandFailed, bad_arguments
from kvstore.cli.kv import as_bytes
from kvstore.cli.options import Noun, Settings, Verb

KINDS = ("READ", "WRITE", "READWRITE")


@click.group("role", cls=Noun)
def role() -> None:
    """Roles, and the keys they permit."""


@role.command("add", cls=Verb, epilog="\b\nExample:\n  kvctl role add reader")
@click.argument("arguments", nargs=-1, metavar="ROLE")
@click.pass_obj
def add(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Add a role, which permits nothing yet."""
    if len(arguments) != 1:
        raise bad_arguments("role add command requires role name as its argument")
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import ROLE_ADD
    from kvstore.pb import etcdserverpb_pb2 as pb

    response = ask(settings, ROLE_ADD, pb.AuthRoleAddRequest(name=arguments[0]))
    write(printer.reply(response, f"Role {arguments[0]} created"))


@role.command("delete", cls=Verb, epilog="\b\nExample:\n  kvctl role delete reader")
@click.argument("arguments", nargs=-1, metavar="ROLE")
@click.pass_obj
def delete(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Delete a role, and take it from all users."""
    if len(arguments) != 1:
        raise bad_arguments("role delete command requires role name as its argument")
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import ROLE_DELETE
    from kvstore.pb import etcdserverpb_pb2 as pb

    response = ask(settings, ROLE_DELETE, pb.AuthRoleDeleteRequest(role=arguments[0]))
    write(printer.reply(response, f"Role {arguments[0]} deleted"))


@role.command("get", cls=Verb, epilog="\b\nExample:\n  kvctl role get reader")
@click.argument("arguments", nargs=-1, metavar="ROLE")
@click.pass_obj
def get(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Print what a role permits."""
    if len(arguments) != 1:
        raise bad_arguments("role get command requires role name as its argument")
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import ROLE_GET
    from kvstore.pb import etcdserverpb_pb2 as pb

    found = ask(settings, ROLE_GET, pb.AuthRoleGetRequest(role=arguments[0]), write=False)
    write(printer.role(arguments[0], found))


@role.command("list", cls=Verb, epilog="\b\nExample:\n  kvctl role list")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def list_(settings: Settings, arguments: tuple[str, ...]) -> None:
    """List all roles."""
    if arguments:
        raise bad_arguments("role list command requires no arguments")
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import ROLE_LIST
    from kvstore.pb import etcdserverpb_pb2 as pb

    found = ask(settings, ROLE_LIST, pb.AuthRoleListRequest(), write=False)
    write(printer.names(found, found.roles))


GRANT_EXAMPLE = """\b
Examples:
  kvctl role grant-permission reader read services/ --prefix
  kvctl role grant-permission writer readwrite a c       keys from a up to, but not with, c"""


@role.command("grant-permission", cls=Verb, epilog=GRANT_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="ROLE read|write|readwrite KEY [RANGE_END]")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.pass_obj
def grant_permission(settings: Settings, arguments: tuple[str, ...], prefix: bool, from_key: bool) -> None:
    """Let a role read or write keys."""
    if len(arguments) < 3:
        raise bad_arguments(
            "role grant command requires role name, permission type, and key [endkey] as its argument"
        )
    name, kind = arguments[:2]
    if kind.upper() not in KINDS:
        raise bad_arguments(f"invalid permission type: {kind}")
    first, end = _keys(arguments[2:], prefix, from_key)
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import ROLE_GRANT_PERMISSION
    from kvstore.pb import authpb_pb2 as authpb
    from kvstore.pb import etcdserverpb_pb2 as pb

    permitted = authpb.Permission(permType=kind.upper(), key=first, range_end=end)
    request = pb.AuthRoleGrantPermissionRequest(name=name, perm=permitted)
    write(printer.reply(ask(settings, ROLE_GRANT_PERMISSION, request), f"Role {name} updated"))


@role.command(
    "revoke-permission",
    cls=Verb,
    epilog="\b\nExample:\n  kvctl role revoke-permission reader services/ --prefix",
)
@click.argument("arguments", nargs=-1, metavar="ROLE KEY [RANGE_END]")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.pass_obj
def revoke_permission(settings: Settings, arguments: tuple[str, ...], prefix: bool, from_key: bool) -> None:
    """Take back a permission, which is named by the keys it was granted for."""
    if len(arguments) < 2:
        raise bad_arguments(
            "role revoke-permission command requires role name and key [endkey] as its argument"
        )
    name = arguments[0]
    first, end = _keys(arguments[1:], prefix, from_key)
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import ROLE_REVOKE_PERMISSION
    from kvstore.pb import etcdserverpb_pb2 as pb

    request = pb.AuthRoleRevokePermissionRequest(role=name, key=first, range_end=end)
    response = ask(settings, ROLE_REVOKE_PERMISSION, request)
    if not end:
        what = f"key {arguments[1]}"
    elif end == b"\0":
        what = f"range [{arguments[1]}, <open ended>"
    else:
        what = f"range [{arguments[1]}, {end.decode('utf-8', 'surrogateescape')})"
    write(printer.reply(response, f"Permission of {what} is revoked from role {name}"))


def _keys(arguments: tuple[str, ...], prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """(key, range_end) as the protocol has them. Raises CommandFailed."""
    if prefix and from_key:
        raise bad_arguments("--from-key and --prefix flags are mutually exclusive")
    if len(arguments) > 1 and (prefix or from_key):
        flag = "--prefix" if prefix else "--from-key"
        raise bad_arguments(f"unexpected endkey argument with {flag} flag")
    if len(arguments) > 2:
        raise CommandFailed("too many arguments: expected a key, and at most one range end", status=128)
    from kvstore.client.compare import key_range

    end = as_bytes(arguments[1]) if len(arguments) == 2 else None
    return key_range(as_bytes(arguments[0]), range_end=end, prefix=prefix, from_key=from_key)
