"""The floor's leader and followers, and how they speak.

leader ─► follower   length u32 | last index u64 | commit u64 | record * n      record := length, crc, term, index
follower ─► leader   index u64, durable there
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Protocol, cast

from benchmarks.floor.disk import Log, Store

APPEND = Struct(">IQQ")
RECORD = Struct(">IIQQ")
ACK = Struct(">Q")
TERM = 1


class Asker(Protocol):
    """Who sent a put and waits for its answer."""

    def answer(self, stream: int, revision: int) -> None: ...

    def flush(self) -> None:
        """Every answer of this turn was given."""


class Follower(asyncio.Protocol):
    """The leader's connection, at a follower: writes what comes, says so, applies what is committed."""

    def __init__(self, folder: Path) -> None:
        self._store, self._path = Store(folder / "db"), folder / "log"
        self._buffer = b""
        self._waiting: deque[tuple[int, bytes]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        leader = cast(asyncio.Transport, transport)
        self._log = Log(self._path, lambda index: leader.write(ACK.pack(index)))

    def data_received(self, data: bytes) -> None:
        data, at = self._buffer + data, 0
        while len(data) - at >= APPEND.size:
            size, index, commit = APPEND.unpack_from(data, at)
            start = at + APPEND.size
            if len(data) - start < size:
                break
            at = start + size
            records = data[start:at]
            self._log.append(index, records)
            self._waiting.append((index, records))
            while self._waiting and self._waiting[0][0] <= commit:
                self._apply(self._waiting.popleft()[1])
        self._buffer = data[at:]

    def _apply(self, records: bytes) -> None:
        at = 0
        while at < len(records):
            start = at + RECORD.size
            at = start + RECORD.unpack_from(records, at)[0]
            self._store.put(records[start:at])


class Leader:
    """Makes one batch of what comes in a turn of the loop; a record for each put all the same."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder / "db")
        self._log = Log(folder / "log", lambda index: self.durable("leader", index))
        self._loop = asyncio.get_running_loop()
        self._durable = {"leader": 0}
        self._followers: list[asyncio.Transport] = []
        self._batch: list[tuple[Asker, int, bytes]] = []
        self._waiting: deque[tuple[int, list[tuple[Asker, int, bytes]]]] = deque()
        self._index = self._commit = 0

    async def connect(self, ports: list[int]) -> None:
        """To the followers on 127.0.0.1."""
        for port in ports:
            await self._loop.create_connection(partial(Acks, self, str(port)), "127.0.0.1", port)

    def joined(self, name: str, follower: asyncio.Transport) -> None:
        self._durable[name] = 0
        self._followers.append(follower)

    def propose(self, asker: Asker, stream: int, request: bytes) -> None:
        if not self._batch:
            self._loop.call_soon(self._send)
        self._batch.append((asker, stream, request))

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        parts: list[bytes] = []
        for _, _, request in batch:
            self._index += 1
            parts += (RECORD.pack(len(request), zlib.crc32(request), TERM, self._index), request)
        records = b"".join(parts)
        self._waiting.append((self._index, batch))
        self._log.append(self._index, records)
        message = APPEND.pack(len(records), self._index, self._commit) + records
        for follower in self._followers:
            follower.write(message)

    def durable(self, name: str, index: int) -> None:
        """A member has everything up to index on its disk."""
        self._durable[name] = index
        commit = sorted(self._durable.values())[len(self._durable) // 2]
        if commit > self._commit:
            self._commit = commit
            self._apply()

    def _apply(self) -> None:
        askers: dict[Asker, None] = {}
        while self._waiting and self._waiting[0][0] <= self._commit:
            for asker, stream, request in self._waiting.popleft()[1]:
                asker.answer(stream, self._store.put(request))
                askers[asker] = None
        for asker in askers:
            asker.flush()


class Acks(asyncio.Protocol):
    """A follower's connection, at the leader."""

    def __init__(self, leader: Leader, name: str) -> None:
        self._leader, self._name, self._buffer = leader, name, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._leader.joined(self._name, cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        whole = len(data) // ACK.size * ACK.size
        self._buffer = data[whole:]
        if whole:
            self._leader.durable(self._name, ACK.unpack_from(data, whole - ACK.size)[0])
