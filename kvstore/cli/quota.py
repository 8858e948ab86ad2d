"""kvctl quota set, get, list, remove."""

from __future__ import annotations

import re

import click

from kvstore.cli.failures import bad_arguments
from kvstore.cli.kv import as_bytes
from kvstore.cli.options import Noun, Settings, Verb

_SIZE = re.compile(r"(\d+) *([kKMGT]i?)?B?")
_POWERS = "kMGT"
LIMIT_MAX = 2**63 - 1


@click.group("quota", cls=Noun)
def quota() -> None:
    """Quotas: how much may lie under a prefix, and how often it may be asked for."""


SET_EXAMPLE = """\b
Examples:
  kvctl quota set /team-a/ --bytes 64MiB --keys 10000 --qps 500
  kvctl quota set /team-a/ --qps none                    lifts this limit, and leaves the others"""


@quota.command("set", cls=Verb, epilog=SET_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="PREFIX")
@click.option("--bytes", "bytes_max", metavar="SIZE", help="Of keys and values: 1000, 10kB, 64MiB; or none.")
@click.option("--keys", "keys_max", metavar="COUNT", help="Keys, or none.")
@click.option("--qps", "qps_max", metavar="COUNT", help="Requests a second, all members together; or none.")
@click.pass_obj
def set_(
    settings: Settings,
    arguments: tuple[str, ...],
    bytes_max: str | None,
    keys_max: str | None,
    qps_max: str | None,
) -> None:
    """Limit what lies under PREFIX. What is not named stays as it is. Below what is there already is fine: it may
    shrink then, and not grow."""
    if len(arguments) != 1:
        raise bad_arguments("quota set command requires a prefix as its argument")
    given = {"bytes_max": bytes_max, "keys_max": keys_max, "qps_max": qps_max}
    if not any(given.values()):
        raise bad_arguments("quota set command requires --bytes, --keys or --qps")
    limits = {name: limit(name, text) for name, text in given.items() if text is not None}
    printer = settings.printer(table=True)
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import QUOTA_SET
    from kvstore.pb.quota_pb2 import QuotaSetRequest

    response = ask(settings, QUOTA_SET, QuotaSetRequest(prefix=as_bytes(arguments[0]), **limits))
    write(printer.quotas(response, [response.quota]))


@quota.command("get", cls=Verb, epilog="\b\nExample:\n  kvctl quota get /team-a/")
@click.argument("arguments", nargs=-1, metavar="PREFIX")
@click.pass_obj
def get(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Print the quota on PREFIX, and what lies under it now."""
    if len(arguments) != 1:
        raise bad_arguments("quota get command requires a prefix as its argument")
    printer = settings.printer(table=True)
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import QUOTA_GET
    from kvstore.pb.quota_pb2 import QuotaGetRequest

    response = ask(settings, QUOTA_GET, QuotaGetRequest(prefix=as_bytes(arguments[0])), write=False)
    write(printer.quotas(response, [response.quota]))


@quota.command("list", cls=Verb, epilog="\b\nExample:\n  kvctl quota list -w table")
@click.argument("arguments", nargs=-1, metavar="")
@click.pass_obj
def list_(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Print all quotas, and what lies under their prefixes now."""
    if arguments:
        raise bad_arguments("quota list command requires no arguments")
    printer = settings.printer(table=True)
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import QUOTA_LIST
    from kvstore.pb.quota_pb2 import QuotaListRequest

    response = ask(settings, QUOTA_LIST, QuotaListRequest(), write=False)
    write(printer.quotas(response, response.quotas))


@quota.command("remove", cls=Verb, epilog="\b\nExample:\n  kvctl quota remove /team-a/")
@click.argument("arguments", nargs=-1, metavar="PREFIX")
@click.pass_obj
def remove(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Lift the quota on PREFIX. The keys stay."""
    if len(arguments) != 1:
        raise bad_arguments("quota remove command requires a prefix as its argument")
    printer = settings.printer()
    from kvstore.cli.run import ask, write
    from kvstore.client.methods import QUOTA_REMOVE
    from kvstore.pb.quota_pb2 import QuotaRemoveRequest

    response = ask(settings, QUOTA_REMOVE, QuotaRemoveRequest(prefix=as_bytes(arguments[0])))
    write(printer.reply(response, f"Quota on {arguments[0]} removed"))


def limit(name: str, text: str) -> int:
    """0 for "none". Raises CommandFailed."""
    flag = "--" + name.removesuffix("_max")
    found = _SIZE.fullmatch(text.strip()) if name == "bytes_max" else re.fullmatch(r"(\d+)()", text.strip())
    if text.strip() == "none":
        return 0
    if found is None:
        example = "64MiB" if name == "bytes_max" else "500"
        raise bad_arguments(f"bad {flag} {text!r}: a number such as {example}, or none")
    unit = found[2] or ""
    base = 1024 if unit.endswith("i") else 1000
    number = int(found[1]) * (base ** (_POWERS.lower().index(unit[0].lower()) + 1) if unit else 1)
    if not 0 < number <= LIMIT_MAX:
        raise bad_arguments(f"bad {flag} {text!r}: at least 1; none lifts the limit")
    return number
