"""Users, roles and whether anybody asks for them, between our AUTH table and etcd's three buckets.

Passwords come and go as the bcrypt hashes they are on both sides. Tokens stay behind: whoever had one shows a
password again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kvstore.etcd_db import schema
from kvstore.etcd_db.pages import BadDatabase
from kvstore.pb.authpb_pb2 import Role, User
from kvstore.pb.internal_pb2 import UserRecord
from kvstore.state.auth import STATE, STATE_KEY, AuthStore, role_place, user_place
from kvstore.state.reader import Reader
from kvstore.state.storage_process import AUTH

Items = list[tuple[bytes, bytes]]
_ON, _OFF = b"\1", b"\0"


def outward(reader: Reader) -> tuple[Items, Items, Items]:
    """The buckets auth, authRoles and authUsers."""
    store = AuthStore()
    store.load(reader)
    state = [
        (schema.AUTH_ENABLED, _ON if store.enabled else _OFF),
        (schema.AUTH_REVISION, schema.U64.pack(store.revision)),
    ]
    roles = ((role.name, _encoded(role)) for role in store.roles.values())
    users = ((record.user.name, _encoded(record.user)) for record in store.users.values())
    return state, sorted(roles), sorted(users)


@dataclass
class Users:
    """Names of what came over, and the table's rows."""

    enabled: bool = False
    roles: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    operations: dict[tuple[int, bytes], bytes | None] = field(default_factory=dict)


def inward(
    state: Iterable[tuple[bytes, bytes]],
    roles: Iterable[tuple[bytes, bytes]],
    users: Iterable[tuple[bytes, bytes]],
) -> Users:
    """Raises BadDatabase."""
    found, stored = Users(), dict(state)
    found.enabled = stored.get(schema.AUTH_ENABLED) == _ON
    revision = int.from_bytes(stored.get(schema.AUTH_REVISION, b"\1"), "big")
    for place, value in roles:
        role = Role.FromString(value)
        found.roles.append(_name(place, role.name))
        found.operations[AUTH, role_place(found.roles[-1])] = value
    for place, value in users:
        user = User.FromString(value)
        found.users.append(_name(place, user.name))
        # Whoever was shown to be this user at an earlier auth revision, by a token, is not any more.
        record = UserRecord(user=user, changed_revision=revision)
        found.operations[AUTH, user_place(found.users[-1])] = record.SerializeToString()
    if found.enabled or found.operations or revision > 1:
        found.operations[AUTH, STATE_KEY] = STATE.pack(found.enabled, revision, 0)
    return found


def _encoded(message: Role | User) -> bytes:
    return message.SerializeToString(deterministic=True)


def _name(place: bytes, name: bytes) -> str:
    if place != name:
        raise BadDatabase(f"{name[:64]!r} is stored as {place[:64]!r}")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise BadDatabase(f"{name[:64]!r} is no name") from None
