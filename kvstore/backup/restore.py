"""A data directory out of a snapshot: state, and a log that begins where the state stands.

Every member of the new cluster is restored from the same file with the same flags, and then they agree without
having spoken: equal files and flags make equal state, ids and log. Flags that differ make another cluster id, so
such members refuse each other instead of diverging.

Two things are not what they were, unless asked for:
  - The cluster's id is new, so that no old member takes a new one for its own, even at the same URLs.
  - The revision has moved on, beyond what the old cluster can have handed out since, and all before is compacted:
    a watch or read that resumes at a revision it has seen is told so, instead of being given another history.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from kvstore import config, identity
from kvstore.backup import inward
from kvstore.backup.inward import Loaded
from kvstore.config import Config
from kvstore.data_dir import sync_directory
from kvstore.etcd_db.pages import BadDatabase
from kvstore.etcd_db.reader import Database
from kvstore.etcd_db.status import verify_digest
from kvstore.pb.etcdserverpb_pb2 import Member
from kvstore.pb.internal_pb2 import MemberRecord
from kvstore.replication.disk import RealDisk
from kvstore.replication.wal import Batch, Wal, WalMetadata
from kvstore.state import tables
from kvstore.state.backend import DATABASE
from kvstore.state.machine import MAP_BYTES
from kvstore.state.reader import Reader
from kvstore.state.storage_process import MEMBERS, META, commit, encode_frame, open_environment, open_tables
from raft import HardState, SnapshotMeta, membership

BUMP_REVISIONS = 1_000_000_000
INDEX = TERM = 1
"""Where the log begins. Not 0: a member that joins must be sent the state, which no entry holds."""
_SLICE_BYTES = 1 << 20

Progress = Callable[[str, int, int], object]
"""Told what is done ("check" or "load"), how much of it, and of how much (bytes)."""


class RestoreFailed(Exception):
    """One line."""


@dataclass(frozen=True)
class Choices:
    bump_revisions: int = BUMP_REVISIONS
    mark_compacted: bool = True
    new_cluster_id: bool = True
    skip_hash_check: bool = False


@dataclass(frozen=True)
class Restored:
    loaded: Loaded
    revision: int
    compact_revision: int
    cluster_id: int
    member_id: int
    state_bytes: int  # what the state takes here, which is what a member's quota counts


def restore(
    path: str, settings: Config, choices: Choices, progress: Progress = lambda what, done, whole: None
) -> Restored:
    """settings: the flags the member would be founded with. Its data directory appears whole or not at all.
    Raises RestoreFailed."""
    target = os.path.abspath(settings.data_dir)
    if os.path.exists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise RestoreFailed(f'data-dir "{settings.data_dir}" not empty or could not be read')
    made = f"{target}.restoring-{os.getpid()}"
    try:
        digest = _check(path, choices, progress)
        os.makedirs(made, mode=0o700)
        restored = _fill(path, made, settings, choices, digest, progress)
        os.replace(made, target)  # over an empty directory at most
        sync_directory(os.path.dirname(target))
    except BadDatabase as problem:
        raise RestoreFailed(f"{path}: {problem}") from None
    except OSError as problem:
        raise RestoreFailed(f"{problem.filename or path}: {problem.strerror or problem}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return restored


def configuration(*, name: str, data_dir: str, initial_cluster: str, token: str, peer_urls: str) -> Config:
    """What a member with these flags would be started with. Raises RestoreFailed as the member would refuse."""
    words = [f"--name={name}", f"--data-dir={data_dir}", f"--initial-cluster-token={token}"]
    words.append(f"--initial-advertise-peer-urls={peer_urls}")
    if initial_cluster:
        words.append(f"--initial-cluster={initial_cluster}")
    try:
        return config.load(words, {})
    except (config.FlagError, config.ConfigError) as problem:
        raise RestoreFailed(str(problem)) from None


def _check(path: str, choices: Choices, progress: Progress) -> bytes:
    """The digest of the file's content."""
    size = os.path.getsize(path)
    stored = None
    try:
        stored = verify_digest(path, lambda done: progress("check", done, size))
    except BadDatabase:
        if not choices.skip_hash_check:
            raise
    if stored is not None:
        return stored
    if not choices.skip_hash_check:
        raise RestoreFailed("snapshot missing hash but --skip-hash-check=false")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_SLICE_BYTES):
            digest.update(piece)
            progress("check", file.tell(), size)
    return digest.digest()


def _fill(
    path: str, folder: str, settings: Config, choices: Choices, digest: bytes, progress: Progress
) -> Restored:
    ids = identity.initial_members(settings.initial_cluster, settings.initial_cluster_token)
    member_id, cluster_id = ids[settings.name], identity.cluster_id(ids.values())
    if choices.new_cluster_id:
        cluster_id = _new_cluster_id(cluster_id, digest, choices)
    conf = membership.initial(tuple(ids.values()))
    database_dir, wal_dir = os.path.join(folder, "member", "db"), os.path.join(folder, "member", "wal")
    os.makedirs(database_dir, mode=0o700)
    file = os.path.join(database_dir, DATABASE)
    env = open_environment(file, map_bytes=MAP_BYTES, sync=False)
    try:
        stores = open_tables(env, create=True)
        with Database(path) as database:
            loaded = inward.load(database, env, stores, lambda done: progress("load", done, database.size))
        revision, compact_revision = loaded.revision + choices.bump_revisions, loaded.compact_revision
        if choices.mark_compacted:
            compact_revision = revision
        applied = tables.Applied(INDEX, TERM, revision, compact_revision, loaded.finished_compaction)
        operations: dict[tuple[int, bytes], bytes | None] = {
            (META, tables.APPLIED_KEY): tables.APPLIED.pack(*applied),
            (META, tables.CONF_KEY): membership.encode(conf),
        }
        for name, own in ids.items():
            member = Member(ID=own, name=name, peerURLs=settings.initial_cluster[name])
            operations[MEMBERS, tables.ID.pack(own)] = MemberRecord(member=member).SerializeToString()
        commit(env, stores, memoryview(encode_frame(0, [], [], [], operations)))
        env.sync(True)
        reader = Reader(env, stores)
        state_bytes = reader.sizes()[1]
        reader.close()
    finally:
        env.close()
    os.unlink(file + "-lock")
    sync_directory(database_dir)
    metadata = WalMetadata(cluster_id, member_id, secrets.randbits(63) | 1, int(time.time() * 1000))
    wal = Wal.create(wal_dir, metadata, conf, RealDisk())
    batch = Batch()
    batch.add(HardState(TERM, 0, INDEX), SnapshotMeta(INDEX, TERM, conf), [])
    wal.append(batch)
    wal.close()
    sync_directory(os.path.join(folder, "member"))
    sync_directory(folder)
    return Restored(loaded, revision, compact_revision, cluster_id, member_id, state_bytes)


def _new_cluster_id(founded: int, digest: bytes, choices: Choices) -> int:
    told = f"{founded:x} {digest.hex()} {choices.bump_revisions} {choices.mark_compacted}"
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big")
