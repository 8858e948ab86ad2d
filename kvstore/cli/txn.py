"""kvctl txn."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import click

from kvstore.cli.failures import bad_arguments
from kvstore.cli.options import Settings, Verb

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.pb import etcdserverpb_pb2 as pb


@click.command(
    "txn",
    cls=Verb,
    epilog="\b\nExample: create a key, or read it if it is there.\n"
    "  kvctl txn <<'END'\n"
    '  version("greeting") = "0"\n'
    "\n\b\n"
    "  put greeting hello\n"
    "\n\b\n"
    "  get greeting\n"
    "\n\b\n"
    "  END",
)
@click.argument("arguments", nargs=-1, metavar="")
@click.option("-i", "--interactive", is_flag=True, help="Say which block is to come.")
@click.pass_obj
def txn(settings: Settings, arguments: tuple[str, ...], interactive: bool) -> None:
    """Read comparisons, operations for when they hold, and operations for when they do not, from stdin, each
    block ended by a blank line; and do them as one."""
    if arguments:
        raise bad_arguments("txn command does not accept argument")
    printer = settings.printer()
    from kvstore.cli.run import with_client, write
    from kvstore.cli.txn_parser import read_txn
    from kvstore.client.compare import is_read_only
    from kvstore.client.methods import TXN

    lines = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="surrogateescape", newline="\n")
    try:
        request = read_txn(iter(lines.readline, ""), click.echo if interactive else lambda text: None)
    finally:
        lines.detach()

    async def do(client: Client) -> pb.TxnResponse:
        call = client.caller.read if is_read_only(request) else client.caller.write
        return await call(TXN, request)

    write(printer.txn(with_client(settings, do)))
