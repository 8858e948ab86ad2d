"""Users, roles, permissions, and whether anybody asks for them: the replicated half of authentication. Pure.

The auth revision grows with every change of any of it. A user's name counts as shown (by a password, a token)
at some auth revision; it holds until that user is made anew or given another password, and until
authentication is turned off. Changes of anything else leave it alone: no token ends because of another user.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple

from kvstore.pb.authpb_pb2 import Permission, Role
from kvstore.pb.internal_pb2 import UserRecord
from kvstore.state.key_ranges import KeyRange, KeyRanges, key_range
from kvstore.state.storage_process import AUTH
from kvstore.state.tables import Tables

ROOT = "root"
"""The user that must exist, and the role that permits everything."""
STATE_KEY = b"state"
STATE = struct.Struct(">BQQ")  # enabled, revision, ended_revision
_USER, _ROLE = b"u", b"r"
_SHORT_MAX, _KEPT = 480, 449


class Identity(NamedTuple):
    """Who somebody is, and the auth revision at which that was shown."""

    user: str
    revision: int


class Access:
    """What one user may do, all roles together."""

    __slots__ = ("is_root", "reads", "roles", "user", "writes")

    def __init__(self, user: str, names: Iterable[str], roles: dict[str, Role]) -> None:
        self.user = user
        self.roles = frozenset(names)
        self.is_root = ROOT in self.roles
        reads: list[KeyRange] = []
        writes: list[KeyRange] = []
        for name in sorted(name for name in self.roles if name in roles):
            for permission in roles[name].keyPermission:
                keys = key_range(permission.key, permission.range_end)
                if permission.permType in (Permission.READ, Permission.READWRITE):
                    reads.append(keys)
                if permission.permType in (Permission.WRITE, Permission.READWRITE):
                    writes.append(keys)
        self.reads = KeyRanges(reads)
        self.writes = KeyRanges(writes)

    def may_read(self, key: bytes, range_end: bytes = b"") -> bool:
        return self.is_root or self.reads.cover(*key_range(key, range_end))

    def may_write(self, key: bytes, range_end: bytes = b"") -> bool:
        return self.is_root or self.writes.cover(*key_range(key, range_end))


class AuthStore:
    def __init__(self) -> None:
        self.enabled = False
        self.revision = 1
        self.ended_revision = 0
        """Nobody who was shown to be anybody before it still is."""
        self.users: dict[str, UserRecord] = {}
        self.roles: dict[str, Role] = {}
        self.tokens: dict[str, Identity] = {}
        """Granted through the log and known to every member that was there. Not stored, and neither is how long
        they last: that is the affair of whoever looks at a clock."""
        self.changed = False
        """Set with every change, for whoever keeps what was decided before it; they reset it."""
        self._accesses: dict[str, Access] = {}

    def load(self, store: Tables) -> None:
        """Takes over what is stored, at the start and after a snapshot came in."""
        found = store.get(AUTH, STATE_KEY)
        enabled, self.revision, self.ended_revision = (0, 1, 0) if found is None else STATE.unpack(found)
        self.users.clear()
        self.roles.clear()
        for place, value in store.table(AUTH):
            if place.startswith(_USER):
                record = UserRecord.FromString(value)
                self.users[record.user.name.decode()] = record
            elif place.startswith(_ROLE):
                role = Role.FromString(value)
                self.roles[role.name.decode()] = role
        self.enabled = bool(enabled)
        self.forget_accesses()

    def access(self, user: str) -> Access | None:
        """None where there is no such user."""
        access = self._accesses.get(user)
        if access is None:
            record = self.users.get(user)
            if record is None:
                return None
            access = self._accesses[user] = Access(user, record.user.roles, self.roles)
        return access

    def forget_accesses(self) -> None:
        self._accesses.clear()
        self.changed = True

    def holds(self, identity: Identity) -> bool:
        """Whether somebody who was shown to be this user is so still."""
        record = self.users.get(identity.user)
        return (
            record is not None
            and record.changed_revision <= identity.revision
            and self.ended_revision <= identity.revision
        )


def user_place(name: str) -> bytes:
    return _place(_USER, name.encode())


def role_place(name: str) -> bytes:
    return _place(_ROLE, name.encode())


def _place(kind: bytes, name: bytes) -> bytes:
    """Where it is stored. The name is in the value as well, as a long one does not fit here; a long one's place
    is longer than any short one's, so that the two cannot meet."""
    if len(name) <= _SHORT_MAX:
        return kind + name
    return kind + name[:_KEPT] + hashlib.sha256(name).digest()
