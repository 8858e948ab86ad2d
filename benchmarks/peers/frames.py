"""A TCP connection of the load's, for protocols that are a few lines each."""

from __future__ import annotations

import asyncio
from typing import Self, cast


class Wire(asyncio.Protocol):
    """Subclasses take whole messages out of what came: taken(data) returns how many bytes were."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, port: int) -> Self:
        """To 127.0.0.1; returns when `ready` was settled. Raises OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(cls, "127.0.0.1", port)
        async with asyncio.timeout(10):
            await wire.ready
        return wire

    def taken(self, data: bytes) -> int:
        raise NotImplementedError

    def lost(self, why: str) -> None:
        """Every call in flight has failed."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        self._buffer = data[self.taken(data) :]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the connection ended"))
        self.lost(f"the connection ended: {error}")

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
