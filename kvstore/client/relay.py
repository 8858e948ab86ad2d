"""For --insecure-skip-tls-verify: a way around grpcio, which verifies every server.

    grpcio ── plain, a socket in a folder of this user's own ──► relay ── TLS to whoever answers ──► server

Meant for trying things out, as the flag is: one copy more of each byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import tempfile
from collections.abc import Coroutine
from typing import Any

_CHUNK_BYTES = 64 << 10


class Relay:
    """One endpoint's. start() makes it listen; target is for grpcio."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._host = host
        self._port = port
        self._context = context
        self._folder = tempfile.mkdtemp(prefix="kvstore-relay-")  # 0700
        self._server: asyncio.Server | None = None
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.target = f"unix:{self._path}"

    @property
    def _path(self) -> str:
        return os.path.join(self._folder, "socket")

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._carry, self._path)

    async def close(self) -> None:
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "carried outside a task"
        if self._closed:  # it was accepted in the turn of the loop that close() ran in
            writer.transport.abort()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there, onward = await asyncio.open_connection(self._host, self._port, ssl=self._context)
                try:
                    await _until_either(_pump(reader, onward), _pump(there, writer))
                finally:
                    onward.transport.abort()
        finally:
            writer.transport.abort()


async def _until_either(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
