"""kvctl get, put, del, compaction."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from kvstore.cli.failures import BAD_FEATURE, CommandFailed, bad_arguments
from kvstore.cli.options import Settings, Verb, one_of
from kvstore.cli.text import parse_int

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.pb import etcdserverpb_pb2 as pb

SORT_TARGETS = {
    "": None,
    "CREATE": "create",
    "KEY": "key",
    "MODIFY": "mod",
    "VALUE": "value",
    "VERSION": "version",
}


@click.command(
    "get",
    cls=Verb,
    epilog="\b\nExamples:\n  kvctl get greeting\n  kvctl get services/ --prefix --keys-only\n"
    "  kvctl get a c                    all keys from a up to, but not with, c",
)
@click.argument("arguments", nargs=-1, metavar="KEY [RANGE_END]")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.option("--rev", type=int, default=0, help="Read as of this revision.")
@click.option("--limit", type=int, default=0, help="At most this many keys.")
@click.option(
    "--order",
    default="",
    metavar="ORDER",
    shell_complete=one_of("ASCEND", "DESCEND"),
    help="ASCEND or DESCEND.",
)
@click.option(
    "--sort-by",
    default="",
    metavar="TARGET",
    shell_complete=one_of("CREATE", "KEY", "MODIFY", "VALUE", "VERSION"),
    help="CREATE, KEY, MODIFY, VALUE or VERSION.",
)
@click.option("--keys-only", is_flag=True, help="Keys without their values.")
@click.option("--count-only", is_flag=True, help="Only how many there are (with -w fields).")
@click.option("--print-value-only", is_flag=True, help="Values without their keys (with -w simple).")
@click.option("--min-create-rev", type=int, default=0, help="Only keys created at this revision or later.")
@click.option("--max-create-rev", type=int, default=0, help="Only keys created at this revision or before.")
@click.option("--min-mod-rev", type=int, default=0, help="Only keys last written at this revision or later.")
@click.option("--max-mod-rev", type=int, default=0, help="Only keys last written at this revision or before.")
@click.option(
    "--consistency",
    default="l",
    metavar="l|s",
    shell_complete=one_of("l", "s"),
    help="Linearizable, or serializable (local).",
)
@click.pass_obj
def get(settings: Settings, /, **flags: Any) -> None:
    """Read KEY, or the keys from KEY up to RANGE_END."""
    request = range_request(**{name: flags[name] for name in GET_FLAGS})
    if flags["count_only"] and settings.write_out != "fields":
        raise bad_arguments("--count-only is only for `--write-out=fields`")
    values_only = flags["print_value_only"]
    if values_only and settings.write_out != "simple":
        raise bad_arguments("print-value-only is only for `--write-out=simple`")
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import RANGE

    async def read(client: Client) -> pb.RangeResponse:
        return await client.caller.read(RANGE, request, leader=not request.serializable)

    write(printer.get(with_client(settings, read), values_only=values_only))


@click.command(
    "put",
    cls=Verb,
    epilog="\b\nExamples:\n  kvctl put greeting hello\n  kvctl put config < config.json\n"
    "  kvctl put -- key -5               a value that begins with -",
)
@click.argument("arguments", nargs=-1, metavar="KEY [VALUE]")
@click.option("--lease", default="0", metavar="ID", help="Delete the key with this lease (hexadecimal).")
@click.option("--prev-kv", is_flag=True, help="Print the pair as it was before.")
@click.option("--ignore-value", is_flag=True, help="Keep the value the key has.")
@click.option("--ignore-lease", is_flag=True, help="Keep the lease the key has.")
@click.pass_obj
def put(settings: Settings, /, **flags: Any) -> None:
    """Write VALUE, or what is on stdin, to KEY."""
    request = put_request(**flags, standard_input=True)
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import PUT

    async def do(client: Client) -> pb.PutResponse:
        return await client.caller.write(PUT, request)

    write(printer.put(with_client(settings, do)))


@click.command(
    "del",
    cls=Verb,
    epilog="\b\nExamples:\n  kvctl del greeting\n  kvctl del services/web/ --prefix --prev-kv",
)
@click.argument("arguments", nargs=-1, metavar="KEY [RANGE_END]")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--from-key", is_flag=True, help="All keys from KEY on.")
@click.option("--prev-kv", is_flag=True, help="Print the pairs that were deleted.")
@click.pass_obj
def delete(settings: Settings, /, **flags: Any) -> None:
    """Delete KEY, or the keys from KEY up to RANGE_END. Prints how many there were."""
    request = delete_request(**flags)
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.client.methods import DELETE_RANGE

    async def do(client: Client) -> pb.DeleteRangeResponse:
        return await client.caller.write(DELETE_RANGE, request)

    write(printer.delete(with_client(settings, do)))


@click.command("compaction", cls=Verb, epilog="\b\nExample:\n  kvctl compaction 1234")
@click.argument("arguments", nargs=-1, metavar="REVISION")
@click.option("--physical", is_flag=True, help="Wait until the space is free.")
@click.pass_obj
def compaction(settings: Settings, arguments: tuple[str, ...], physical: bool) -> None:
    """Give up the history before REVISION."""
    if len(arguments) != 1:
        raise bad_arguments("compaction command needs 1 argument")
    try:
        revision = parse_int(arguments[0])
    except ValueError as problem:
        raise CommandFailed(str(problem)) from None
    from kvstore.cli.run import with_client, write

    with_client(settings, lambda client: client.compact(revision, physical))
    write(f"compacted revision {revision}\n".encode())


GET_FLAGS = (
    "arguments",
    "prefix",
    "from_key",
    "rev",
    "limit",
    "order",
    "sort_by",
    "keys_only",
    "count_only",
    "consistency",
    "min_create_rev",
    "max_create_rev",
    "min_mod_rev",
    "max_mod_rev",
)


def range_request(
    arguments: tuple[str, ...],
    prefix: bool,
    from_key: bool,
    rev: int,
    limit: int,
    order: str,
    sort_by: str,
    keys_only: bool,
    count_only: bool,
    consistency: str,
    min_create_rev: int,
    max_create_rev: int,
    min_mod_rev: int,
    max_mod_rev: int,
) -> pb.RangeRequest:
    """The request of a get on the command line or in a transaction. Raises CommandFailed."""
    first, range_end = _range("get", arguments, prefix, from_key)
    if consistency not in ("l", "s"):
        raise CommandFailed(f'unknown consistency flag "{consistency}"', BAD_FEATURE)
    if order.upper() not in ("", "ASCEND", "DESCEND"):
        raise CommandFailed(f"bad sort order {order}", BAD_FEATURE)
    if sort_by.upper() not in SORT_TARGETS:
        raise CommandFailed(f"bad sort target {sort_by}", BAD_FEATURE)
    if keys_only and count_only:
        raise bad_arguments("`--keys-only` and `--count-only` cannot be set at the same time, choose one")
    from kvstore.client.compare import range_request

    orders: dict[str, Literal["ascend", "descend"]] = {"ASCEND": "ascend", "DESCEND": "descend"}
    target: Any = SORT_TARGETS[sort_by.upper()]
    return range_request(
        first,
        range_end=range_end,
        prefix=prefix,
        from_key=from_key,
        revision=rev,
        limit=limit,
        serializable=consistency == "s",
        keys_only=keys_only,
        count_only=count_only,
        sort_order=orders.get(order.upper()),
        sort_target=target,
        min_create_revision=min_create_rev,
        max_create_revision=max_create_rev,
        min_mod_revision=min_mod_rev,
        max_mod_revision=max_mod_rev,
    )


def put_request(
    arguments: tuple[str, ...],
    lease: str,
    prev_kv: bool,
    ignore_value: bool,
    ignore_lease: bool,
    *,
    standard_input: bool,
) -> pb.PutRequest:
    """The request of a put. standard_input: it may give the value."""
    wrong = bad_arguments("put command needs 1 argument and input from stdin or 2 arguments")
    try:
        lease_id = parse_int(lease, 16)
    except ValueError as problem:
        raise bad_arguments(f"bad lease ID ({problem}), expecting ID in Hex") from None
    if not arguments:
        raise wrong
    if ignore_value and len(arguments) > 1:
        raise bad_arguments("put command needs only 1 argument when 'ignore-value' is set")
    value = b""
    if not ignore_value:
        if len(arguments) > 1:
            value = as_bytes(arguments[1])
        elif standard_input:
            value = sys.stdin.buffer.read()
        if len(arguments) == 1 and not value:
            raise wrong
    from kvstore.client.compare import put_request

    return put_request(
        as_bytes(arguments[0]),
        value,
        lease=lease_id,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )


def delete_request(
    arguments: tuple[str, ...], prefix: bool, from_key: bool, prev_kv: bool
) -> pb.DeleteRangeRequest:
    if len(arguments) > 2:
        raise bad_arguments("del command needs one argument as key and an optional argument as range_end")
    first, range_end = _range("del", arguments, prefix, from_key)
    from kvstore.client.compare import delete_request

    return delete_request(first, range_end=range_end, prefix=prefix, from_key=from_key, prev_kv=prev_kv)


def as_bytes(argument: str) -> bytes:
    """An argument as the shell gave it, also where it is not UTF-8."""
    return argument.encode("utf-8", "surrogateescape")


def _range(verb: str, arguments: tuple[str, ...], prefix: bool, from_key: bool) -> tuple[bytes, bytes | None]:
    if prefix and from_key:
        raise bad_arguments("`--prefix` and `--from-key` cannot be set at the same time, choose one")
    if not arguments:
        raise bad_arguments(f"{verb} command needs one argument as key and an optional argument as range_end")
    if len(arguments) > 1 and (prefix or from_key):
        raise bad_arguments(
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"
        )
    return as_bytes(arguments[0]), as_bytes(arguments[1]) if len(arguments) > 1 else None
