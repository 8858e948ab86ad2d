"""kvctl services: who is announced, and in which state; kvctl drain: take one out of the traffic for a while."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.failures import BAD_FEATURE, CommandFailed
from kvstore.cli.options import Duration, Noun, Settings, Verb
from kvstore.readiness.instance import (
    ROOT,
    Instance,
    InvalidInstance,
    check_name,
    drain_key,
    drain_order,
    id_from_key,
    prefix,
)
from kvstore.readiness.roster import Item, Roster

if TYPE_CHECKING:
    from rich.table import Table

    from kvstore.client import Client

COLUMNS = ("service", "instance", "address", "state", "for", "protocol", "weight", "zone", "tags")
COLOURS = {"ready": "green", "draining": "yellow", "starting": "cyan", "failed": "red"}
ABSENT = "to drain, not there"


class Services(Noun):
    """Without a verb it lists: what one wants nearly always."""

    def invoke(self, ctx: click.Context) -> Any:
        if not ctx._protected_args and not ctx.args:
            return show(ctx.obj, ROOT.encode())
        return super().invoke(ctx)


@click.group("services", cls=Services, epilog="\b\nExamples:\n  kvctl services\n  kvctl services watch web")
def services() -> None:
    """Show the instances that are announced. Without a verb: list."""


def _root(_: click.Context, __: click.Parameter, value: str | None) -> bytes:
    try:
        return prefix(value) if value is not None else ROOT.encode()
    except InvalidInstance as problem:
        raise click.BadParameter(problem.reason) from None


@services.command(
    "list", cls=Verb, epilog="\b\nExamples:\n  kvctl services list\n  kvctl services list web -w json"
)
@click.argument("root", metavar="[SERVICE]", required=False, callback=_root)
@click.pass_obj
def list_(settings: Settings, root: bytes) -> None:
    """List the instances, of one service or of all."""
    show(settings, root)


def show(settings: Settings, root: bytes) -> None:
    form = _form(settings)
    from kvstore.cli.run import with_client

    async def read(client: Client) -> Roster:
        return (await _load(client, root))[0]

    roster = with_client(settings, read)
    if form == "json":
        click.echo(json.dumps(_records(roster), ensure_ascii=False))
    else:
        _print(_table(roster))
    for key, reason in roster.refused.items():
        click.echo(f"{key.decode(errors='replace')} cannot be read: {reason}", err=True)


@services.command(
    "watch",
    cls=Verb,
    epilog="\b\nExamples:\n  kvctl services watch\n  kvctl services watch web | tee changes.log",
)
@click.argument("root", metavar="[SERVICE]", required=False, callback=_root)
@click.pass_obj
def watch(settings: Settings, root: bytes) -> None:
    """Follow the instances: a live table on a terminal, a line for each change elsewhere."""
    form = _form(settings)
    from kvstore.cli.run import with_client

    live = form == "table" and sys.stdout.isatty()

    async def follow(client: Client) -> None:
        if live:
            await _follow_table(client, root)
        else:
            await _follow_lines(client, root, form)

    with_client(settings, follow)


def _form(settings: Settings) -> str:
    if settings.write_out not in ("simple", "table", "json"):
        raise CommandFailed("services are shown as simple, table or json", BAD_FEATURE)
    return "json" if settings.write_out == "json" else "table"


async def _load(client: Client, root: bytes) -> tuple[Roster, int]:
    found = await client.get(root, prefix=True)
    roster = Roster()
    roster.replace(Item(kv.key, kv.value) for kv in found.kvs)
    return roster, found.revision


async def _follow(client: Client, root: bytes, tell: Callable[[Roster], None]) -> None:
    """tell() is called with the first list, and after every batch of changes. Ends by being cancelled."""
    from kvstore.client.errors import Compacted

    while True:
        roster, revision = await _load(client, root)
        tell(roster)
        try:
            async for batch in client.watch(root, prefix=True, start_revision=revision + 1):
                if batch.events:
                    roster.take(Item(e.kv.key, e.kv.value if e.type == "PUT" else None) for e in batch.events)
                    tell(roster)
        except Compacted:
            continue  # what it missed is in the next list


async def _follow_table(client: Client, root: bytes) -> None:
    from rich.live import Live

    with Live(auto_refresh=False) as screen:

        def tell(roster: Roster) -> None:
            screen.update(_table(roster), refresh=True)

        await _follow(client, root, tell)


async def _follow_lines(client: Client, root: bytes, form: str) -> None:
    known: dict[tuple[str, str], dict[str, Any]] = {}

    def tell(roster: Roster) -> None:
        now = {(record["service"], record["instance"]): record for record in _records(roster)}
        changed = [record for name, record in now.items() if known.get(name) != record]
        gone = [{**known[name], "state": "gone"} for name in known.keys() - now.keys()]
        for record in [*changed, *sorted(gone, key=_name)]:
            if form == "json":
                click.echo(json.dumps(record, ensure_ascii=False))
            else:
                moment = datetime.now(UTC).strftime("%H:%M:%S.%f")[:-3]
                click.echo(" ".join((moment, *_name(record), record["address"], record["state"])))
        known.clear()
        known.update(now)

    await _follow(client, root, tell)


def _name(record: dict[str, Any]) -> tuple[str, str]:
    return record["service"], record["instance"]


def _records(roster: Roster) -> list[dict[str, Any]]:
    """By service and instance; those that are to drain and not there, last."""
    found = [
        {
            "service": one.service,
            "instance": one.id,
            "address": one.address,
            "state": one.state.value,
            "since_ms": one.since_ms,
            "protocol": one.protocol,
            "weight": one.weight,
            "zone": one.zone,
            "tags": list(one.tags),
        }
        for _, one in roster
    ]
    absent = [
        {
            "service": key.split(b"/")[-2].decode(),
            "instance": id_from_key(key),
            "address": "",
            "state": ABSENT,
        }
        for key in roster.absent
    ]
    return [*sorted(found, key=_name), *absent]


def _table(roster: Roster) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS)
    for record in _records(roster):
        state = Text(record["state"], style=COLOURS.get(record["state"], ""))
        since = record.get("since_ms")
        table.add_row(
            *_name(record),
            record["address"],
            state,
            _age(time.time() - since / 1000) if since else "",
            record.get("protocol", ""),
            str(record.get("weight", "")),
            record.get("zone", ""),
            " ".join(record.get("tags", ())),
        )
    return table


def _age(seconds: float) -> str:
    """As people say it: the two largest units."""
    left = max(0, int(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"


def _print(table: Table) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table if table.row_count else "nothing is announced")


DRAIN_EXAMPLES = """\b
Examples:
  # Before working on a machine; requests under way are finished, nothing new comes:
  kvctl drain 10.0.0.5:8080

