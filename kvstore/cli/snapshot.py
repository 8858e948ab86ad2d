"""kvctl snapshot save, status, restore: etcd's snapshot files, whoever made them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.failures import BAD_FEATURE, INTERRUPTED, CommandFailed, bad_arguments
from kvstore.cli.options import FORMATS, Noun, Settings, Verb
from kvstore.cli.progress import Advance, progress

if TYPE_CHECKING:
    from kvstore.backup.restore import Choices, Restored
    from kvstore.client import Client
    from kvstore.etcd_db.status import Status

ROOMY_BYTES = 1 << 30  # half of the quota that a member has by default
COLUMNS = ("Hash", "Revision", "Total Keys", "Total Size")


@click.group("snapshot", cls=Noun)
def snapshot() -> None:
    """Snapshots of the whole store, in etcd's format: each side restores the other's."""


@snapshot.command("save", cls=Verb, epilog="\b\nExample:\n  kvctl snapshot save backup.db")
@click.argument("arguments", nargs=-1, metavar="FILE")
@click.pass_obj
def save(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Save the state of one server to FILE, which appears whole and checked, or not at all.

    There is no limit of time unless --command-timeout is given."""
    if len(arguments) != 1:
        raise bad_arguments("snapshot save expects one argument")
    path = arguments[0]
    if len(settings.endpoints) != 1:
        shown = " ".join(settings.endpoints)
        raise CommandFailed(
            f"snapshot must be requested to one selected node, not multiple [{shown}]", INTERRUPTED
        )
    from kvstore.cli.run import with_client

    async def do(client: Client) -> None:
        limit_s = settings.command_timeout_s
        try:
            async with asyncio.timeout(None if limit_s == Settings().command_timeout_s else limit_s):
                with progress() as advance:
                    await _receive(client, path, advance)
        except TimeoutError:
            raise CommandFailed(f"no snapshot within {limit_s:g} s", INTERRUPTED) from None

    try:
        with_client(settings, do)
    except OSError as problem:
        raise CommandFailed(f"{problem.filename or path}: {problem.strerror}", INTERRUPTED) from None
    except CommandFailed as failed:
        raise CommandFailed(failed.message, INTERRUPTED) from None
    click.echo(f"Snapshot saved at {path}")


async def _receive(client: Client, path: str, advance: Advance) -> None:
    """Into a file beside it, synced, then renamed. What is half there is removed."""
    from kvstore.client import snapshot as stream

    part = f"{path}.part"
    descriptor, done = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 0
    try:
        with open(descriptor, "wb") as file:  # noqa: ASYNC230  there is nobody else to hold up
            async for piece, remaining in stream.snapshot(client.caller, client.caller.choice.pinned):
                file.write(piece)
                done += len(piece)
                advance("Receiving", done, done + remaining)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@snapshot.command("status", cls=Verb, epilog="\b\nExample:\n  kvctl snapshot status backup.db -w table")
