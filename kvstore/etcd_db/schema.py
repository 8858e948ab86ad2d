"""What etcd 3.5 keeps in its database, bucket by bucket. Pure.

alarm            encoded etcdserverpb.AlarmMember -> b""
auth             authEnabled -> 1 or 0 (one byte); authRevision -> u64
authRoles        name -> authpb.Role
authUsers        name -> authpb.User
cluster          clusterVersion -> "3.5.0"; downgrade -> JSON
key              revision -> mvccpb.KeyValue; of a tombstone the key alone
kvstoreQuotas    prefix -> kvstore.internal.QuotaRecord: ours, where there are any; etcd passes it over
lease            id u64 -> leasepb.Lease
members          id in hexadecimal -> JSON
members_removed  id in hexadecimal -> b"removed"
meta             consistent_index, term -> u64; confState -> JSON; scheduledCompactRev, finishedCompactRev ->
                 revision; storageVersion -> "3.6.0", since 3.6
revision := main u64 | "_" | sub u64 | "t" of a tombstone                                     (big-endian)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from kvstore.etcd_db.pages import BadDatabase
from kvstore.pb.etcdserverpb_pb2 import Member

ALARM, AUTH, AUTH_ROLES, AUTH_USERS = b"alarm", b"auth", b"authRoles", b"authUsers"
CLUSTER, KEY, QUOTAS, LEASE = b"cluster", b"key", b"kvstoreQuotas", b"lease"
MEMBERS, MEMBERS_REMOVED, META = b"members", b"members_removed", b"meta"

AUTH_ENABLED, AUTH_REVISION = b"authEnabled", b"authRevision"
CLUSTER_VERSION = b"clusterVersion"
CONSISTENT_INDEX, TERM, CONF_STATE = b"consistent_index", b"term", b"confState"
SCHEDULED_COMPACT, FINISHED_COMPACT = b"scheduledCompactRev", b"finishedCompactRev"
STORAGE_VERSION = b"storageVersion"
REMOVED = b"removed"

_REVISION = struct.Struct(">QcQ")
REVISION_BYTES = _REVISION.size
U64 = struct.Struct(">Q")
_MARK, _TOMBSTONE = b"_", b"t"
_MASK = (1 << 64) - 1


def encode_revision(main: int, sub: int, *, tombstone: bool = False) -> bytes:
    return _REVISION.pack(main, _MARK, sub) + (_TOMBSTONE if tombstone else b"")


def decode_revision(place: bytes) -> tuple[int, int, bool]:
    """(main, sub, whether it is a tombstone). Raises BadDatabase."""
    size = len(place)
    if size == REVISION_BYTES or (size == REVISION_BYTES + 1 and place.endswith(_TOMBSTONE)):
        main, mark, sub = _REVISION.unpack_from(place)
        if mark == _MARK:
            return main, sub, size > REVISION_BYTES
    raise BadDatabase(f"{place[:64]!r} is no revision")


def lease_place(lease_id: int) -> bytes:
    return U64.pack(lease_id & _MASK)


def member_place(member_id: int) -> bytes:
    return f"{member_id:x}".encode()


def decode_member_place(place: bytes) -> int:
    try:
        return int(place, 16)
    except ValueError:
        raise BadDatabase(f"{place[:64]!r} is no member's id") from None


def encode_member(member: Member) -> bytes:
    """As Go writes its structure: fields in order, empty ones left out."""
    found: dict[str, Any] = {"id": member.ID, "peerURLs": list(member.peerURLs)}
    if member.isLearner:
        found["isLearner"] = True
    if member.name:
        found["name"] = member.name
    if member.clientURLs:
        found["clientURLs"] = list(member.clientURLs)
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


def decode_member(value: bytes) -> Member:
    """Raises BadDatabase."""
    try:
        found = json.loads(value)
        return Member(
            ID=found["id"],
            name=found.get("name", ""),
            peerURLs=found.get("peerURLs") or (),
            clientURLs=found.get("clientURLs") or (),
            isLearner=found.get("isLearner", False),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        raise BadDatabase(f"{value[:64]!r} is no member: {problem}") from None


def encode_conf_state(
    voters: Sequence[int], learners: Sequence[int], outgoing: Sequence[int], learners_next: Sequence[int]
) -> bytes:
    found: dict[str, Any] = {}
    for name, ids in (
        ("voters", voters),
        ("learners", learners),
        ("voters_outgoing", outgoing),
        ("learners_next", learners_next),
    ):
        if ids:
            found[name] = list(ids)
    found["auto_leave"] = bool(outgoing)
    return json.dumps(found, separators=(",", ":")).encode()
