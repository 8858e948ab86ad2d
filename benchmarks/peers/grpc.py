"""Ours, etcd and the floor: puts and gets of etcd's protocol."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.figures import FLOOR
from benchmarks.floor.start import start_floor
from benchmarks.load import Shape
from benchmarks.peers.peer import VALUE, OnDone, drive
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, RANGE
from kvstore.demo.processes import Programs
from kvstore.pb.etcdserverpb_pb2 import PutRequest, RangeRequest

KEY = b"k" * 8
SYNCED = "fdatasync on a majority"
_PUT = PutRequest(key=KEY, value=VALUE).SerializeToString()
_GETS = {
    "get": RangeRequest(key=KEY, serializable=True).SerializeToString(),
    "linearizable get": RangeRequest(key=KEY).SerializeToString(),
}


class GrpcConnection:
    def __init__(self, connection: RawConnection, get: bytes) -> None:
        self._connection, self._get = connection, get

    def put(self, done: OnDone) -> None:
        self._connection.call(PUT, _PUT, None, done)

    def get(self, done: OnDone) -> None:
        held = False

        def message(data: bytes) -> None:
            nonlocal held
            held = VALUE in data

        def end(status: str) -> None:
            done(status or ("" if held else "an answer without the value"))

        self._connection.call(RANGE, self._get, message, end)

    def close(self) -> None:
        self._connection.close()


class GrpcPeer:
    """Members that run already, asked at their leader."""

    puts = SYNCED
    gets = "what this member has applied"

    def __init__(self, name: str, endpoint: str) -> None:
        self.name, self._endpoint = name, endpoint

    async def start(self, folder: Path, programs: Programs) -> None:
        """There is nothing to start."""

    async def rate(self, operation: str, shape: Shape) -> float:
        async def connect() -> GrpcConnection:
            return GrpcConnection(await RawConnection.connect(self._endpoint), _GETS.get(operation, b""))

        return await drive(connect, operation, shape)


class Floor(GrpcPeer):
    puts = f"{SYNCED}; no elections, no recovery"
    gets = ""

    def __init__(self) -> None:
        super().__init__(FLOOR, "")

    async def start(self, folder: Path, programs: Programs) -> None:
        self._endpoint = await start_floor(folder, programs)


async def write_once(endpoint: str) -> None:
    """So that there is something to get."""
    connection = await RawConnection.connect(endpoint)
    try:
        async with asyncio.timeout(30):
            await connection.ask(PUT, _PUT)
    finally:
        connection.close()
