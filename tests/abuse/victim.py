"""The member under attack: what it holds, and how its memory grows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, pipeline
from kvstore.pb.etcdserverpb_pb2 import PutRequest

KEYS, VALUE_BYTES = 1_000, 1_000


async def fill(endpoint: str) -> None:
    """What attacks.LARGE asks for."""
    connection = await RawConnection.connect(endpoint)
    await pipeline(
        [connection],
        PUT,
        (
            PutRequest(key=b"large/%04d" % n, value=b"v" * VALUE_BYTES).SerializeToString()
            for n in range(KEYS)
        ),
        32,
    )
    connection.close()


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no VmRSS")


class Memory:
    """The member's own process, looked at every few milliseconds."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._highest = resident_mb(pid)

    @property
    def growth_mb(self) -> float:
        return self._highest - self._before

    @classmethod
    @contextlib.asynccontextmanager
    async def watching(cls, pid: int) -> AsyncIterator[Memory]:
        memory = cls(pid)
        task = asyncio.ensure_future(memory._watch())
        try:
            yield memory
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        while True:
            self._highest = max(self._highest, resident_mb(self._pid))
            await asyncio.sleep(0.02)
