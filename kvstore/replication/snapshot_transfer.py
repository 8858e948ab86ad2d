"""Carries a snapshot's file from the leader to a follower on a connection of its own, so that no heartbeat waits
behind it.

    sender: SNAPSHOT_BEGIN(InstallSnapshot, size)  SNAPSHOT_CHUNK*  SNAPSHOT_END(CRC-32 of the data)
    receiver: SNAPSHOT_RESULT("" or what went wrong)

The receiver writes to a temporary name, checks length and CRC, syncs, renames, syncs the directory, and only
then says yes and hands the message on. Files are read and written on executor threads; a slow disk stops the
reading of the socket, and so the sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import zlib
from collections.abc import Callable

from kvstore import log
from kvstore.pb.internal_pb2 import PeerHello
from kvstore.replication.peer_protocol import (
    SNAPSHOT_BEGIN,
    SNAPSHOT_CHUNK,
    SNAPSHOT_END,
    Channel,
    Dialer,
    Frame,
    PeerProtocolError,
    decode_snapshot_begin,
    decode_snapshot_end,
    decode_snapshot_result,
    dial,
    encode_frame,
    encode_snapshot_begin,
    encode_snapshot_end,
    encode_snapshot_result,
    refused,
)
from kvstore.replication.world import Disk
from raft.messages import InstallSnapshot

CHUNK_BYTES = 256 << 10
PROGRESS_TIMEOUT_S = 30.0  # without a byte taken, or without an answer at the end
SNAPSHOT_BYTES_MAX = 1 << 40
_WRITE_BYTES = 4 << 20  # received and not yet written: above it the socket is not read

OnSnapshot = Callable[[int, InstallSnapshot, str], None]


class SnapshotFailed(Exception):
    """The snapshot did not arrive, or whether it did is unknown; sending it again is safe."""


class SnapshotTransfers:
    """Both directions of one member. At most one transfer to, and one from, each other member at a time."""

    def __init__(
        self,
        *,
        self_id: int,
        directory: str,
        disk: Disk,
        on_snapshot: OnSnapshot,
        client_ssl: ssl.SSLContext | None = None,
        progress_timeout_s: float = PROGRESS_TIMEOUT_S,
    ) -> None:
        """directory exists; snapshots that arrived lie there, named {index}-{term}.snapshot. on_snapshot(from_id,
        message, path) is called on the loop once the file is durable; the file is the caller's from then on."""
        self.self_id = self_id
        self.directory = directory
        self.disk = disk
        self.on_snapshot = on_snapshot
        self.progress_timeout_s = progress_timeout_s
        self._client_ssl = client_ssl
        self._sending: set[int] = set()
        self.receiving: dict[int, _Receiver] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.count = 0

    def remove_leftovers(self) -> None:
        """At a start: what an interrupted transfer left. Blocking."""
        for name in self.disk.list(self.directory):
            if name.endswith(".snapshot.tmp"):
                self.disk.unlink(os.path.join(self.directory, name))

    def channel(self, hello: PeerHello, transport: asyncio.Transport) -> Channel:
        """For PeerCallbacks.snapshot_channel."""
        before = self.receiving.get(hello.from_id)
        if before is not None:
            before.fail("another snapshot came from the same member")
        receiver = self.receiving[hello.from_id] = _Receiver(self, hello.from_id, transport)
        return receiver

    async def close(self) -> None:
        """Ends what is coming in; senders end with the tasks that run them."""
        for receiver in list(self.receiving.values()):
            receiver.fail("the member is stopping")
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def send(self, url: str, hello: PeerHello, message: InstallSnapshot, path: str) -> None:
        """Returns when the snapshot is durable at the other member. Raises SnapshotFailed. hello is
        PeerTransport.hello(to_id, "snapshot")."""
        if hello.to_id in self._sending:
            raise SnapshotFailed(f"a snapshot to {hello.to_id:x} is under way")
        self._sending.add(hello.to_id)
        try:
            await _Sender(self, hello, message, path).run(url, self._client_ssl)
        except (OSError, TimeoutError, PeerProtocolError, ValueError) as error:
            raise SnapshotFailed(f"snapshot {message.meta} to {hello.to_id:x}: {error!r}") from error
        finally:
            self._sending.discard(hello.to_id)


