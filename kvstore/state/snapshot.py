"""Whole copies of the database: made beside a running writer, and put in place of one.

A copy is one LMDB file, compacted, readable by itself: its own meta table says which index, term and revision
it stands for. Making one reads through a transaction of its own, so the pages it needs are kept from reuse for
as long as it takes, and no longer.
"""

from __future__ import annotations

import os
from typing import Any

import lmdb

from kvstore.state.backend import DATABASE
from kvstore.state.storage_process import META, TABLES, sync_directory
from kvstore.state.tables import APPLIED, APPLIED_KEY, Applied


class BadSnapshot(Exception):
    """The file is not a database of ours, or a damaged one."""


def write(env: Any, path: str) -> tuple[int, int, int]:
    """Copies to a new file, durably; (index, term, revision) of the copy. The directory entry is durable too."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        env.copyfd(descriptor, compact=True)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(os.path.dirname(os.path.abspath(path)))
    applied = read_applied(path)
    return applied.entry_index, applied.term, applied.revision


def read_applied(path: str) -> Applied:
    """What a snapshot file stands for. Raises BadSnapshot."""
    stored = read_meta(path, APPLIED_KEY)
    return Applied() if stored is None else Applied(*APPLIED.unpack(stored))


def read_meta(path: str, key: bytes) -> bytes | None:
    """One value of a snapshot's meta table. Raises BadSnapshot."""
    try:
        with (
            lmdb.Environment(path, subdir=False, readonly=True, lock=False, max_dbs=len(TABLES)) as env,
            env.begin() as transaction,
        ):
            table = env.open_db(TABLES[META], txn=transaction, create=False)
            stored: bytes | None = transaction.get(key, db=table)
            return stored
    except lmdb.Error as problem:
        raise BadSnapshot(f"{path}: {problem}") from problem


def install(directory: str, path: str) -> None:
    """Renames the snapshot to the database's name. Before the rename is durable the old state is whole, after
    it the new one. The lock file that belonged to the old one is made anew at the next open."""
    read_applied(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    target = os.path.join(directory, DATABASE)
    if os.path.exists(target + "-lock"):
        os.unlink(target + "-lock")
    os.replace(path, target)
    sync_directory(directory)
