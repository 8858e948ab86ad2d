"""etcd's database into an empty one of ours: one pass over its history, in batches, so that memory stays small.

What comes over: every version etcd still has, with its revisions, versions and leases; the leases; users, roles
and whether they are asked for; the compaction point, and how far the removal behind it had come. What does not:
members and alarms, which are of a cluster that is not this one.

A version's links (kvstore/state/records.py) are made here as they would have been when it was written. Where
etcd has compacted the version before away there is nothing to link to, as after our own compaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from kvstore.backup import users
from kvstore.etcd_db import schema
from kvstore.etcd_db.pages import BadDatabase
from kvstore.etcd_db.reader import Bucket, Database
from kvstore.pb.internal_pb2 import LeaseRecord, QuotaRecord
from kvstore.pb.leasepb_pb2 import Lease
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.state.quotas import PREFIX_BYTES_MAX, Quota, Quotas
from kvstore.state.reader import Reader
from kvstore.state.records import (
    ANCHOR_AT,
    ANCHOR_EVERY,
    DEPTH_AND_FLAGS,
    DEPTH_AT,
    FLAGS_AT,
    KV_AT,
    NO_REVISION,
    REVISION,
    SUB_MAX,
)
from kvstore.state.storage_process import LEASE_KEYS, LEASES, QUOTAS, commit, encode_frame
from kvstore.state.tables import attachment, lease_place

BATCH_RECORDS = 20_000
BATCH_BYTES = 8 << 20
_REVISION_MAX = (1 << 63) - 1

Progress = Callable[[int], object]
"""Told how many bytes of keys and values are done so far."""


@dataclass
class Loaded:
    """What came over. revision and the compaction points are those of the source."""

    revision: int = 1
    compact_revision: int = 0
    finished_compaction: int = 0
    versions: int = 0
    keys: int = 0
    leases: int = 0
    attached: int = 0
    users: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    auth_enabled: bool = False
    quotas: int = 0
    alarms: int = 0
    members: int = 0


def load(database: Database, env: Any, tables: list[Any], progress: Progress | None = None) -> Loaded:
    """Fills the tables. Raises BadDatabase; what was stored until then is of no use."""
    loading = _Loading(database, env, tables, progress)
    try:
        return loading.run()
    except DecodeError as problem:
        raise BadDatabase(f"a message that cannot be read: {problem}") from None
    finally:
        loading.reader.close()


class _Loading:
    def __init__(self, database: Database, env: Any, tables: list[Any], progress: Progress | None) -> None:
        self._env = env
        self._tables = tables
        self._progress = progress
        self._done_bytes = 0
        self._generation = 0
        self._buckets: dict[bytes, Bucket] = {}
        for name, bucket in database.root:
            if not isinstance(bucket, Bucket):
                raise BadDatabase(f"{name[:64]!r} is no bucket")
            self._buckets[name] = bucket
        if schema.KEY not in self._buckets:
            raise BadDatabase("the database has no bucket of keys: it is not etcd's")
        self.reader = Reader(env, tables)
        self.loaded = Loaded()

    def run(self) -> Loaded:
        loaded = self.loaded
        meta = dict(self._items(schema.META))
        loaded.finished_compaction = _revision_in(meta, schema.FINISHED_COMPACT)
        scheduled = _revision_in(meta, schema.SCHEDULED_COMPACT)
        loaded.compact_revision = max(scheduled, loaded.finished_compaction)
        self._versions()
        # The versions of the last revisions may all be gone by compaction; the revision is not (etcd 17780).
        loaded.revision = max(loaded.revision, loaded.compact_revision)
        leases = self._leases()
        quotas = self._quotas()
        self._count_and_attach(leases, quotas)
        self._store([], {(QUOTAS, prefix): record for prefix, record in quotas.take_changed()})
        self._users()
        loaded.alarms = sum(1 for _ in self._items(schema.ALARM))
        loaded.members = sum(1 for _ in self._items(schema.MEMBERS))
        return loaded

    def _items(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        for place, value in self._buckets.get(name, ()):
            if not isinstance(value, bytes):
                raise BadDatabase(f"a bucket within {name!r}")
            yield place, value

    def _versions(self) -> None:
        records: list[bytes] = []
        latest: dict[bytes, bytes] = {}  # of this batch
        size, main, stored = 0, 1, self.reader.latest
        for place, value in self._items(schema.KEY):
            main, sub, tombstone = schema.decode_revision(place)
            if not 0 < main <= _REVISION_MAX or sub > SUB_MAX:
                raise BadDatabase(f"revision {main} sub {sub} is out of range")
            kv = KeyValue.FromString(value)
            key = kv.key
            if not key:
                continue  # `etcdutl snapshot restore --bump-revision` marks a revision so
            if tombstone:
                value = KeyValue(key=key, mod_revision=main).SerializeToString()
            elif kv.mod_revision != main:
                raise BadDatabase(f"{key[:64]!r} of revision {kv.mod_revision} is stored at {main}")
            elif value[0] != 0x0A:
                value = kv.SerializeToString()  # the key must come first
            before = latest.get(key) or stored(key)
            record = b"".join((REVISION.pack(main, sub), _links(before, tombstone), value))
            latest[key] = record
            records.append(record)
            size += len(record)
            if size >= BATCH_BYTES or len(records) >= BATCH_RECORDS:
                self._store(records, {})
                records, latest, size = [], {}, 0
        self._store(records, {})
        self.loaded.revision = main

    def _store(self, records: list[bytes], operations: dict[tuple[int, bytes], bytes | None]) -> None:
        self._generation += 1
        frame = encode_frame(self._generation, records, [], [], operations)
        commit(self._env, self._tables, memoryview(frame))
        self.reader.renew()
        self.loaded.versions += len(records)
        if self._progress is not None and records:
            self._done_bytes += len(frame)
            self._progress(self._done_bytes)

    def _leases(self) -> set[int]:
        operations: dict[tuple[int, bytes], bytes | None] = {}
        leases: set[int] = set()
        for _, value in self._items(schema.LEASE):
            lease = Lease.FromString(value)
            if not lease.ID or lease.TTL <= 0:
                raise BadDatabase(f"lease {lease.ID} of {lease.TTL} s")
            leases.add(lease.ID)
            record = LeaseRecord.FromString(lease.kvstore)
            if not lease.kvstore:
                record = LeaseRecord(ID=lease.ID, ttl_ms=lease.TTL * 1000)
            elif record.ID != lease.ID or record.ttl_ms <= 0:
                raise BadDatabase(f"lease {lease.ID} holds the record of {record.ID}, {record.ttl_ms} ms")
            operations[LEASES, lease_place(lease.ID)] = record.SerializeToString()
            if len(operations) >= BATCH_RECORDS:
                self._store([], operations)
                operations = {}
        self._store([], operations)
        self.loaded.leases = len(leases)
        return leases

    def _quotas(self) -> Quotas:
        """A member's own; no file of etcd's has any."""
        quotas = Quotas()
        for prefix, value in self._items(schema.QUOTAS):
            record = QuotaRecord.FromString(value)
            if not 0 < len(prefix) <= PREFIX_BYTES_MAX or record.prefix != prefix:
                raise BadDatabase(f"a quota on {prefix[:64]!r} that is none")
            quotas.put_in(Quota(prefix, record.bytes_max, record.keys_max, record.qps_max))
        self.loaded.quotas = len(quotas)
        return quotas

    def _users(self) -> None:
        found = users.inward(*map(self._items, (schema.AUTH, schema.AUTH_ROLES, schema.AUTH_USERS)))
        self._store([], found.operations)
        loaded = self.loaded
        loaded.users, loaded.roles, loaded.auth_enabled = found.users, found.roles, found.enabled

    def _count_and_attach(self, leases: set[int], quotas: Quotas) -> None:
        """A key hangs on the lease that its newest version names, if there is one, as when etcd starts. Its
        reader is another one: storing what it finds renews this class's."""
        operations: dict[tuple[int, bytes], bytes | None] = {}
        loaded, reader = self.loaded, Reader(self._env, self._tables)
        try:
            for key, record in reader.keys(b"", None):
                if record[FLAGS_AT]:
                    continue
                loaded.keys += 1
                if not leases and not quotas:
                    continue
                kv = KeyValue.FromString(bytes(record[KV_AT:]))
                quotas.put(key, len(kv.value), None)
                lease = kv.lease
                if lease not in leases:
                    continue
                loaded.attached += 1
                place, content = attachment(lease, key)
                operations[LEASE_KEYS, place] = content
                if len(operations) >= BATCH_RECORDS:
                    self._store([], operations)
                    operations = {}
        finally:
            reader.close()
        self._store([], operations)


def _links(before: bytes | None, tombstone: bool) -> bytes:
    """previous, anchor, depth and flags of the version that follows `before`."""
    if before is None:
        return NO_REVISION + NO_REVISION + DEPTH_AND_FLAGS[0][tombstone]
    depth, own = before[DEPTH_AT], before[: REVISION.size]
    anchor = before[ANCHOR_AT:DEPTH_AT] if depth else own
    return own + anchor + DEPTH_AND_FLAGS[(depth + 1) % ANCHOR_EVERY][tombstone]


def _revision_in(meta: dict[bytes, bytes], name: bytes) -> int:
    found = meta.get(name)
    return schema.decode_revision(found)[0] if found else 0
