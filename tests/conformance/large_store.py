"""A snapshot of any size in etcd's format, and what a server that was restored from it holds: for migrate_large.

No more of it is in memory than a number for each key: all pairs are told by their count and the sum of their hashes,
in whatever order they come.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kvstore.etcd_db import schema
from kvstore.etcd_db.writer import write_database
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.authpb_pb2 import Permission, Role, User
from kvstore.pb.leasepb_pb2 import Lease
from kvstore.pb.mvccpb_pb2 import KeyValue
from tests.conformance.snapshots import Calls, leases_of, roles_of, users_of

VALUE_BYTES = 256
RECORD_BYTES = 17 + 16 + VALUE_BYTES + 40  # in the file, about
LEASES = 64
KEYS_OF_A_LEASE = 100  # at most; every eighth lease has none
PREFIX, PREFIX_END = b"services/", b"services0"
PAGE_KEYS = 10_000
FIRST_PAGE_S = 120.0  # of a past revision: millions are counted, in between what else the member does
USERS = ("reader", "root")
_SUM_BYTES = 16
_MASK = (1 << 8 * _SUM_BYTES) - 1

Progress = Callable[[str], None]


@dataclass
class Pairs:
    """Of some pairs how many they are, and the sum of the hashes of all that is in them."""

    count: int = 0
    sum: int = 0

    def add(self, kv: KeyValue) -> None:
        self.count += 1
        self.sum = (self.sum + _hash(kv)) & _MASK

    def remove(self, kv: KeyValue) -> None:
        self.count -= 1
        self.sum = (self.sum - _hash(kv)) & _MASK


@dataclass
class Store:
    """All that a client can read of one, by the pairs' sums: newest, and as of the revision `middle`."""

    revision: int = 0
    middle: int = 0
    newest: Pairs = field(default_factory=Pairs)
    earlier: Pairs = field(default_factory=Pairs)
    leases: dict[int, tuple[int, list[bytes]]] = field(default_factory=dict)
    users: dict[str, list[str]] = field(default_factory=dict)
    roles: dict[str, bytes] = field(default_factory=dict)

    def differences(self, other: Store) -> list[str]:
        names = ("revision", "newest", "earlier", "leases", "users", "roles")
        return [
            f"{name}: {str(getattr(self, name))[:200]} is not {str(getattr(other, name))[:200]}"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]


def _hash(kv: KeyValue) -> int:
    told = kv.SerializeToString(deterministic=True)
    return int.from_bytes(hashlib.blake2b(told, digest_size=_SUM_BYTES).digest(), "big")


def make(path: Path, gigabytes: float, progress: Progress) -> Store:
    """Two thirds of the versions are of keys of their own, the others of keys that were there. The keys come in no
    order, as they would: that is what costs most to restore. Some hang on leases; there are users and roles."""
    versions = max(int(gigabytes * (1 << 30) / RECORD_BYTES), 3 * LEASES)
    keys = versions * 2 // 3
    random_ = random.Random(1)
    noise = random_.randbytes(1 << 20)
    starts = array("L", bytes(array("L").itemsize * keys))
    store = Store(revision=versions + 1, middle=keys + 1)
    for number in range(1, LEASES + 1):
        store.leases[number << 32 | number] = 3600 * number, []
    lease_ids = [lease_id for at, lease_id in enumerate(store.leases) if at % 8]

    def version(at: int, number: int, start: int) -> KeyValue:
        first = at == number
        lease = lease_ids[number % len(lease_ids)] if number < len(lease_ids) * KEYS_OF_A_LEASE else 0
        return KeyValue(
            key=PREFIX + b"%012d/instance" % (number * 2654435761 % 10**12),
            create_revision=number + 2,
            mod_revision=at + 2,
            version=1 if first else 2,
            value=noise[start : start + VALUE_BYTES],
            lease=lease,
        )

    def content() -> Iterator[tuple[bytes, bytes]]:
        for at in range(versions):
            number = at if at < keys else (at - keys) * 2  # of those some are written a second time
            start = random_.randrange(len(noise) - VALUE_BYTES)
            kv = version(at, number, start)
            if at < keys:
                starts[number] = start
                store.earlier.add(kv)
                if kv.lease:
                    store.leases[kv.lease][1].append(kv.key)
            else:
                store.newest.remove(version(number, number, starts[number]))
            store.newest.add(kv)
            if at % PAGE_KEYS == 0:
                progress(f"{at} of {versions} versions")
            yield schema.encode_revision(at + 2, 0), kv.SerializeToString()

    auth = [(schema.AUTH_ENABLED, b"\0"), (schema.AUTH_REVISION, schema.U64.pack(7))]
    roles = [
        Role(name=b"reader", keyPermission=[Permission(key=PREFIX, range_end=PREFIX_END)]),
        Role(name=b"root"),
    ]
    users = [User(name=name.encode(), password=_hashed(f"of {name}"), roles=[name]) for name in USERS]
    leases = [
        (schema.lease_place(lease_id), Lease(ID=lease_id, TTL=ttl_s).SerializeToString())
        for lease_id, (ttl_s, _) in store.leases.items()
    ]
    buckets = [
        (schema.AUTH, auth),
        (schema.AUTH_ROLES, [(role.name, role.SerializeToString()) for role in roles]),
        (schema.AUTH_USERS, [(user.name, user.SerializeToString()) for user in users]),
        (schema.KEY, content()),
        (schema.LEASE, leases),
        (schema.META, ()),
    ]
    with path.open("wb", buffering=1 << 20) as file:
        write_database(file, buckets)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    with path.open("ab") as file:
        file.write(digest.digest())
    for _, held in store.leases.values():
        held.sort()
    store.users = {name: [name] for name in USERS}
    permission = Permission(key=PREFIX, range_end=PREFIX_END)
    store.roles = {
        "reader": pb.AuthRoleGetResponse(perm=[permission]).SerializeToString(),
        "root": b"",
    }
    return store


def read(calls: Calls, made: Store, progress: Progress, *, revision: int) -> Store:
    """What this one member has, by serializable reads: pairs as of `revision` and of made.middle."""
    store = Store(middle=made.middle)
    store.newest, store.revision = _pairs(calls, revision, "newest", made.newest.count, progress)
    store.earlier, _ = _pairs(calls, made.middle, "earlier", made.earlier.count, progress)
    store.leases = leases_of(calls)
    store.users = users_of(calls)
    store.roles = roles_of(calls)
    return store


def _pairs(calls: Calls, revision: int, what: str, of: int, progress: Progress) -> tuple[Pairs, int]:
    """The pairs below PREFIX at a revision, and the member's revision."""
    pairs, key = Pairs(), PREFIX
    while True:
        request = pb.RangeRequest(
            key=key, range_end=PREFIX_END, revision=revision, limit=PAGE_KEYS, serializable=True
        )
        found = calls("KV/Range", request, pb.RangeResponse, FIRST_PAGE_S)
        for kv in found.kvs:
            pairs.add(kv)
        progress(f"{what}: {pairs.count} of {of} pairs")
        if not found.more:
            return pairs, found.header.revision
        key = found.kvs[-1].key + b"\0"


def _hashed(password: str) -> bytes:
    import bcrypt

    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))
