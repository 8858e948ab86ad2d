"""The state in LMDB as the buckets of etcd's database. Reads through one transaction, so it is of one moment.

What comes out follows from what was applied and from nothing else: of history exactly what the compaction point
leaves readable, however far the removal behind it has come on this member. So members that have applied the same
entries make the same file.

Leases go out with their TTL and without what is left of it: what is left is the leader's clock, not state. Where
the file is restored every lease begins anew, as it does under a new leader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kvstore.backup import users
from kvstore.etcd_db import schema
from kvstore.pb.etcdserverpb_pb2 import AlarmMember
from kvstore.pb.internal_pb2 import LeaseRecord, MemberRecord, QuotaRecord
from kvstore.pb.leasepb_pb2 import Lease
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.state import tables
from kvstore.state.reader import Reader
from kvstore.state.records import (
    FLAGS_AT,
    KV_AT,
    NO_REVISION,
    REVISION,
    Buffer,
    bound,
    key_of,
    version_at,
)
from kvstore.state.storage_process import LEASES, MEMBERS, META, QUOTAS
from kvstore.version import CLUSTER_VERSION
from raft import membership
from raft.types import ConfState

Bucket = tuple[bytes, Iterable[tuple[bytes, bytes]]]
_OWN_BYTES = REVISION.size


def buckets(reader: Reader) -> Iterator[Bucket]:
    """Name and items of every bucket, all in key order. Items are read as they are asked for."""
    applied = tables.load_applied(reader)
    yield schema.ALARM, _alarms(reader)
    auth, roles, accounts = users.outward(reader)
    yield schema.AUTH, auth
    yield schema.AUTH_ROLES, roles
    yield schema.AUTH_USERS, accounts
    yield schema.CLUSTER, ((schema.CLUSTER_VERSION, CLUSTER_VERSION.encode()),)
    yield schema.KEY, _versions(reader, applied)
    quotas = list(_quotas(reader))
    if quotas:
        yield schema.QUOTAS, quotas
    yield schema.LEASE, _leases(reader)
    yield schema.MEMBERS, sorted(_members(reader))
    yield schema.MEMBERS_REMOVED, sorted(_removed(reader))
    yield schema.META, sorted(_meta(reader, applied))


def _versions(reader: Reader, applied: tables.Applied) -> Iterator[tuple[bytes, bytes]]:
    compact_revision = applied.compact_revision
    unfinished = applied.compacted_to < compact_revision
    for own, rest in reader.history(NO_REVISION):
        tombstone = rest[FLAGS_AT - _OWN_BYTES]
        if unfinished:
            if int.from_bytes(own[:8], "big") > compact_revision:
                unfinished = False  # and so are all that follow
            elif not _survives(reader, own, rest, compact_revision):
                continue
        place = b"".join((own[:8], b"_\0\0\0\0", own[8:], b"t" if tombstone else b""))
        yield place, _key_alone(own, rest) if tombstone else bytes(rest[KV_AT - _OWN_BYTES :])


def _survives(reader: Reader, own: bytes, rest: Buffer, compact_revision: int) -> bool:
    """Whether a version at or below the compaction point is what is read there. A tombstone survives exactly at
    it, for the watch that starts there."""
    if rest[FLAGS_AT - _OWN_BYTES] and int.from_bytes(own[:8], "big") < compact_revision:
        return False
    latest = reader.latest(key_of(b"".join((own, rest))))
    if latest is None:
        return False
    found = version_at(latest, bound(compact_revision), reader.version)
    return found is not None and bytes(found[:_OWN_BYTES]) == own


def _key_alone(own: bytes, rest: Buffer) -> bytes:
    """etcd's tombstones hold the key, ours the revision too."""
    return KeyValue(key=key_of(b"".join((own, rest)))).SerializeToString()


def _alarms(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    found = (AlarmMember(memberID=a.memberID, alarm=a.alarm) for a in tables.load_alarms(reader))
    return iter(sorted((alarm.SerializeToString(), b"") for alarm in found))


def _leases(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    for place, value in reader.table(LEASES):
        record = LeaseRecord.FromString(value)
        record.remaining_ms = record.grant_index = 0
        lease = Lease(ID=record.ID, TTL=-(-record.ttl_ms // 1000))
        if record != LeaseRecord(ID=lease.ID, ttl_ms=lease.TTL * 1000):
            # milliseconds, and what an announced instance's stream needs to take it over
            lease.kvstore = record.SerializeToString()
        yield place, lease.SerializeToString()


def _quotas(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    """Without their use, which follows from the keys."""
    for prefix, value in reader.table(QUOTAS):
        record = QuotaRecord.FromString(value)
        record.used_bytes = record.used_keys = 0
        yield prefix, record.SerializeToString()


def _members(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    learners = {*_conf(reader).learners, *_conf(reader).learners_next}
    for _, value in reader.table(MEMBERS):
        member = MemberRecord.FromString(value).member
        member.isLearner = member.ID in learners
        yield schema.member_place(member.ID), schema.encode_member(member)


def _removed(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    for member_id in tables.load_removed(reader):
        yield schema.member_place(member_id), schema.REMOVED


def _meta(reader: Reader, applied: tables.Applied) -> Iterator[tuple[bytes, bytes]]:
    yield schema.CONSISTENT_INDEX, schema.U64.pack(applied.entry_index)
    yield schema.TERM, schema.U64.pack(applied.term)
    conf = _conf(reader)
    yield (
        schema.CONF_STATE,
        schema.encode_conf_state(conf.voters, conf.learners, conf.voters_outgoing, conf.learners_next),
    )
    if applied.compact_revision:
        place = schema.encode_revision(applied.compact_revision, 0)
        yield schema.SCHEDULED_COMPACT, place
        yield schema.FINISHED_COMPACT, place


def _conf(reader: Reader) -> ConfState:
    stored = reader.get(META, tables.CONF_KEY)
    return membership.decode(stored)[0] if stored else membership.NOWHERE
