"""What a snapshot is worth: its checksum, its consistency, and the hash that etcdutl prints of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import google_crc32c

from kvstore.etcd_db import schema
from kvstore.etcd_db.pages import BadDatabase
from kvstore.etcd_db.reader import Bucket, Database

DIGEST_BYTES = hashlib.sha256().digest_size
_SECTOR_BYTES = 512  # no page is smaller, so a length beyond whole ones is a digest's
_SLICE_BYTES = 1 << 20
_REPORT_EVERY = 10_000
IGNORED_BY_HASH = {
    (schema.META, schema.CONSISTENT_INDEX),
    (schema.META, schema.TERM),
    (schema.META, schema.STORAGE_VERSION),
}
"""What equal stores may differ in, so Maintenance.Hash leaves it out. etcdutl's hash does not."""

Progress = Callable[[int], object]
"""Told how many elements, or bytes, are done so far."""


@dataclass(frozen=True)
class Status:
    hash: int
    revision: int
    total_keys: int
    total_size: int


def has_digest(size: int) -> bool:
    """Whether a file of that size ends in a SHA-256, as a snapshot does and a copied database does not."""
    return size % _SECTOR_BYTES == DIGEST_BYTES


def verify_digest(path: str, progress: Progress | None = None) -> bytes | None:
    """The SHA-256 a snapshot ends in, once it is found right; None where there is none. Raises BadDatabase."""
    left = os.path.getsize(path)
    if not has_digest(left):
        return None
    left -= DIGEST_BYTES
    digest, done = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while left:
            piece = file.read(min(left, _SLICE_BYTES))
            if not piece:
                raise BadDatabase(f"{path} became shorter")
            digest.update(piece)
            left -= len(piece)
            done += len(piece)
            if progress is not None:
                progress(done)
        stored = file.read(DIGEST_BYTES)
    if stored != digest.digest():
        raise BadDatabase(f"expected sha256 {stored.hex()}, got {digest.hexdigest()}")
    return stored


def status(path: str, progress: Progress | None = None) -> Status:
    """Reads everything once. The hash covers names, keys and values of all buckets in order. Raises BadDatabase."""
    with Database(path) as database:
        database.begin_verify()
        value, keys, revision = 0, 0, 0
        for name, bucket in database.root:
            if not isinstance(bucket, Bucket):
                raise BadDatabase(f"{name[:64]!r} is no bucket")
            value = google_crc32c.extend(value, name)
            last = b""
            for place, content in bucket:
                if not isinstance(content, bytes):
                    raise BadDatabase(f"a bucket within {name[:64]!r}")
                value = google_crc32c.extend(google_crc32c.extend(value, place), content)
                last = place
                keys += 1
                if progress is not None and not keys % _REPORT_EVERY:
                    progress(keys)
            if name == schema.KEY and last:
                revision = schema.decode_revision(last)[0]
        database.end_verify()
        return Status(value, revision, keys, database.size)


def hash_of(buckets: Iterable[tuple[bytes, Iterable[tuple[bytes, bytes]]]]) -> int:
    """Maintenance.Hash: CRC-32C of names, keys and values, but for what equal stores may differ in."""
    value = 0
    for name, items in buckets:
        value = google_crc32c.extend(value, name)
        for place, content in items:
            if (name, place) not in IGNORED_BY_HASH:
                value = google_crc32c.extend(google_crc32c.extend(value, place), content)
    return value
