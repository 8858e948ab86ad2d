"""Carries a snapshot's file from the leader to a follower on a connection of its own, so that no heartbeat waits
behind it.

    sender: SNAPSHOT_BEGIN(InstallSnapshot, size, number)       SNAPSHOT_CHUNK*  SNAPSHOT_END(CRC-32 of the data)
    receiver:                              SNAPSHOT_RESUME(offset)    SNAPSHOT_RESULT("" or what went wrong)

When the connection breaks, the receiver keeps what it has for a minute and the sender tries again: the same number
means the same file, and it goes on where it stopped. The rate is bounded, so that a snapshot does not take the
network from the log.

The receiver writes to a temporary name, checks length and CRC, syncs, renames, syncs the directory, and only
then says yes and hands the message on. Files are read and written on executor threads; a slow disk stops the
reading of the socket, and so the sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from kvstore import log
from kvstore.pb.internal_pb2 import PeerHello
from kvstore.replication.peer_protocol import (
    SNAPSHOT_BEGIN,
    SNAPSHOT_CHUNK,
    SNAPSHOT_END,
    SNAPSHOT_RESUME,
    Channel,
    Dialer,
    Frame,
    PeerProtocolError,
    Security,
    decode_snapshot_begin,
    decode_snapshot_end,
    decode_snapshot_result,
    decode_snapshot_resume,
    dial,
    encode_frame,
    encode_snapshot_begin,
    encode_snapshot_end,
    encode_snapshot_result,
    encode_snapshot_resume,
    refused,
)
from kvstore.replication.world import Disk
from raft.messages import InstallSnapshot

CHUNK_BYTES = 256 << 10
PROGRESS_TIMEOUT_S = 30.0  # without a byte taken, or without an answer at the end
SNAPSHOT_BYTES_MAX = 1 << 40
ATTEMPTS = 5
RETRY_S = 0.1  # doubled with each attempt
PARTIAL_KEPT_S = 60.0
_WRITE_BYTES = 4 << 20  # received and not yet written: above it the socket is not read

OnSnapshot = Callable[[int, InstallSnapshot, str], None]


class SnapshotFailed(Exception):
    """The snapshot did not arrive, or whether it did is unknown; sending it again is safe."""


@dataclass
class _Partial:
    """What has come of a snapshot whose connection broke."""

    number: int
    size: int
    temporary: str
    handle: int
    written: int
    crc: int
    timer: asyncio.TimerHandle


class SnapshotTransfers:
    """Both directions of one member. At most one transfer to, and one from, each other member at a time."""

    def __init__(
        self,
        *,
        self_id: int,
        directory: str,
        disk: Disk,
        on_snapshot: OnSnapshot,
        security: Security | None = None,
        progress_timeout_s: float = PROGRESS_TIMEOUT_S,
        bytes_per_s: float = 0.0,
    ) -> None:
        """directory exists; snapshots that arrived lie there, named {index}-{term}.snapshot. on_snapshot(from_id,
        message, path) is called on the loop once the file is durable; the file is the caller's from then on.
        bytes_per_s: how fast each snapshot is sent at most; 0: as fast as it goes."""
        self.self_id = self_id
        self.directory = directory
        self.disk = disk
        self.on_snapshot = on_snapshot
        self.progress_timeout_s = progress_timeout_s
        self.bytes_per_s = bytes_per_s
        self._security = security
        self._sending: set[int] = set()
        self._partials: dict[int, _Partial] = {}
        self._next_number = secrets.randbits(62)
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
        for from_id in list(self._partials):
            self.drop_partial(from_id)
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def send(self, url: str, hello: PeerHello, message: InstallSnapshot, path: str) -> None:
        """Returns when the snapshot is durable at the other member. Raises SnapshotFailed. hello is
        PeerTransport.hello(to_id, "snapshot")."""
        if hello.to_id in self._sending:
            raise SnapshotFailed(f"a snapshot to {hello.to_id:x} is under way")
        self._sending.add(hello.to_id)
        self._next_number += 1
        number = self._next_number
        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    await _Sender(self, hello, message, path, number).run(url, self._security)
                    return
                except (OSError, TimeoutError, PeerProtocolError, ValueError) as error:
                    if attempt == ATTEMPTS:
                        text = f"snapshot {message.meta} to {hello.to_id:x}: {error!r}"
                        raise SnapshotFailed(text) from error
                await asyncio.sleep(RETRY_S * 2**attempt)
        finally:
            self._sending.discard(hello.to_id)

    def keep_partial(self, from_id: int, partial: _Partial) -> None:
        self.drop_partial(from_id)
        self._partials[from_id] = partial

    def take_partial(self, from_id: int, number: int, size: int) -> _Partial | None:
        """What was kept of this file; what was kept of another is dropped."""
        kept = self._partials.get(from_id)
        if kept is None or (kept.number, kept.size) != (number, size):
            self.drop_partial(from_id)
            return None
        kept.timer.cancel()
        return self._partials.pop(from_id)

    def drop_partial(self, from_id: int) -> None:
        kept = self._partials.pop(from_id, None)
        if kept is not None:
            kept.timer.cancel()
            self.disk.close(kept.handle)
            with contextlib.suppress(OSError):
                self.disk.unlink(kept.temporary)


class _Sender(Dialer):
    def __init__(
        self,
        transfers: SnapshotTransfers,
        hello: PeerHello,
        message: InstallSnapshot,
        path: str,
        number: int,
    ) -> None:
        super().__init__(hello, self._answered)
        self._number = number
        self._bytes_per_s = transfers.bytes_per_s
        self._resume: asyncio.Future[int] = asyncio.get_running_loop().create_future()
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
        for waited in (self._resume, self._result):
            if not waited.done():
                waited.set_exception(exc or ConnectionResetError("closed before the result"))
                waited.exception()

    def _answered(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind == SNAPSHOT_RESUME and not self._resume.done():
                self._resume.set_result(decode_snapshot_resume(frame))
            elif not self._result.done():
                self._result.set_result(decode_snapshot_result(frame))
                if not self._resume.done():
                    self._resume.set_result(0)  # it ended before it began: there is nothing to go on with

    async def run(self, url: str, security: Security | None) -> None:
        await dial(url, lambda: self, security)
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
            transport.write(encode_snapshot_begin(self._message, size, self._number))
            async with asyncio.timeout(self._timeout_s):
                begin = await asyncio.shield(self._resume)
            if begin > size:
                raise PeerProtocolError(f"a snapshot of {size} bytes is to go on at {begin}")
            sent, started = begin, loop.time()
            crc = await loop.run_in_executor(None, _crc_of, file, begin)
            while sent < size and not self._result.done():
                if self._bytes_per_s:
                    ahead_s = (sent - begin) / self._bytes_per_s - (loop.time() - started)
                    if ahead_s > 0:
                        await asyncio.sleep(ahead_s)
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


def _crc_of(file: int, size: int) -> int:
    """Of the first bytes of a file."""
    crc = at = 0
    while at < size:
        chunk = os.pread(file, min(1 << 22, size - at), at)
        if not chunk:
            raise OSError(f"the file ends at byte {at} of {size}")
        crc, at = zlib.crc32(chunk, crc), at + len(chunk)
    return crc


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
        self._number = 0
        self._received = 0
        self._written = 0
        self._crc = 0
        self._expected_crc: int | None = None
        self._chunks: list[bytes] = []
        self._chunk_bytes = 0
        self._handle = -1
        self._failure = ""
        self._is_lost = False
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
        self._message, self._size, self._number = decode_snapshot_begin(
            frame, sender=self._from_id, to=transfers.self_id
        )
        if self._size > SNAPSHOT_BYTES_MAX:
            raise PeerProtocolError(f"a snapshot of {self._size} bytes")
        meta = self._message.meta
        kept = transfers.take_partial(self._from_id, self._number, self._size)
        if kept is not None:
            self._temporary, self._handle, self._crc = kept.temporary, kept.handle, kept.crc
            self._received = self._written = kept.written
        else:
            transfers.count += 1
            name = f"{meta.index:016x}-{meta.term:016x}-{transfers.count}.snapshot.tmp"
            self._temporary = os.path.join(transfers.directory, name)
        self._transport.write(encode_snapshot_resume(self._written))
        log.info(
            "receiving a snapshot",
            remote_peer_id=f"{self._from_id:x}",
            index=meta.index,
            bytes=self._size,
            resumed_at=self._written,
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
        self._is_lost = not self._failure
        self.fail("the connection was lost")

    async def _store(self) -> None:
        """Writes what has come until all of it has or something failed; then tells the sender, and the driver."""
        try:
            path = await self._store_all()
        except (OSError, PeerProtocolError) as error:
            if self._is_lost and isinstance(error, PeerProtocolError) and self._handle >= 0:
                self._park()
            else:
                await self._discard()
            self._finish(str(error))
            return
        message = self._message
        assert message is not None, "stored a snapshot that did not begin"
        self._finish("")
        self._transfers.on_snapshot(self._from_id, message, path)

    async def _store_all(self) -> str:
        loop, disk = asyncio.get_running_loop(), self._transfers.disk
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
                await loop.run_in_executor(None, self._write, chunks)
                if self._paused and not self._transport.is_closing():
                    self._paused = False
                    self._transport.resume_reading()
            if self._expected_crc is not None and not self._chunks:
                break
        if self._written != self._size or self._crc != self._expected_crc:
            raise PeerProtocolError(
                f"{self._written} of {self._size} bytes, CRC {self._crc:08x}: damaged on the way"
            )
        return await loop.run_in_executor(None, self._keep)

    def _write(self, chunks: list[bytes]) -> None:
        data = b"".join(chunks)
        self._transfers.disk.write(self._handle, [data], offset=self._written)
        self._crc = zlib.crc32(data, self._crc)
        self._written += len(data)

    def _park(self) -> None:
        """Keeps what has come for another attempt."""
        transfers, from_id = self._transfers, self._from_id
        timer = asyncio.get_running_loop().call_later(PARTIAL_KEPT_S, transfers.drop_partial, from_id)
        transfers.keep_partial(
            from_id,
            _Partial(
                self._number, self._size, self._temporary, self._handle, self._written, self._crc, timer
            ),
        )
        self._handle = -1

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
