"""kvctl make-mirror: copies the keys of one cluster into another, and every change after that.

A revision of the source becomes one transaction at the destination, so that what changed together there changes
together here; only one with more operations than --max-txn-ops is cut. Everything written is a put of a value or
a delete, so a transaction whose outcome is unknown is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.failures import CommandFailed, bad_arguments
from kvstore.cli.kv import as_bytes
from kvstore.cli.options import NAMES, Settings, Verb

if TYPE_CHECKING:
    from kvstore.client import Client, Op
    from kvstore.client.results import Event, KeyValue

MAX_TXN_OPS = 128
MAX_TXN_BYTES = 1_000_000  # the server's limit for one request is 1.5 MiB
PAGE_KEYS = 1000
COUNT_INTERVAL_S = 30.0
RETRY_PAUSE_S = 1.0

EXAMPLE = """\b
Examples:
  kvctl make-mirror 10.1.0.1:2379
  kvctl make-mirror 10.1.0.1:2379 --prefix services/ --dest-prefix east/services/
  kvctl make-mirror 10.1.0.1:2379 --rev 1234         go on from there: what to give is said at the end

Prints how many keys it has copied, every 30 seconds."""


@dataclass(frozen=True)
class Names:
    """How a key of the source is called at the destination."""

    prefix: bytes
    dest_prefix: bytes

    def __call__(self, key: bytes) -> bytes:
        return self.dest_prefix + key[len(self.prefix) :]


# Of the flags common to all commands, those whose value at the destination is one of its own.
DEST_FLAGS = {
    "cacert": ("FILE", "Trust a destination certified by this CA."),
    "cert": ("FILE", "Certificate to show to the destination."),
    "key": ("FILE", "Private key of --dest-cert."),
    "user": ("NAME[:PASSWORD]", "Who to be at the destination; the password is asked for."),
    "password": ("PASSWORD", "That user's password; --dest-user is all name then."),
}
DEST_NAMES = [name for name in DEST_FLAGS if name in NAMES]


def destination_flags(command: Callable[..., None]) -> Callable[..., None]:
    for name in reversed(DEST_NAMES):
        metavar, text = DEST_FLAGS[name]
        command = click.option(f"--dest-{name}", default="", metavar=metavar, help=text)(command)
    return command


@click.command("make-mirror", cls=Verb, epilog=EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="DESTINATION")
@click.option("--prefix", default="", metavar="PREFIX", help="Only keys that begin with this.")
@click.option("--dest-prefix", default="", metavar="PREFIX", help="What PREFIX becomes.  [default: itself]")
@click.option("--no-dest-prefix", is_flag=True, help="PREFIX becomes nothing.")
@click.option("--rev", type=int, default=0, help="Only changes from this revision on; 0 copies all first.")
@click.option(
    "--max-txn-ops",
    type=click.IntRange(1),
    default=MAX_TXN_OPS,
    show_default=True,
    help="What the destination takes in one transaction.",
)
@destination_flags
@click.option(
    "--dest-insecure-transport",
    is_flag=True,
    flag_value=True,
    default=True,
    help="=false uses TLS also without any of these files, and without https:// before DESTINATION.",
)
@click.pass_obj
def make_mirror(settings: Settings, /, arguments: tuple[str, ...], **flags: Any) -> None:
    """Copy the keys of --endpoints into the cluster at DESTINATION (host:port, several with commas between), and
    follow their changes until stopped. What the destination has besides is left alone."""
    if len(arguments) != 1:
        raise bad_arguments("make-mirror takes one destination argument")
    if flags["dest_prefix"] and flags["no_dest_prefix"]:
        raise bad_arguments(
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one"
        )
    prefix = as_bytes(flags["prefix"])
    dest_prefix = b"" if flags["no_dest_prefix"] else as_bytes(flags["dest_prefix"]) or prefix
    scheme = "" if flags["dest_insecure_transport"] else "https://"
    destination = replace(
        settings,
        endpoints=tuple(word if "://" in word else scheme + word for word in arguments[0].split(",")),
        **{name: flags[f"dest_{name}"] for name in DEST_NAMES},
    )
    from kvstore.cli.run import with_client

    async def run(source: Client) -> None:
        async with destination.client() as target:
            mirror = Mirror(source, target, Names(prefix, dest_prefix), flags["max_txn_ops"], flags["rev"])
            await mirror.run_until_stopped()

    with_client(settings, run)


class Mirror:
    """next_revision: the first revision of the source that is not at the destination yet; 0 while the keys
    that were there at the start are being copied, which cannot be gone on with."""

    def __init__(
        self, source: Client, target: Client, names: Names, max_txn_ops: int, next_revision: int
    ) -> None:
        self.count = 0
        self.next_revision = next_revision
        self._source = source
        self._target = target
        self._names = names
        self._max_txn_ops = max_txn_ops

    async def run_until_stopped(self) -> None:
        """Returns on SIGINT and SIGTERM. Says on stderr where to go on, also when it fails."""
        from kvstore.cli.signals import stopping, until_any

        counting = asyncio.create_task(self._count())
        try:
            async with stopping() as stop:
                await until_any(self.run(), stop)
        finally:
            counting.cancel()
            if self.next_revision:
                click.echo(f"{self.count} keys; go on with --rev {self.next_revision}", err=True)

    async def run(self) -> None:
        await self._target.members()  # a wrong destination is no outage to wait out
        if not self.next_revision:
            self.next_revision = await self._copy()
        watch = self._source.watch(
            self._names.prefix or b"\0",
            prefix=bool(self._names.prefix),
            from_key=not self._names.prefix,
            start_revision=self.next_revision,
        )
        async with watch:
            async for batch in watch:
                for revision, events in by_revision(batch.events):
                    ops = [(self._op(event), _size(event.kv)) for event in events]
                    await self._write(ops)
                    self.next_revision = revision + 1
                self.next_revision = batch.revision + 1

    async def _copy(self) -> int:
        """Copies the keys as of one revision. Returns the one after it."""
        from kvstore.client.compare import Op, prefix_end

        prefix = self._names.prefix
        first = prefix or b"\0"
        end = prefix_end(prefix)
        revision = (await self._source.get(first)).revision
        while True:
            page = await self._source.get(first, range_end=end, revision=revision, limit=PAGE_KEYS)
            await self._write([(Op.put(self._names(kv.key), kv.value), _size(kv)) for kv in page.kvs])
            if not page.more:
                return revision + 1
            first = page.kvs[-1].key + b"\0"

    def _op(self, event: Event) -> Op:
        from kvstore.client.compare import Op

        key = self._names(event.kv.key)
        return Op.delete(key) if event.type == "DELETE" else Op.put(key, event.kv.value)

    async def _write(self, sized: Sequence[tuple[Op, int]]) -> None:
        from kvstore.client.compare import txn_request
        from kvstore.client.errors import ClientError
        from kvstore.client.methods import TXN

        for ops in in_parts(sized, self._max_txn_ops):
            request = txn_request((), ops, ())
            told = False
            while True:
                try:
                    await self._target.caller.read(TXN, request)  # repeatable, as reads are
                    break
                except ClientError as error:
                    if not error.elsewhere:
                        raise CommandFailed(f"destination: {error.message}") from None
                    if not told:
                        click.echo(f"the destination does not answer ({error.message}); trying on", err=True)
                        told = True
                await asyncio.sleep(RETRY_PAUSE_S)
            self.count += len(ops)

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(COUNT_INTERVAL_S)
            click.echo(self.count)


def by_revision(events: Sequence[Event]) -> Iterator[tuple[int, list[Event]]]:
    """The events in order, those of one revision together."""
    group: list[Event] = []
    for event in events:
        if group and event.kv.mod_revision != group[0].kv.mod_revision:
            yield group[0].kv.mod_revision, group
            group = []
        group.append(event)
    if group:
        yield group[0].kv.mod_revision, group


def in_parts(sized: Sequence[tuple[Op, int]], max_ops: int) -> Iterator[list[Op]]:
    """In order, each part as long as a transaction may be; one that is too large by itself goes alone."""
    part: list[Op] = []
    size = 0
    for op, op_bytes in sized:
        if part and (len(part) == max_ops or size + op_bytes > MAX_TXN_BYTES):
            yield part
            part, size = [], 0
        part.append(op)
        size += op_bytes
    if part:
        yield part


def _size(kv: KeyValue) -> int:
    return len(kv.key) + len(kv.value)
