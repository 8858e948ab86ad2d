"""etcdserverpb.Maintenance: Snapshot and Hash, both of this member's own state, made by a process beside it.

A snapshot holds everything this member had applied when it was asked. It is written to the local disk first and
sent from there, as fast as the client reads: a slow client holds a file, never the state's pages.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Coroutine
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from kvstore import errors, log
from kvstore.api.context import Context, parse
from kvstore.api.errors import fail, status_of
from kvstore.backup.exporter import Exporter, ExportFailed
from kvstore.pb.etcdserverpb_pb2 import HashRequest, HashResponse, SnapshotRequest, SnapshotResponse
from kvstore.rpc import Methods, Status, StreamCall, StreamHandler, StreamMethod, UnaryCall, UnaryMethod
from kvstore.version import CLUSTER_VERSION

CHUNK_BYTES = 32 << 10
SLAB_BYTES = 16 * CHUNK_BYTES
"""Read at once, outside the loop; about what may wait in memory for a client to read."""
STREAMS_MAX = 4
STALL_S = 300.0
"""A client that reads nothing for so long is let go of, and its file with it."""
POLL_S = 0.01


class Exports(Protocol):
    async def snapshot(self) -> tuple[int, int]: ...

    async def hash(self) -> int: ...


class SnapshotService:
    def __init__(self, context: Context, exports: Exports | None = None) -> None:
        config = context.config
        folder = os.path.join(os.path.abspath(config.data_dir), "member")
        self._context = context
        self._exports = exports or Exporter(
            os.path.join(folder, "db"), os.path.join(folder, "snap"), context.machine.map_bytes
        )
        self._one = asyncio.Lock()  # one export at a time: each may use a processor
        self.tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> Methods:
        return {
            "/etcdserverpb.Maintenance/Snapshot": StreamMethod(self.open),
            "/etcdserverpb.Maintenance/Hash": UnaryMethod(self.hash),
        }

    def open(self, call: StreamCall) -> StreamHandler:
        return SnapshotStream(self, call)

    def hash(self, call: UnaryCall, data: bytes) -> None:
        """Of keys, leases, members, alarms, users and roles. Equal members answer equally."""
        if parse(call, HashRequest, data) is None:
            return
        if len(self.tasks) >= STREAMS_MAX:
            fail(call, errors.TooManyRequests())
            return
        self.start(self._hash(call))

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _hash(self, call: UnaryCall) -> None:
        try:
            await self.stored()
            async with self._one:
                try:
                    value = await self._exports.hash()
                finally:
                    self._context.machine.release_dead_readers()
        except ExportFailed as problem:
            call.fail(Status.INTERNAL, f"kvstore: hash: {problem}")
            return
        reply = HashResponse(hash=value)
        call.reply(self._context.header(self._context.machine.revision) + reply.SerializeToString())

    async def make(self) -> tuple[int, int]:
        """(descriptor, size) of a file that holds everything applied until now."""
        await self.stored()
        async with self._one:
            try:
                return await self._exports.snapshot()
            finally:
                self._context.machine.release_dead_readers()

    async def stored(self) -> None:
        """Waits until LMDB holds what is applied now: a tenth of a second at most, on a healthy disk."""
        machine = self._context.machine
        index = machine.applied_index
        while machine.durable_index < index:  # noqa: ASYNC110  on_durable has one listener, the driver
            await asyncio.sleep(POLL_S)


class SnapshotStream:
    def __init__(self, service: SnapshotService, call: StreamCall) -> None:
        self._service = service
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()

    def message(self, data: bytes) -> None:
        if self._task is not None:
            return
        try:
            SnapshotRequest.FromString(data)
        except DecodeError as problem:
            self._call.finish(Status.INTERNAL, f"grpc: error unmarshalling request: {problem}")
            return
        if len(self._service.tasks) >= STREAMS_MAX:
            self._call.finish(*status_of(errors.TooManyRequests()))
            return
        self._task = self._service.start(self._run())

    def half_closed(self) -> None:
        """The one request has come already."""

    def cancelled(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def drained(self) -> None:
        self._drained.set()

    async def _run(self) -> None:
        try:
            descriptor, size = await self._service.make()
            try:
                log.info("sending a database snapshot to a client", bytes=size)
                await self._send(descriptor, size)
                self._call.finish()
                log.info("sent a database snapshot to a client", bytes=size)
            finally:
                os.close(descriptor)
        except TimeoutError:  # which is an OSError too
            log.warn("a client has stopped reading its database snapshot", stalled_s=STALL_S)
            self._call.finish(Status.DEADLINE_EXCEEDED, "kvstore: snapshot: the client reads nothing")
        except (ExportFailed, OSError) as problem:
            log.warn("a database snapshot failed", error=str(problem))
            self._call.finish(Status.INTERNAL, f"kvstore: snapshot: {problem}")

    async def _send(self, descriptor: int, size: int) -> None:
        loop, digest, sent = asyncio.get_running_loop(), hashlib.sha256(), 0

        def read(at: int) -> bytes:
            slab = os.pread(descriptor, min(SLAB_BYTES, size - at), at)
            digest.update(slab)
            return slab

        while sent < size:
            slab = await loop.run_in_executor(None, read, sent)
            if not slab:
                raise OSError(f"the file ends at {sent} of {size} bytes")
            for at in range(0, len(slab), CHUNK_BYTES):
                chunk = slab[at : at + CHUNK_BYTES]
                sent += len(chunk)
                self._call.send(_response(size - sent, chunk))
            await self._room()
        self._call.send(_response(0, digest.digest()))

    async def _room(self) -> None:
        """Waits until the client has taken what was sent. Raises TimeoutError."""
        self._drained.clear()
        if self._call.buffered_bytes:
            async with asyncio.timeout(STALL_S):
                await self._drained.wait()


def _response(remaining: int, blob: bytes) -> bytes:
    """No header, as etcd."""
    reply = SnapshotResponse(remaining_bytes=remaining, blob=blob, version=CLUSTER_VERSION)
    return reply.SerializeToString()
