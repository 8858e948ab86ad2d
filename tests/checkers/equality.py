"""Members that applied the same entries hold the same state: every version, lease, attachment and mark.

What may differ is left out: how far the removal behind a compaction has come, and the links inside records
(kvstore/state/DESIGN.md, invariant 6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from kvstore.state.machine import StateMachine
from kvstore.state.records import FLAGS_AT
from kvstore.state.storage_process import (
    ALARMS,
    HISTORY,
    KEYS,
    LEASE_KEYS,
    LEASES,
    MEMBERS,
    META,
    QUOTAS,
    TABLES,
    open_tables,
)
from kvstore.state.tables import BATCHES_PREFIX, CONF_KEY, REMOVED_PREFIX

Lines = list[tuple[str, bytes]]


def state_of(machine: StateMachine) -> Lines:
    """Everything replicated that a machine holds in memory and can read, in a fixed order. Readable versions
    are those above the compaction point and, of each key, the newest at it."""
    lines: Lines = [
        ("applied", b"%d@%d" % (machine.applied_index, machine.applied_term)),
        ("revision", b"%d %d" % (machine.revision, machine.compact_revision)),
        ("conf", machine.conf),
    ]
    keyspace, point = machine.keyspace, machine.compact_revision
    for key, record in keyspace.scan(b"", None, max(point, 1)):
        lines.append(("base " + repr(key), bytes(record[:12]) + bytes(record[FLAGS_AT:])))
    for record in keyspace.history(point + 1):
        lines.append(("version", record[:12] + record[FLAGS_AT:]))
    lessor = machine.lessor
    for lease_id in lessor.leases():
        lease = lessor.get(lease_id)
        assert lease is not None
        lines.append(
            (
                f"lease {lease_id:x} {lease.ttl_ms} {lease.remaining_ms} {lease.grant_index}",
                b"\0".join(lessor.keys(lease_id)),
            )
        )
    for member_id in sorted(machine.members):
        record = machine.members[member_id].SerializeToString(deterministic=True)
        lines.append((f"member {member_id:x}", record))
    lines.append(("removed", repr(sorted(machine.removed)).encode()))
    lines.append(("alarms", repr([(each.alarm, each.memberID) for each in machine.alarms]).encode()))
    for quota in machine.quotas.all():
        record = quota.record().SerializeToString(deterministic=True)
        lines.append((f"quota {quota.prefix!r}", record))
    lines.append(("batches", repr(sorted(machine._batches.items())).encode()))
    return lines


def stored_in(machine: StateMachine) -> Lines:
    """Every record of every table of the database, links left out: for machines that have stored everything and
    removed everything that compaction made superfluous."""
    env = machine._backend.reader.env
    lines: Lines = []
    with env.begin() as transaction:
        for name, table in zip(TABLES, open_tables(env, create=False), strict=True):
            number = TABLES.index(name)
            for key, value in transaction.cursor(table).iternext():
                line = _line(number, key, value)
                if line is not None:
                    lines.append((name.decode(), line))
    return lines


def _line(table: int, key: bytes, value: bytes) -> bytes | None:
    if table == HISTORY:
        return key + value[FLAGS_AT - 12 :]
    if table == KEYS:
        return key + value[:12] + value[FLAGS_AT:]
    if table == META:
        kept = (BATCHES_PREFIX, REMOVED_PREFIX, CONF_KEY)
        return key + value if key.startswith(kept) else None
    assert table in (LEASES, LEASE_KEYS, MEMBERS, ALARMS, QUOTAS) or not value, "a table nobody writes"
    return key + value


def digest(lines: Lines) -> bytes:
    value = hashlib.sha256()
    for name, content in lines:
        value.update(b"%d %d " % (len(name), len(content)))
        value.update(name.encode())
        value.update(content)
    return value.digest()


def differences(one: Lines, other: Lines) -> Iterator[str]:
    """What is in one and not in the other, at most a few of each."""
    for label, left, right in (("only here", one, other), ("only there", other, one)):
        known = set(right)
        for name, content in [line for line in left if line not in known][:3]:
            yield f"{label}: {name} {content[:100]!r}"
