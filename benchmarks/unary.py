"""Unary calls with many in flight from the raw client, where h2load's one body for all of them does not do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from benchmarks.load import LoadFailed
from benchmarks.raw_client import RawConnection
from kvstore.pb.etcdserverpb_pb2 import PutRequest

PUT = "/etcdserverpb.KV/Put"
RANGE = "/etcdserverpb.KV/Range"
TXN = "/etcdserverpb.KV/Txn"


async def pipeline(
    connections: list[RawConnection], path: str, requests: Iterator[bytes], in_flight: int
) -> list[float]:
    """Every request, in_flight of them at a time on each connection; the time each took, in seconds. Raises
    LoadFailed at the first that fails."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    took: list[float] = []
    flying = 0

    def begin(connection: RawConnection) -> None:
        nonlocal flying
        request = next(requests, None)
        if request is None:
            if not flying and not done.done():
                done.set_result(None)
            return
        flying += 1
        started = time.perf_counter()
        connection.call(path, request, None, ended(connection, started))

    def ended(connection: RawConnection, started: float) -> Callable[[str], None]:
        def end(status: str) -> None:
            nonlocal flying
            flying -= 1
            took.append(time.perf_counter() - started)
            if status and not done.done():
                done.set_exception(LoadFailed(f"{path}: {status}"))
            elif not done.done():
                begin(connection)

        return end

    for connection in connections:
        for _ in range(in_flight):
            begin(connection)
    await done
    return took


def puts(prefix: str, count: int, value_bytes: int = 256, first: int = 0) -> Iterator[bytes]:
    """PutRequests of count keys, prefix and eight digits."""
    value = b"v" * value_bytes
    for number in range(first, first + count):
        yield PutRequest(key=f"{prefix}{number:08}".encode(), value=value).SerializeToString()


async def fill(endpoint: str, prefix: str, count: int, value_bytes: int = 256, first: int = 0) -> float:
    """Puts count keys, numbered from first on; the puts a second it took."""
    connections = [await RawConnection.connect(endpoint) for _ in range(8)]
    started = time.perf_counter()
    try:
        await pipeline(connections, PUT, puts(prefix, count, value_bytes, first), 64)
    finally:
        for connection in connections:
            connection.close()
    return count / (time.perf_counter() - started)
