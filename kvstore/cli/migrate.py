"""kvctl migrate: move in from etcd, out of a snapshot or out of a running cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.failures import BAD_FEATURE, CommandFailed, bad_arguments
from kvstore.cli.options import Settings, Verb
from kvstore.cli.progress import Advance, progress
from kvstore.cli.snapshot import restore_flags, run_restore, summary

if TYPE_CHECKING:
    from kvstore.backup.live import Comparison, Migration
    from kvstore.backup.live_auth import Copied
    from kvstore.client import Client

INTERRUPTED_BY_SIGINT = 130
_WORDS = {"copy": "Copying", "follow": "Following", "compare": "Comparing"}


@click.command(
    "migrate",
    cls=Verb,
    epilog="\b\nExamples:\n  kvctl migrate --from etcd-snapshot.db --data-dir /var/lib/kvstore\n"
    "  kvctl migrate --from http://old-etcd:2379 --endpoints http://new:2379 --follow",
)
@click.argument("arguments", nargs=-1, metavar="")
@click.option("--from", "source", metavar="FILE|URLS", help="A snapshot, or where the old cluster is.")
@click.option("--follow", is_flag=True, help="Follow the running source until SIGINT or SIGTERM.")
@click.option(
    "--force", is_flag=True, help="Make a target equal that is not empty: what the source lacks goes."
)
@click.option("--state", metavar="FILE", help="Where to note how far it is, to go on after an interruption.")
@click.option("--from-cacert", metavar="FILE", default="", help="Trust the source's servers by this CA.")
@click.option("--from-cert", metavar="FILE", default="", help="Certificate to show to the source.")
@click.option("--from-key", metavar="FILE", default="", help="Private key of --from-cert.")
@click.option("--from-user", metavar="NAME[:PASSWORD]", default="", help="Who to be at the source: root.")
@restore_flags
@click.pass_obj
def migrate(settings: Settings, /, arguments: tuple[str, ...], source: str | None, **flags: Any) -> None:
    """Move in from etcd.

    From a snapshot: makes a data directory, as `kvctl snapshot restore` does, with everything there is: users
    with passwords, revisions, history.

    From a running cluster into the running one at --endpoints: copies keys and leases, follows what changes
    meanwhile, and compares both in the end. Exit status 0 only when they are equal."""
    if arguments or not source:
        raise bad_arguments("migrate needs --from and no arguments")
    if settings.write_out != "simple":
        raise CommandFailed("migrate has no other output format than simple", BAD_FEATURE)
    if "://" not in source and (os.path.exists(source) or ":" not in source):
        restored = run_restore(source, flags)
        click.echo("\n".join(summary(source, flags, restored)))
        return
    if flags["data_dir"]:
        raise bad_arguments(
            "--data-dir is for a snapshot; a running source goes to the cluster at --endpoints"
        )
    _live(settings, source, flags)


def _live(settings: Settings, source: str, flags: dict[str, Any]) -> None:
    from kvstore.backup.journal import BadJournal
    from kvstore.backup.live import MigrationFailed
    from kvstore.cli.run import with_client

    endpoints = tuple(word.strip() for word in source.split(",") if word.strip())
    from_settings = replace(
        settings,
        endpoints=endpoints,
        cacert=flags["from_cacert"],
        cert=flags["from_cert"],
        key=flags["from_key"],
        user=flags["from_user"],
        password="",
    )

    async def do(target: Client) -> bool:
        async with from_settings.client() as client:
            return await _move(client, target, flags)

    try:
        equal = with_client(settings, do)
    except (MigrationFailed, BadJournal) as problem:
        raise CommandFailed(str(problem)) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise CommandFailed(
            "interrupted; the same command goes on where it was", INTERRUPTED_BY_SIGINT
        ) from None
    if not equal:
        raise CommandFailed("the target is not equal to the source; the same command looks again")


async def _move(source: Client, target: Client, flags: dict[str, Any]) -> bool:
    from kvstore.backup.journal import Journal
    from kvstore.backup.live import Migration, MigrationFailed
    from kvstore.backup.live_auth import copy_auth
    from kvstore.backup.sides import Side
    from kvstore.client.errors import NoUserName

    here, there = Side(source), Side(target)
    try:
        ours = await here.header()
    except NoUserName:
        raise MigrationFailed("the source asks who you are: --from-user root:PASSWORD") from None
    theirs = await there.header()
    if ours.cluster_id == theirs.cluster_id:
        raise MigrationFailed(f"source and target are one cluster, {ours.cluster_id:x}")
    path = flags["state"] or f"migrate-{ours.cluster_id:x}-{theirs.cluster_id:x}.json"
    journal = Journal(path, ours.cluster_id, theirs.cluster_id)
    if not journal.resumed and not flags["force"]:
        keys, leases = await there.count(), len(await there.lease_ids())
        if keys or leases:
            raise MigrationFailed(
                f"the target has {keys} keys and {leases} leases: with --force it is made equal to the source, "
                "and what the source does not have is deleted"
            )
    click.echo(
        f"{'Going on' if journal.resumed else 'Moving'} from {ours.cluster_id:x} to {theirs.cluster_id:x}"
    )
    with progress(of_bytes=False) as advance:
        migration = Migration(here, there, journal, lambda what, at, of: _advance(advance, what, at, of))
        compared = await _until_told(migration, follow=flags["follow"])
    copied = await copy_auth(here, there)
    click.echo("\n".join(_told(migration, compared, copied)))
    if compared.equal and os.path.exists(path):
        os.unlink(path)
    return compared.equal


def _advance(advance: Advance, what: str, done: int, whole: int) -> None:
    advance(_WORDS[what], done, whole)


async def _until_told(migration: Migration, *, follow: bool) -> Comparison:
    """The first signal ends the following, and before that everything; the second always does."""
    stop, task = asyncio.Event(), asyncio.current_task()
    loop = asyncio.get_running_loop()

    def told() -> None:
        if follow and migration.following and not stop.is_set():
            stop.set()
        elif task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told)
    try:
        return await migration.run(stop, follow=follow)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _told(migration: Migration, found: Comparison, copied: Copied) -> list[str]:
    lines = [
        f"Copied {migration.copied_keys} keys, followed {migration.followed_revisions} revisions",
        f"  source at revision {found.revision}: {found.source_keys} keys, sha256 {found.source_hash}",
        f"  target: {found.target_keys} keys, sha256 {found.target_hash}",
        f"  {found.source_leases} leases, {len(found.missing_leases)} of them missing on the target",
    ]
    if found.differing:
        shown = ", ".join(repr(key)[1:] for key in found.differing)
        lines.append(f"  differing, the first of them: {shown}")
    if copied.roles or copied.users:
        lines.append(f"  {len(copied.roles)} roles, {len(copied.users)} users: {', '.join(copied.users)}")
        lines.append(
            "  No API tells the hashes of passwords, so these users have none yet: set each with "
            "`kvctl user passwd`, then `kvctl auth enable`. A snapshot carries them."
        )
    if copied.problem:
        lines.append(f"  users and roles: {copied.problem}")
    lines.append("Equal: keys, values and leases." if found.equal else "NOT equal.")
    return lines