class _Sender(Dialer):
    def __init__(
        self, transfers: SnapshotTransfers, hello: PeerHello, message: InstallSnapshot, path: str
    ) -> None:
        super().__init__(hello, self._answered)
        self._timeout_s = transfers.progress_timeout_s
        self._message = message
        self._path = path
        self._result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._writable = asyncio.Event()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._writable.set()
        if not self._result.done():
            self._result.set_exception(exc or ConnectionResetError("closed before the result"))
            self._result.exception()

    def _answered(self, frames: list[Frame]) -> None:
        if not self._result.done():
            self._result.set_result(decode_snapshot_result(frames[0]))

    async def run(self, url: str, context: ssl.SSLContext | None) -> None:
        await dial(url, lambda: self, context)
        try:
            welcome = self.welcome.result()
            if refused(welcome):
                raise SnapshotFailed(f"refused: {welcome.code}: {welcome.refusal}")
            await self._send_file()
            async with asyncio.timeout(self._timeout_s):
                reason = await asyncio.shield(self._result)
            if reason:
                raise SnapshotFailed(f"snapshot {self._message.meta} to {self._message.to:x}: {reason}")
        finally:
            self.abort()

    async def _send_file(self) -> None:
        loop, transport = asyncio.get_running_loop(), self.transport
        assert transport is not None, "dialed without a transport"
        transport.set_write_buffer_limits(high=4 * CHUNK_BYTES)
        file = await loop.run_in_executor(None, os.open, self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(file).st_size
            transport.write(encode_snapshot_begin(self._message, size))
            sent = crc = 0
            while sent < size and not self._result.done():
                chunk = await loop.run_in_executor(None, os.pread, file, min(CHUNK_BYTES, size - sent), sent)
                if not chunk:
                    raise OSError(f"{self._path} ends at byte {sent} of {size}")
                crc = zlib.crc32(chunk, crc)
                sent += len(chunk)
                transport.write(encode_frame(SNAPSHOT_CHUNK, chunk))
                async with asyncio.timeout(self._timeout_s):
                    await self._writable.wait()
            transport.write(encode_snapshot_end(crc))
        finally:
            os.close(file)


class _Receiver:
    """One snapshot on its way in: a channel of an accepted connection."""

    frame_bytes_max = 2 * CHUNK_BYTES

    def __init__(self, transfers: SnapshotTransfers, from_id: int, transport: asyncio.Transport) -> None:
        self._transfers = transfers
        self._from_id = from_id
        self._transport = transport
        self._message: InstallSnapshot | None = None
        self._temporary = ""
        self._size = 0
        self._received = 0
        self._crc = 0
        self._expected_crc: int | None = None
        self._chunks: list[bytes] = []
        self._chunk_bytes = 0
        self._handle = -1
        self._failure = ""
        self._wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._timeout = loop.call_later(transfers.progress_timeout_s, self.fail, "no progress")
        self._paused = False
        self._finished = False
        task = loop.create_task(self._store(), name=f"snapshot from {from_id:x}")
        transfers.tasks.add(task)
        task.add_done_callback(transfers.tasks.discard)

    def received(self, frames: list[Frame]) -> None:
        if self._finished:
            return
        for frame in frames:
            if self._expected_crc is not None:
                raise PeerProtocolError("frames behind a snapshot's end")
            if frame.kind == SNAPSHOT_BEGIN and self._message is None:
                self._begin(frame)
            elif frame.kind == SNAPSHOT_CHUNK and self._message is not None:
                self._chunks.append(frame.body)
                self._chunk_bytes += frame.end - frame.start
                self._received += frame.end - frame.start
            elif frame.kind == SNAPSHOT_END and self._message is not None:
                self._expected_crc = decode_snapshot_end(frame)
            else:
                raise PeerProtocolError(f"frame kind {frame.kind} in a snapshot")
        if self._received > self._size:
            raise PeerProtocolError(f"a snapshot of more than its {self._size} bytes")
        if self._chunk_bytes > _WRITE_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._touch()
        self._wake.set()

    def _begin(self, frame: Frame) -> None:
        transfers = self._transfers
        self._message, self._size = decode_snapshot_begin(frame, sender=self._from_id, to=transfers.self_id)
        if self._size > SNAPSHOT_BYTES_MAX:
            raise PeerProtocolError(f"a snapshot of {self._size} bytes")
        meta = self._message.meta
        transfers.count += 1
        name = f"{meta.index:016x}-{meta.term:016x}-{transfers.count}.snapshot.tmp"
        self._temporary = os.path.join(transfers.directory, name)
        log.info(
            "receiving a snapshot", remote_peer_id=f"{self._from_id:x}", index=meta.index, bytes=self._size
        )

    def _touch(self) -> None:
        self._timeout.cancel()
        loop = asyncio.get_running_loop()
        self._timeout = loop.call_later(self._transfers.progress_timeout_s, self.fail, "no progress")

    def fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._wake.set()

    def lost(self) -> None:
        self._timeout.cancel()
        self.fail("the connection was lost")

    async def _store(self) -> None:
        """Writes what has come until all of it has or something failed; then tells the sender, and the driver."""
        try:
            path = await self._store_all()
        except (OSError, PeerProtocolError) as error:
            await self._discard()
            self._finish(str(error))
            return
        message = self._message
        assert message is not None, "stored a snapshot that did not begin"
        self._finish("")
        self._transfers.on_snapshot(self._from_id, message, path)

    async def _store_all(self) -> str:
        loop, disk = asyncio.get_running_loop(), self._transfers.disk
        written = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._failure:
                raise PeerProtocolError(self._failure)
            chunks, self._chunks, self._chunk_bytes = self._chunks, [], 0
            if self._handle < 0 and self._message is not None:
                self._handle = await loop.run_in_executor(
                    None, lambda: disk.open(self._temporary, create=True)
                )
            if chunks:
                written += await loop.run_in_executor(None, self._write, chunks, written)
                if self._paused and not self._transport.is_closing():
                    self._paused = False
                    self._transport.resume_reading()
            if self._expected_crc is not None and not self._chunks:
                break
        if written != self._size or self._crc != self._expected_crc:
            raise PeerProtocolError(
                f"{written} of {self._size} bytes, CRC {self._crc:08x}: damaged on the way"
            )
        return await loop.run_in_executor(None, self._keep)

    def _write(self, chunks: list[bytes], offset: int) -> int:
        data = b"".join(chunks)
        self._transfers.disk.write(self._handle, [data], offset=offset)
        self._crc = zlib.crc32(data, self._crc)
        return len(data)

    def _keep(self) -> str:
        """The file is durable under its name on return."""
        disk, message = self._transfers.disk, self._message
        assert message is not None, "kept a snapshot that did not begin"
        disk.fsync(self._handle)
        disk.close(self._handle)
        self._handle = -1
        name = f"{message.meta.index:016x}-{message.meta.term:016x}.snapshot"
        path = os.path.join(self._transfers.directory, name)
        disk.rename(self._temporary, path)
        disk.fsync_directory(self._transfers.directory)
        return path

    async def _discard(self) -> None:
        disk, loop = self._transfers.disk, asyncio.get_running_loop()
        if self._handle >= 0:
            disk.close(self._handle)
            self._handle = -1
            with contextlib.suppress(OSError):
                await loop.run_in_executor(None, disk.unlink, self._temporary)

    def _finish(self, reason: str) -> None:
        self._timeout.cancel()
        if reason:
            log.warn("a snapshot did not arrive", remote_peer_id=f"{self._from_id:x}", error=reason)
        if self._transfers.receiving.get(self._from_id) is self:
            del self._transfers.receiving[self._from_id]
        if self._transport.is_closing():
            return
        self._transport.write(encode_snapshot_result(reason))
        if not reason:
            self._transport.close()
            return
        # Closing with chunks unread would reset the connection, and the reason would be lost on the way: read on
        # until the sender, who stops at the result, has closed.
        self._finished = True
        if self._paused:
            self._transport.resume_reading()
        loop = asyncio.get_running_loop()
        self._timeout = loop.call_later(self._transfers.progress_timeout_s, self._transport.abort)