@click.argument("arguments", nargs=-1, metavar="FILE")
@click.pass_obj
def status(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Check a snapshot, and print its hash, revision, number of keys and size as etcdutl does."""
    if len(arguments) != 1:
        raise bad_arguments("snapshot status requires exactly one argument")
    form = settings.write_out
    if form not in (*FORMATS, "protobuf"):
        raise CommandFailed("unsupported output format", BAD_FEATURE)
    if form == "protobuf":
        raise CommandFailed("protobuf not supported as output format", BAD_FEATURE)
    from kvstore.cli.run import write
    from kvstore.etcd_db.pages import BadDatabase
    from kvstore.etcd_db.status import status as read_status
    from kvstore.etcd_db.status import verify_digest

    path = arguments[0]
    try:
        size = os.stat(path).st_size
        with progress() as advance:
            verify_digest(path, lambda done: advance("Checking", done, size))
        with progress(of_bytes=False) as advance:
            found = read_status(path, lambda done: advance("Reading", done, 0))
    except BadDatabase as problem:
        raise CommandFailed(str(problem)) from None
    except OSError as problem:
        raise CommandFailed(f"stat {path}: {(problem.strerror or str(problem)).lower()}") from None
    write(_shown(found, form))


def _shown(found: Status, form: str) -> bytes:
    from kvstore.cli.text import human_bytes

    row = [f"{found.hash:x}", str(found.revision), str(found.total_keys), human_bytes(found.total_size)]
    if form == "json":
        from kvstore.cli.output.as_json import dump

        names = ("hash", "revision", "totalKey", "totalSize")
        return dump(
            dict(zip(names, (found.hash, found.revision, found.total_keys, found.total_size), strict=True))
        )
    if form == "table":
        from kvstore.cli.output.as_table import table

        return table(COLUMNS, [row])
    if form == "fields":
        pairs = (
            ("Hash", found.hash),
            ("Revision", found.revision),
            ("Keys", found.total_keys),
            ("Size", found.total_size),
        )
        return "".join(f'"{name}" : {value}\n' for name, value in pairs).encode()
    return (", ".join(row) + "\n").encode()


def restore_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `snapshot restore` and `migrate` from a file have in common."""
    flags = (
        click.option(
            "--data-dir",
            metavar="DIR",
            help="The directory to make; not there yet, or empty.  [default: NAME.etcd]",
        ),
        click.option("--name", default="default", metavar="NAME", help="Of the member.  [default: default]"),
        click.option("--initial-cluster", metavar="LIST", help="Every member: name=peerURL,name=peerURL."),
        click.option(
            "--initial-cluster-token", default="etcd-cluster", metavar="TEXT", help="[default: etcd-cluster]"
        ),
        click.option(
            "--initial-advertise-peer-urls",
            default="http://localhost:2380",
            metavar="LIST",
            help="Where the other members reach this one.  [default: http://localhost:2380]",
        ),
        click.option(
            "--skip-hash-check",
            is_flag=True,
            help="Take a file without a checksum, as member/snap/db is, or with a wrong one.",
        ),
        click.option(
            "--bump-revision",
            type=click.IntRange(min=0),
            metavar="N",
            help="Move the revision on by N, past what the old cluster handed out.  [default: 1000000000]",
        ),
        click.option(
            "--mark-compacted",
            is_flag=True,
            default=None,
            help="Have watches and reads of older revisions fail.  [default: with --bump-revision > 0]",
        ),
        click.option(
            "--new-cluster-id",
            is_flag=True,
            default=True,
            help="Take an id no cluster had before; =false: etcd's, of URLs and token.  [default: true]",
        ),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command


@snapshot.command(
    "restore",
    cls=Verb,
    epilog="\b\nExample:\n  kvctl snapshot restore backup.db --name n1 --data-dir /var/lib/kvstore \\\n"
    "    --initial-cluster n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380,n3=http://10.0.0.3:2380 \\\n"
    "    --initial-advertise-peer-urls http://10.0.0.1:2380",
)
@click.argument("arguments", nargs=-1, metavar="FILE")
@restore_flags
@click.option("--wal-dir", hidden=True)
@click.pass_obj
def restore(settings: Settings, /, arguments: tuple[str, ...], wal_dir: str | None, **flags: Any) -> None:
    """Make a member's data directory out of FILE, a snapshot by kvctl or etcdctl, or etcd's member/snap/db.

    Restore every member of the new cluster from the same FILE, with the same flags but for the member's own."""
    if len(arguments) != 1:
        raise bad_arguments("snapshot restore requires exactly one argument")
    if wal_dir is not None:  # as kvstore itself says it, which such a member would be started with
        click.echo("--wal-dir has no meaning here and is ignored: the log is in --data-dir", err=True)
    restored = run_restore(arguments[0], flags)
    click.echo("\n".join(summary(arguments[0], flags, restored)))


def run_restore(path: str, flags: dict[str, Any]) -> Restored:
    from kvstore.backup.restore import RestoreFailed, configuration
    from kvstore.backup.restore import restore as run

    flags["data_dir"] = flags["data_dir"] or f"{flags['name']}.etcd"
    try:
        config = configuration(
            name=flags["name"],
            data_dir=flags["data_dir"],
            initial_cluster=flags["initial_cluster"] or "",
            token=flags["initial_cluster_token"],
            peer_urls=flags["initial_advertise_peer_urls"],
        )
        with progress() as advance:
            words = {"check": "Checking", "load": "Loading"}
            return run(
                path, config, _choices(flags), lambda what, done, whole: advance(words[what], done, whole)
            )
    except RestoreFailed as problem:
        raise CommandFailed(str(problem)) from None


def _choices(flags: dict[str, Any]) -> Choices:
    """--mark-compacted goes with a revision that moves on, as etcdutl 3.6 has it."""
    from kvstore.backup.restore import BUMP_REVISIONS, Choices

    bump = BUMP_REVISIONS if flags["bump_revision"] is None else flags["bump_revision"]
    mark = flags["mark_compacted"]
    if mark is None:
        mark = bump > 0
    if bump > 0 and not mark:
        raise CommandFailed("--mark-compacted required if --bump-revision > 0")
    if mark and not bump:
        raise CommandFailed("--mark-compacted cannot be used without --bump-revision > 0")
    return Choices(
        bump_revisions=bump,
        mark_compacted=mark,
        new_cluster_id=flags["new_cluster_id"],
        skip_hash_check=flags["skip_hash_check"],
    )


def summary(path: str, flags: dict[str, Any], restored: Restored) -> list[str]:
    """What came over, what did not, and what to do next."""
    from kvstore.cli.text import human_bytes

    loaded = restored.loaded
    lines = [
        f"Restored {path} to {flags['data_dir']}",
        f"  {loaded.keys} keys in {loaded.versions} versions, {loaded.leases} leases with {loaded.attached} keys",
    ]
    if loaded.users or loaded.roles:
        state = "on" if loaded.auth_enabled else "off"
        lines.append(
            f"  {len(loaded.users)} users with their passwords, {len(loaded.roles)} roles; "
            f"authentication is {state}"
        )
    if loaded.quotas:
        lines.append(f"  {loaded.quotas} quotas on prefixes")
    if restored.revision == loaded.revision:
        lines.append(f"  revision {restored.revision}, history from {restored.compact_revision} on")
    else:
        lines.append(
            f"  revision {loaded.revision} became {restored.revision}; what came before it is compacted, so "
            "watches and reads at older revisions are told to begin anew"
        )
    lines.append(
        f"  member {restored.member_id:x} of cluster {restored.cluster_id:x}; the old cluster's "
        f"{loaded.members} members and {loaded.alarms} alarms stay behind"
    )
    if restored.state_bytes > ROOMY_BYTES:
        lines.append(
            f"The state takes {human_bytes(restored.state_bytes)}, more than in etcd, as the newest version of a "
            f"key is kept twice: start members with --quota-backend-bytes={2 * restored.state_bytes} or so."
        )
    lines.append("Every lease begins with its whole time to live when the cluster has a leader.")
    return lines
