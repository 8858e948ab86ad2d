"""The replicated state beside the key space, and how each part of it lies in LMDB.

    meta        b"conf" -> the configuration as of the applied index, in raft's own bytes
                b"removed" + member id u64 -> b"": gone for good
                b"applied" -> index, term, revision, compaction point, compaction progress (u64 each)
                b"batches" + origin u64 -> incarnation u64 | sequence u64
                b"keys" -> how many keys there are, u64
    leases      id -> kvstore.internal.LeaseRecord
    lease_keys  id | key (or a long key's beginning and its SHA-256) -> b"" (or the long key)
    members     id -> kvstore.internal.MemberRecord
    alarms      type u32 | member id u64 -> b""
    auth        b"state" -> enabled u8 | auth revision u64 | ended revision u64          (auth.py)
                b"u" + name -> kvstore.internal.UserRecord
                b"r" + name -> authpb.Role
    quotas      prefix -> kvstore.internal.QuotaRecord, use included                     (quotas.py)

All of it is in memory as well and read from LMDB only at the start.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from kvstore.pb.etcdserverpb_pb2 import AlarmMember
from kvstore.pb.internal_pb2 import LeaseRecord, MemberRecord
from kvstore.state.lessor import Lessor
from kvstore.state.storage_process import ALARMS, LEASE_KEYS, LEASES, MEMBERS, META

APPLIED_KEY = b"applied"
BATCHES_PREFIX = b"batches"
CONF_KEY = b"conf"
KEY_COUNT_KEY = b"keys"
REMOVED_PREFIX = b"removed"
APPLIED = struct.Struct(">QQQQQ")
BATCH_MARK = struct.Struct(">QQ")
ALARM = struct.Struct(">IQ")
ID = struct.Struct(">Q")
_SHORT_MAX, _KEPT = 500, 469
_MASK = (1 << 64) - 1


class Applied(NamedTuple):
    """How far the state is. revision 1 is etcd's own beginning: the first write makes 2."""

    entry_index: int = 0  # not `index`, which a tuple has already
    term: int = 0
    revision: int = 1
    compact_revision: int = 0
    compacted_to: int = 0


class Tables(Protocol):
    def get(self, table: int, key: bytes) -> bytes | None: ...

    def table(self, table: int) -> Iterator[tuple[bytes, bytes]]: ...

    def count_keys(self) -> int: ...


def load_applied(store: Tables) -> Applied:
    stored = store.get(META, APPLIED_KEY)
    return Applied() if stored is None else Applied(*APPLIED.unpack(stored))


def load_batches(store: Tables) -> dict[int, tuple[int, int]]:
    """origin -> (incarnation, sequence) of the last batch applied from it."""
    marks: dict[int, tuple[int, int]] = {}
    for key, value in store.table(META):
        if key.startswith(BATCHES_PREFIX):
            incarnation, sequence = BATCH_MARK.unpack(value)
            marks[ID.unpack(key[len(BATCHES_PREFIX) :])[0]] = (incarnation, sequence)
    return marks


def load_key_count(store: Tables) -> int:
    """Counted where it is not stored: a database from before it was, or one that a backup was restored into."""
    stored = store.get(META, KEY_COUNT_KEY)
    return store.count_keys() if stored is None else int.from_bytes(stored, "big")


def load_removed(store: Tables) -> set[int]:
    """Ids of members that were removed: none of them ever comes back."""
    keys = (key for key, _ in store.table(META) if key.startswith(REMOVED_PREFIX))
    return {ID.unpack(key[len(REMOVED_PREFIX) :])[0] for key in keys}


def removed_key(member_id: int) -> bytes:
    return REMOVED_PREFIX + ID.pack(member_id)


def batch_key(origin: int) -> bytes:
    return BATCHES_PREFIX + ID.pack(origin)


def load_leases(store: Tables) -> Lessor:
    lessor = Lessor()
    for _, value in store.table(LEASES):
        record = LeaseRecord.FromString(value)
        lease = lessor.grant(record.ID, record.ttl_ms)
        lease.session, lease.grace_ms = record.session, record.grace_ms
        lease.remaining_ms, lease.grant_index = record.remaining_ms, record.grant_index
    for place, long_key in store.table(LEASE_KEYS):
        lease_id = _signed(ID.unpack_from(place)[0])
        lessor.attach(lease_id, long_key or place[ID.size :])
    return lessor


def lease_place(lease_id: int) -> bytes:
    return ID.pack(lease_id & _MASK)


def attachment(lease_id: int, key: bytes) -> tuple[bytes, bytes]:
    """Where "this key hangs on this lease" is stored, and as what. A long key's place is one byte longer than
    any short one's, so that the two cannot meet."""
    place = lease_place(lease_id)
    if len(key) <= _SHORT_MAX:
        return place + key, b""
    return place + key[:_KEPT] + hashlib.sha256(key).digest(), key


def load_members(store: Tables) -> dict[int, MemberRecord]:
    return {ID.unpack(key)[0]: MemberRecord.FromString(value) for key, value in store.table(MEMBERS)}


def load_alarms(store: Tables) -> list[AlarmMember]:
    """By type, then member."""
    alarms = []
    for key, _ in store.table(ALARMS):
        kind, member_id = ALARM.unpack(key)
        alarms.append(AlarmMember(memberID=member_id, alarm=kind))
    return alarms


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
