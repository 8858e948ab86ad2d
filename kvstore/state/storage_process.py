"""LMDB's only writer: a process of its own, fed batches of packed bytes, one transaction each.

A process and not a thread, because py-lmdb gives up and retakes the GIL on every put, and beside a busy event
loop a thread stored nothing until the loop stopped (docs/decisions/0003). It imports next to nothing, because
what it imports is 2 MiB of every member: no typing, no socket, no signal. It is started with its signals
blocked, so that none but SIGKILL ends it, and ends when its socket ends, after the batch it is at. While it
lives it holds the descriptors it inherited, the data directory's lock among them: no second member can open the
directory.

    frame := generation u64 | counts 4 x u32 | lengths u32 * | records | drops 12 * | forgets | operations
    forget    := key length u32 | own 12 | key                     the key's record, if it still is that one
    operation := table u8 | key length u32 | value length u32 (ABSENT: delete) | key | value
    reply := status u8 | generation u64 | text length u32 | text

On the socket a frame is preceded by its length, u64. The same commit() runs in-process for tests and
simulation (backend.py), so both write the same bytes.
"""

from __future__ import annotations

import os
import struct
import sys

import lmdb

from kvstore.state.long_keys import changed, find, is_bucket, place_of
from kvstore.state.records import Buffer, key_of

TYPE_CHECKING = False  # typing's own would cost the import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

HISTORY, KEYS, META, LEASES, LEASE_KEYS, MEMBERS, ALARMS, AUTH, QUOTAS = range(9)
TABLES = (b"history", b"keys", b"meta", b"leases", b"lease_keys", b"members", b"alarms", b"auth", b"quotas")
HEAD = struct.Struct(">QIIII")
FORGET = struct.Struct(">I12s")
OPERATION = struct.Struct(">BII")
ABSENT = 0xFFFF_FFFF
REPLY = struct.Struct(">BQI")
SIZE = struct.Struct(">Q")
OK, FAILED = 0, 1


class BadFrame(ValueError):
    """The frame contradicts what is stored; only a fault of this program can make one."""


def open_environment(path: str, *, map_bytes: int, sync: bool, read_only: bool = False) -> Any:
    """LMDB's defaults are the safe ones: two meta pages, data synced before them."""
    return lmdb.Environment(
        path,
        map_size=map_bytes,
        subdir=False,
        readonly=read_only,
        sync=sync,
        metasync=sync,
        meminit=False,
        max_dbs=len(TABLES) + 8,
        max_readers=64,
        max_spare_txns=4,
    )


def open_tables(env: Any, *, create: bool) -> list[Any]:
    """The tables in the order of their numbers; every one is made on the first start."""
    return [env.open_db(name, create=create) for name in TABLES]


def encode_frame(
    generation: int,
    records: list[bytes],
    drops: list[bytes],
    forgets: list[tuple[bytes, bytes]],
    operations: dict[tuple[int, bytes], bytes | None],
) -> bytes:
    """forgets: (key, own) pairs; operations: (table, key) -> value, None to delete."""
    count = len(records)
    head = HEAD.pack(generation, count, len(drops), len(forgets), len(operations))
    parts = [head, struct.pack(f">{count}I", *map(len, records))]
    parts += records
    parts += drops
    for key, own in forgets:
        parts += (FORGET.pack(len(key), own), key)
    for (table, key), value in operations.items():
        size = ABSENT if value is None else len(value)
        parts += (OPERATION.pack(table, len(key), size), key, value or b"")
    return b"".join(parts)


def commit(env: Any, tables: list[Any], frame: memoryview) -> int:
    """Stores one frame in one transaction and returns its generation; on any error nothing of it is stored."""
    generation, records, drops, forgets, operations = HEAD.unpack_from(frame)
    with env.begin(write=True) as txn:
        at, latest = _store_history(txn, tables[HISTORY], frame, records)
        for _ in range(drops):
            txn.delete(frame[at : at + 12], db=tables[HISTORY])
            at += 12
        gone: dict[bytes, bytes] = {}
        for _ in range(forgets):
            size, own = FORGET.unpack_from(frame, at)
            at += FORGET.size
            gone[bytes(frame[at : at + size])] = own
            at += size
        _store_latest(txn, tables[KEYS], latest, gone)
        for _ in range(operations):
            table, key_size, value_size = OPERATION.unpack_from(frame, at)
            at += OPERATION.size
            key = frame[at : at + key_size]
            at += key_size
            if value_size == ABSENT:
                txn.delete(key, db=tables[table])
            else:
                txn.put(key, frame[at : at + value_size], db=tables[table])
                at += value_size
        if at != len(frame):
            raise BadFrame(f"frame of {len(frame)} bytes, {at} understood")
    return int(generation)


def sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def serve(channel: int, path: str, *, map_bytes: int, sync: bool) -> None:
    """Commits frame after frame until the socket, a descriptor, ends. The first reply, generation 0, says it is
    open."""
    env = open_environment(path, map_bytes=map_bytes, sync=sync)
    env.reader_check()  # readers of a member that was killed would keep pages from being used again
    tables = open_tables(env, create=True)
    sync_directory(os.path.dirname(path))
    _send(channel, REPLY.pack(OK, 0, 0))
    while True:
        head = _receive(channel, SIZE.size)
        if head is None:
            break
        body = _receive(channel, SIZE.unpack(head)[0])
        if body is None:
            break
        generation = commit(env, tables, memoryview(body))
        del body
        _send(channel, REPLY.pack(OK, generation, 0))
    env.close()


def main() -> None:
    """argv: socket's descriptor, database path, map size in bytes, 1 to sync."""
    channel, path, map_bytes, sync = sys.argv[1:5]
    _stand_back()
    try:
        serve(int(channel), path, map_bytes=int(map_bytes), sync=sync == "1")
    except Exception as problem:  # whatever it is, the member must hear of it and stop
        text = f"{type(problem).__name__}: {problem}".encode()[:4096]
        try:
            _send(int(channel), REPLY.pack(FAILED, 0, len(text)) + text)
        except OSError:
            sys.exit(2)  # the member has gone already
        sys.exit(1)


def _stand_back() -> None:
    """Among processes of equal rank one that has just been woken may take another's turn; this one must not take
    a member's, which somebody waits for. A sandbox may forbid to ask, and then it does not matter enough to fail."""
    if hasattr(os, "SCHED_BATCH"):
        try:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError:
            return


def _store_history(txn: Any, table: Any, frame: memoryview, count: int) -> tuple[int, dict[bytes, Buffer]]:
    """Appends the records, which are in ascending order. Returns where they end, and each key's last one."""
    latest: dict[bytes, Buffer] = {}
    at = HEAD.size + 4 * count
    for record in _records(frame, count):
        latest[key_of(record)] = record
        at += len(record)
    if count:
        consumed, added = txn.cursor(table).putmulti(_items(frame, count), append=True)
        if added != consumed:
            _check_repeated(txn, table, frame, count)
    return at, latest


def _records(frame: memoryview, count: int) -> Iterator[memoryview]:
    at = HEAD.size + 4 * count
    for size in struct.unpack_from(f">{count}I", frame, HEAD.size):
        yield frame[at : at + size]
        at += size


def _items(frame: memoryview, count: int) -> Iterator[tuple[memoryview, memoryview]]:
    """One at a time: a list of them would take more memory than the records."""
    for record in _records(frame, count):
        yield record[:12], record[12:]


def _check_repeated(txn: Any, table: Any, frame: memoryview, count: int) -> None:
    """Append refuses what is not above the highest revision. That is right for a frame stored before, and
    for nothing else."""
    for own, rest in _items(frame, count):
        if txn.get(own, db=table) != rest:
            raise BadFrame(f"revision {bytes(own).hex()} is below the highest stored and differs from it")


def _store_latest(txn: Any, table: Any, latest: dict[bytes, Buffer], gone: dict[bytes, bytes]) -> None:
    buckets: dict[bytes, dict[bytes, Buffer | None]] = {}
    short: list[tuple[bytes, Buffer]] = []
    for key in sorted(latest):
        place = place_of(key)
        if is_bucket(place):
            buckets.setdefault(place, {})[key] = latest[key]
        else:
            short.append((key, latest[key]))
    if short:
        txn.cursor(table).putmulti(short)
    for key, own in gone.items():
        if key in latest:
            continue
        place = place_of(key)
        stored: Buffer | None = txn.get(place, db=table)
        if stored is not None and is_bucket(place):
            stored = find(stored, key)
        if stored is None or stored[:12] != own:
            continue
        if is_bucket(place):
            buckets.setdefault(place, {})[key] = None
        else:
            txn.delete(key, db=table)
    for place, changes in sorted(buckets.items()):
        before = txn.get(place, default=b"", db=table)
        after = changed(before, changes)
        if after:
            txn.put(place, after, db=table)
        elif before:
            txn.delete(place, db=table)


def _receive(channel: int, size: int) -> bytearray | None:
    """Exactly size bytes, or None where the sender went away before."""
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size:
        count = os.readv(channel, [view[got:]])
        if not count:
            return None
        got += count
    return buffer


def _send(channel: int, data: bytes) -> None:
    while data:
        data = data[os.write(channel, data) :]
