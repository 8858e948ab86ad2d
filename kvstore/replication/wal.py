"""The write-ahead log: preallocated segments of CRC-chained frames, one write and one fdatasync a frame.

Invariants
1. Frame k+1 is written only after frame k was synced. So damage at frame k with a valid later frame behind it
   (in the segment or a later segment) is damage to acknowledged data: WalCorrupt, and nothing is cut. Damage
   with nothing valid behind it is a flush that a crash tore, never acknowledged: it is zeroed and forgotten.
2. A segment comes into being whole: temporary name, fsync, rename, fsync of the directory. A tear is therefore
   possible only in the last segment, behind its first frame.
3. A segment's first frame repeats what earlier segments said about the member (metadata, incarnation, hard
   state, snapshot, first configuration), so any number of the oldest segments can go.
4. After a failed write or sync nothing is written again (fsync lies after an error): WalFailed for good.

A Wal belongs to one thread at a time. It does not know which index is committed or applied.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kvstore.replication.wal_format import (
    PREAMBLE,
    Boot,
    Recovered,
    Replay,
    Segment,
    WalCorrupt,
    WalError,
    WalMetadata,
    encode_entries,
    encode_frame,
    encode_preamble,
    encode_record,
    frame_size,
    header_records,
    salt_of,
)
from kvstore.replication.world import Disk
from raft.types import ConfState, Entry, HardState, SnapshotMeta

__all__ = ["Batch", "Recovered", "Wal", "WalCorrupt", "WalError", "WalFailed", "WalLocked", "WalMetadata"]

SEGMENT_BYTES = 16 << 20
_SEGMENT_NAME = re.compile(r"[0-9a-f]{16}\.wal")


class WalFailed(WalError):
    """The disk refused. What was being written may or may not be there; the member must stop."""

    def __init__(self, path: str, error: BaseException) -> None:
        super().__init__(f"write-ahead log failed: {path}: {error}")
        self.path = path
        self.error = error


class WalLocked(WalError):
    def __init__(self, directory: str) -> None:
        super().__init__(f"another process uses the write-ahead log in {directory}")


@dataclass(slots=True)
class Batch:
    """One frame in the making: what several submissions put there, in their order."""

    hard_state: HardState | None = None
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    spans: list[tuple[SnapshotMeta | None, int, int, int]] = field(default_factory=list)

    def add(
        self, hard_state: HardState | None, snapshot: SnapshotMeta | None, entries: Sequence[Entry]
    ) -> None:
        """The log restarts at snapshot, if there is one; then entries follow."""
        if hard_state is not None:
            self.hard_state = hard_state
        if snapshot is None and not entries:
            return
        parts = [] if snapshot is None else [encode_record(snapshot)]
        if entries:
            parts += encode_entries(entries)
            self.spans.append((snapshot, entries[0].index, entries[-1].index, entries[-1].term))
        else:
            self.spans.append((snapshot, 0, 0, 0))
        self.parts += parts
        self.size += sum(map(len, parts))

    def extend(self, other: Batch) -> None:
        if other.hard_state is not None:
            self.hard_state = other.hard_state
        self.parts += other.parts
        self.spans += other.spans
        self.size += other.size


@dataclass(slots=True)
class _File:
    path: str
    sequence: int
    highest_index: int = 0  # of any entry ever written there


class Wal:
    """Made by create() or open(). Every method that writes is durable on return, or raises WalFailed."""

    def __init__(self, directory: str, disk: Disk, segment_bytes: int, state: Recovered) -> None:
        self.directory = directory
        self.sealed = True
        self._disk = disk
        self._segment_bytes = segment_bytes
        # What was written so far, without the entries: they would follow base, which is the log's last entry.
        self._state = replace(state, base_index=state.last_index, base_term=state.last_term, entries=[])
        self._salt = salt_of(state.metadata)
        self._files: list[_File] = []
        self._handle = -1
        self._lock = -1
        self._offset = 0
        self._capacity = 0
        self._number = 1  # of the next frame
        self._chain = 0
        self._failure: WalFailed | None = None
        self.written_bytes = 0

    @staticmethod
    def exists(directory: str, disk: Disk) -> bool:
        """Whether create() has finished there."""
        return disk.exists(directory) and bool(_segments(directory, disk))

    @classmethod
    def create(
        cls,
        directory: str,
        metadata: WalMetadata,
        conf_state: ConfState,
        disk: Disk,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Wal:
        """A new log, incarnation 1, durable on return. A crash before that leaves no log."""
        state = Recovered(metadata, 1, HardState(), conf_state, None, base_index=0, base_term=0, entries=[])
        wal = cls(directory, disk, segment_bytes, state)
        try:
            if cls.exists(directory, disk):
                raise WalError(f"there is a write-ahead log in {directory} already")
            disk.make_directory(directory)
            wal._lock = _lock(directory, disk)
            wal._remove_leftovers()
            wal._cut(0)
        except BaseException as error:
            wal._let_go()
            if isinstance(error, OSError):
                raise WalFailed(directory, error) from error
            raise
        return wal

    @classmethod
    def open(cls, directory: str, disk: Disk, segment_bytes: int = SEGMENT_BYTES) -> tuple[Wal, Recovered]:
        """Reads all of it, cuts a torn tail, and durably counts this start. Raises WalCorrupt, WalFailed or
        WalLocked."""
        lock = -1
        try:
            lock = _lock(directory, disk)
            replay, files = Replay(), list[_File]()
            segments = _segments(directory, disk)
            for name in segments:
                path, sequence = os.path.join(directory, name), int(name[:16], 16)
                replay.segment(path, sequence, _contents(path, disk), last=name == segments[-1])
                files.append(_File(path, sequence, replay.highest_index))
            state = replay.finish(files[-1].path if files else directory)
            wal = cls(directory, disk, segment_bytes, state)
            wal._resume(replay, files)
        except BaseException as error:
            if lock >= 0:
                disk.close(lock)
            if isinstance(error, OSError):
                raise WalFailed(directory, error) from error
            raise
        wal._lock = lock
        state.incarnation = wal.incarnation
        return wal, state

    @property
    def metadata(self) -> WalMetadata:
        return self._state.metadata

    @property
    def incarnation(self) -> int:
        return self._state.incarnation

    @property
    def last_index(self) -> int:
        return self._state.base_index

    def append(self, batch: Batch) -> None:
        """One frame of everything in the batch. Log and hard state change together or not at all."""
        state = self._state
        head = encode_record(batch.hard_state) if batch.hard_state is not None else b""
        last_index, last_term, highest = state.base_index, state.base_term, 0
        for snapshot, first, last, term in batch.spans:
            if snapshot is not None:
                last_index, last_term = snapshot.index, snapshot.term
            if first:
                assert 0 < first <= last_index + 1, f"entry {first} cannot follow {last_index}@{last_term}"
                last_index, last_term = last, term
                highest = max(highest, last)
        self._write(b"".join([head, *batch.parts]))
        state.base_index, state.base_term = last_index, last_term
        state.hard_state = batch.hard_state or state.hard_state
        for span in batch.spans:
            state.snapshot = span[0] or state.snapshot
        self._files[-1].highest_index = max(self._files[-1].highest_index, highest)
        self.sealed = False

    def seal(self, hard_state: HardState | None = None) -> None:
        """Writes a frame behind the last one, so that damage to that can no longer pass for a torn flush.
        hard_state, where given, must not be one that anybody was promised: it is not sealed itself."""
        if self.sealed and hard_state is None:
            return
        self._write(b"" if hard_state is None else encode_record(hard_state))
        self._state.hard_state = hard_state or self._state.hard_state
        self.sealed = True

    def release(self, index: int, limit: int = 1 << 32) -> int:
        """Deletes the oldest segments, at most limit, that hold no entry above index; the active one stays.
        Returns how many. Freeing 16 MiB took ext4 3 to 8 ms, in which a write waits: hence the limit.
        One directory sync each, oldest first: a crash never leaves a hole in the row of segments."""
        count = 0
        while count < limit and len(self._files) > 1 and self._files[0].highest_index <= index:
            self._guard()
            try:
                self._disk.unlink(self._files[0].path)
                self._disk.fsync_directory(self.directory)
            except OSError as error:
                raise self._fail(error) from error
            del self._files[0]
            count += 1
        return count

    def close(self, *, seal: bool = True) -> None:
        """Seals, unless the disk has failed, and lets go of the files. Can be called again."""
        try:
            if self._failure is None and seal:
                self.seal()
        finally:
            self._let_go()
            self._failure = self._failure or WalFailed(self.directory, ValueError("closed"))

    # Writing

    def _guard(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: OSError) -> WalFailed:
        self._failure = WalFailed(self._files[-1].path if self._files else self.directory, error)
        return self._failure

    def _write(self, payload: bytes) -> None:
        self._guard()
        if self._offset + frame_size(len(payload)) > self._capacity:
            self._cut(frame_size(len(payload)))
        buffers, size, chain = encode_frame(payload, number=self._number, chain=self._chain, salt=self._salt)
        try:
            self._disk.write_durably(self._handle, buffers, offset=self._offset)
        except OSError as error:
            raise self._fail(error) from error
        self._number += 1
        self._chain = chain
        self._offset += size
        self.written_bytes += size

    def _cut(self, frame_bytes: int) -> None:
        """Starts the next segment, with room for a frame of frame_bytes."""
        disk, state = self._disk, self._state
        sequence = self._files[-1].sequence + 1 if self._files else 1
        path = os.path.join(self.directory, f"{sequence:016x}.wal")
        place = Segment(sequence, 0, state.base_index, state.base_term, self._chain)
        payload_bytes = sum(len(encode_record(record)) for record in header_records(state, place))
        least = PREAMBLE.size + frame_size(payload_bytes) + frame_bytes
        place = replace(place, size_bytes=max(self._segment_bytes, least))
        payload = b"".join(map(encode_record, header_records(state, place)))
        buffers, size, chain = encode_frame(payload, number=self._number, chain=0, salt=self._salt)
        handle = -1
        try:
            handle = disk.open(path + ".tmp", create=True)
            disk.preallocate(handle, place.size_bytes)
            disk.write(handle, [encode_preamble(sequence, self._salt), *buffers], offset=0)
            disk.fsync(handle)
            disk.rename(path + ".tmp", path)
            disk.fsync_directory(self.directory)
        except OSError as error:
            if handle >= 0:
                disk.close(handle)
            raise self._fail(error) from error
        if self._handle >= 0:
            disk.close(self._handle)
        self._handle, self._capacity, self._offset = handle, place.size_bytes, PREAMBLE.size + size
        self._files.append(_File(path, sequence))
        self._number += 1
        self._chain = chain
        self.sealed = True

    # Starting and ending

    def _remove_leftovers(self) -> None:
        for name in self._disk.list(self.directory):
            if name.endswith(".wal.tmp"):
                self._disk.unlink(os.path.join(self.directory, name))

    def _resume(self, replay: Replay, files: list[_File]) -> None:
        """Goes on where the replay ended: zeroes a torn tail, then writes the frame of this start."""
        self._remove_leftovers()
        self._files = files
        self._handle = self._disk.open(files[-1].path)
        self._capacity, self._offset = self._disk.size(files[-1].path), replay.end
        self._number, self._chain = replay.number, replay.chain
        try:
            if replay.torn_bytes:
                self._disk.write_durably(self._handle, [bytes(replay.torn_bytes)], offset=replay.end)
            incarnation = self._state.incarnation + 1
            self._write(encode_record(Boot(incarnation)))
            self._state.incarnation = incarnation
            self.sealed = False
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        for handle in (self._handle, self._lock):
            if handle >= 0:
                self._disk.close(handle)
        self._handle = self._lock = -1


def _segments(directory: str, disk: Disk) -> list[str]:
    return [name for name in disk.list(directory) if _SEGMENT_NAME.fullmatch(name)]


def _contents(path: str, disk: Disk) -> bytes:
    handle = disk.open(path)
    try:
        return disk.read(handle, offset=0, size=disk.size(path))
    finally:
        disk.close(handle)


def _lock(directory: str, disk: Disk) -> int:
    try:
        return disk.lock(directory)
    except BlockingIOError:
        raise WalLocked(directory) from None