\b
  # For ten minutes, whatever happens; and back at once:
  kvctl drain web/10.0.0.5:8080 --for 10m
  kvctl drain web/10.0.0.5:8080 --undo"""


@click.command("drain", cls=Verb, epilog=DRAIN_EXAMPLES)
@click.argument("instance", metavar="[SERVICE/]INSTANCE")
@click.option("--undo", is_flag=True, help="Let it have traffic again.")
@click.option("--for", "for_s", type=Duration(), default=None, help="Until so much later, and not longer.")
@click.pass_obj
def drain(settings: Settings, instance: str, undo: bool, for_s: float | None) -> None:
    """Give an instance nothing new to do, until it is taken back.

    What it says of itself does not matter meanwhile, nor whether it is restarted. Proxies finish the requests it
    has.
    """
    from kvstore.cli.run import with_client

    if undo and for_s is not None:
        raise click.UsageError("--undo is at once: leave out --for")
    if for_s is not None and for_s < 1:
        raise click.BadParameter("at least 1s", param_hint="'--for'")

    async def do(client: Client) -> str:
        roster, _ = await _load(client, ROOT.encode())
        key = _find(instance, roster, undo)
        name = f"{key.split(b'/')[-2].decode()}/{id_from_key(key)}"
        if undo:
            result = await client.delete(drain_key(key))
            return f"{name}: traffic again" if result.deleted else f"{name}: was not to drain"
        lease = (await client.lease_grant(round(for_s))).id if for_s is not None else 0
        await client.put(drain_key(key), drain_order(time.time_ns() // 1_000_000), lease=lease)
        end = f" for {for_s:g}s" if for_s is not None else f", until: kvctl drain {name} --undo"
        return f"{name}: drains{end}"

    click.echo(with_client(settings, do))


def _find(wanted: str, roster: Roster, undo: bool) -> bytes:
    """The key of the instance that is meant. Raises CommandFailed with the way out."""
    name = wanted.rpartition("/")[2]
    try:
        check_name("instance", name)
    except InvalidInstance as problem:
        raise click.UsageError(str(problem)) from None
    found: list[bytes] = [*_keys_of(roster), *(roster.absent if undo else ())]
    end = f"/{wanted}".encode()
    meant = [key for key in found if key.endswith(end)]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise CommandFailed(f"no instance is called {wanted}; kvctl services shows those that are announced")
    names = " or ".join(key.decode().removeprefix(ROOT) for key in sorted(meant))
    raise CommandFailed(f"{wanted} is the name of {len(meant)} instances: say {names}")


def _keys_of(roster: Iterable[tuple[bytes, Instance]]) -> list[bytes]:
    return [key for key, _ in roster]
