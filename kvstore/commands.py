"""The replicated command: what one log entry holds. Encoded once, by the member that took the requests.

An entry is a batch: every write that reached one member in one turn of its loop. The batch is encoded there,
and the same bytes go to the leader, the write-ahead log and every follower (docs/decisions/0002).

    batch   := origin u64 | incarnation u64 | sequence u64 | count u32 | command * count        (big-endian)
    command := kind u8 | length u32 | payload

(origin, incarnation, sequence) makes a batch apply at most once: origin is the member id, incarnation grows
with each of its starts, sequence with each batch. State applies a batch only when (incarnation, sequence) is
above the last one it applied from that origin, so a member may send a batch again to a new leader.
Payloads are the client's own request bytes wherever the request needs nothing added.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from kvstore.pb.internal_pb2 import AuthorizedCommand
from kvstore.version import VERSION

BATCH = struct.Struct(">QQQI")
COMMAND = struct.Struct(">BI")
COMMAND_SIZE = COMMAND.size


class Kind(IntEnum):
    """What a command does, and what its payload is. Numbers are in logs: never reuse one. A member stops at a number
    it does not know (UnknownCommand), but reads over a field that it does not: what changes an effect is a new kind."""

    PUT = 1  # etcdserverpb.PutRequest
    DELETE_RANGE = 2  # etcdserverpb.DeleteRangeRequest
    TXN = 3  # etcdserverpb.TxnRequest
    COMPACT = 4  # etcdserverpb.CompactionRequest
    LEASE_GRANT = 5  # etcdserverpb.LeaseGrantRequest, ID and TTL already settled
    LEASE_REVOKE = 6  # etcdserverpb.LeaseRevokeRequest
    LEASE_EXPIRE = 7  # kvstore.internal.LeaseExpire
    MEMBER_PUBLISH = 8  # kvstore.internal.MemberRecord
    ALARM = 9  # etcdserverpb.AlarmRequest
    MEMBER_UPDATE = 10  # etcdserverpb.Member: ID and peerURLs
    AUTHORIZED = 11  # kvstore.internal.AuthorizedCommand: one of the others, in a user's name
    TOKEN_GRANT = 12  # kvstore.internal.TokenGrant
    AUTH_ENABLE = 13  # etcdserverpb.AuthEnableRequest, and so on: a password is its hash by now
    AUTH_DISABLE = 14
    USER_ADD = 15
    USER_DELETE = 16
    USER_CHANGE_PASSWORD = 17
    USER_GRANT_ROLE = 18
    USER_REVOKE_ROLE = 19
    ROLE_ADD = 20
    ROLE_DELETE = 21
    ROLE_GRANT_PERMISSION = 22
    ROLE_REVOKE_PERMISSION = 23
    ANNOUNCE = 30  # kvstore.internal.Announce
    ANNOUNCE_END = 31  # kvstore.internal.AnnounceEnd
    LEASE_CHECKPOINT = 32  # kvstore.internal.LeaseCheckpoint
    QUOTA_SET = 40  # kvstore.v1.QuotaSetRequest
    QUOTA_REMOVE = 41  # kvstore.v1.QuotaRemoveRequest


LEVEL = 2
"""Of the commands that this version knows: one more with every version that brings a kind, or a field that changes an
effect. Each member tells the others its own; what is above the lowest of them is not proposed, for it would stop the
member that does not know it."""
NEEDS_LEVEL = {Kind.LEASE_CHECKPOINT: 1, Kind.QUOTA_SET: 1, Kind.QUOTA_REMOVE: 1}
TAKE_OVER_LEVEL = 1  # Announce.take_over
EXPIRED_GRANTS_LEVEL = 2  # LeaseExpire.grant_indexes

MEMBERS_OWN = frozenset(
    (
        *(Kind.LEASE_EXPIRE, Kind.LEASE_CHECKPOINT, Kind.MEMBER_PUBLISH),
        *(Kind.AUTHORIZED, Kind.TOKEN_GRANT, Kind.ANNOUNCE_END),
    )
)
"""What only members propose; the end of an announcement for whoever holds its session. Every other kind is refused
while authentication is on, unless it comes as AUTHORIZED: a member that has not heard of that yet lets clients
in without a name."""


def own_command(kind: Kind, payload: bytes) -> tuple[Kind, bytes]:
    """A command that clients may ask for as well, as a member gives it by itself: it stands under nobody's
    permissions."""
    command = AuthorizedCommand(member=True, kind=kind, payload=payload)
    return Kind.AUTHORIZED, command.SerializeToString()


class BatchHeader(NamedTuple):
    origin: int
    incarnation: int
    sequence: int
    command_count: int


class UnknownCommand(Exception):
    """A newer member wrote it, and this one must stop: passed over, it would make the members differ."""

    def __init__(self, kind: int, index: int) -> None:
        super().__init__(
            f"entry {index} of the log holds a command of kind {kind}, which kvstore {VERSION} does not know: a "
            "newer member wrote it. Start this member with the version that the others run; its data is in order"
        )
        self.kind = kind
        self.index = index


class MalformedBatch(ValueError):
    """The bytes are not a batch: only a peer or a disk can have made them, never a client."""


def encode_batch(
    commands: Sequence[tuple[int, bytes]], *, origin: int, incarnation: int, sequence: int
) -> bytes:
    """Encodes (kind, payload) pairs as one entry."""
    pack = COMMAND.pack
    parts = [BATCH.pack(origin, incarnation, sequence, len(commands))]
    for kind, payload in commands:
        parts.append(pack(kind, len(payload)))
        parts.append(payload)
    return b"".join(parts)


def decode_header(data: bytes) -> BatchHeader:
    if len(data) < BATCH.size:
        raise MalformedBatch(f"{len(data)} bytes are fewer than a batch header's {BATCH.size}")
    return BatchHeader(*BATCH.unpack_from(data))


def decode_commands(data: bytes) -> list[tuple[int, bytes]]:
    """(kind, payload) of each command. Raises MalformedBatch where the bytes end early or late."""
    offset, end, unpack = BATCH.size, len(data), COMMAND.unpack_from
    commands = []
    for _ in range(decode_header(data).command_count):
        if offset + COMMAND_SIZE > end:
            raise MalformedBatch("a command's header is cut off")
        kind, size = unpack(data, offset)
        start = offset + COMMAND_SIZE
        offset = start + size
        if offset > end:
            raise MalformedBatch("a command's payload is cut off")
        commands.append((kind, data[start:offset]))
    if offset != end:
        raise MalformedBatch(f"{end - offset} bytes follow the last command")
    return commands
