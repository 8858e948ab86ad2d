"""Group commit: one thread that writes everything queued while the last write ran as one frame.

    loop:    submit(1) submit(2) ─►┐              submit(3) submit(4) ─►┐
    thread:                        └ frame of 1,2 ─► persisted(2)       └ frame of 3,4 ─► persisted(4)

Numbers are reported in order, the highest of a frame only. What needs no sync (a hard state in which only the
commit index moved) is reported as soon as everything before it is durable, and rides with the next frame; losing
it costs nothing, because commit is learned again. After idle_s without work the thread seals the log.

After a failed write the thread ends: nothing is written or reported again, on_failure was called once.
The queue is bounded by its user: raft holds back proposals above its limit of uncommitted bytes.
"""

from __future__ import annotations

import collections
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from kvstore.meters import DISK_SECONDS, Histogram
from kvstore.replication.wal import Batch, Wal, WalError, WalFailed
from raft.types import Entry, HardState, SnapshotMeta

IDLE_S = 0.05
RELEASE_FRAMES = 64
FRAME_BYTES = 8 << 20  # a frame takes no further submission above this

Post = Callable[..., object]
"""loop.call_soon_threadsafe, or in a simulation anything that calls function(argument) later."""


@dataclass(slots=True)
class _Submission:
    number: int
    batch: Batch | None  # None: only to be reported after those before it


@dataclass(slots=True)
class _Lazy:
    """A hard state that needs no sync of its own. Its commit may point at entries of submission `after`, so it
    must not reach the disk before them."""

    number: int
    after: int
    hard_state: HardState


@dataclass(slots=True)
class _Release:
    index: int


_Item = _Submission | _Release | None  # None: close


class WalWriter:
    """Owns the Wal from here on. With threaded=False nothing runs by itself: the simulation calls flush()
    after each delay it likes, and idle() when it wants a seal."""

    def __init__(
        self,
        wal: Wal,
        *,
        post: Post,
        on_persisted: Callable[[int], None],
        on_failure: Callable[[WalError], None],
        idle_s: float = IDLE_S,
        threaded: bool = True,
    ) -> None:
        self._wal = wal
        self._post = post
        self._on_persisted = on_persisted
        self._on_failure = on_failure
        self._idle_s = idle_s
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._lazy: collections.deque[_Lazy] = collections.deque(maxlen=64)
        self._synced_number = 0  # of the last submission that asked for a sync; loop's
        self._persisted_number = 0  # thread's, set after the report of it was posted; read by the loop
        self._release_to = 0
        self._frames_since_release = 0
        self._written_hard_state = 0  # number of the submission whose hard state was written last; thread's
        self.sync_seconds = Histogram(DISK_SECONDS)  # of each frame: written and synced in one call; thread's
        self._closed = False
        self._failed = False
        self._worker: threading.Thread | None = None
        if threaded:
            self._worker = threading.Thread(target=self._run, name="wal-writer", daemon=True)
            self._worker.start()

    # On the loop

    def submit(
        self,
        number: int,
        hard_state: HardState | None,
        snapshot: SnapshotMeta | None,
        entries: Sequence[Entry],
        sync: bool = True,
    ) -> None:
        """Numbers grow. on_persisted is posted with this or a higher number when all of it is durable, or, for
        sync=False, when all before it is. Entries and snapshots are always synced."""
        if self._closed or self._failed:
            return
        if sync or entries or snapshot is not None:
            batch = Batch()
            batch.add(hard_state, snapshot, entries)
            self._synced_number = number
            self._queue.put(_Submission(number, batch))
            return
        if hard_state is not None:
            self.note(number, hard_state)
        if self._persisted_number >= self._synced_number:
            self._tell(self._on_persisted, number)
        else:
            self._queue.put(_Submission(number, None))

    def note(self, number: int, hard_state: HardState) -> None:
        """A commit index that moved, to be written with the next frame. Nobody is told when that is done: it would
        wake the thread and then the loop, for nothing."""
        self._lazy.append(_Lazy(number, self._synced_number, hard_state))

    def release(self, index: int) -> None:
        """Entries up to index will not be asked for again: their segments go when the thread has time."""
        if not self._closed:
            self._queue.put(_Release(index))

    def close(self) -> None:
        """Writes what is queued, seals and closes the log. Blocks for that long."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        if self._worker is not None:
            self._worker.join()
        else:
            while self.flush():
                pass
            self._end()

    @property
    def written_bytes(self) -> int:
        return self._wal.written_bytes

    @property
    def failed(self) -> bool:
        return self._failed

    # On the thread, or where there is none on the caller's

    def flush(self) -> bool:
        """Writes one frame of what is queued. False where nothing was."""
        items: list[_Item] = []
        self._drain(items)
        if items:
            self._carry_out(items)
        return bool(items)

    def idle(self) -> None:
        """Seals the log, writes the commit index that waited for a frame, deletes a released segment."""
        if self._failed:
            return
        try:
            self._wal.seal(self._take_lazy(self._persisted_number))
            self._release_one()
        except Exception as error:
            self._fail(error)

    def _run(self) -> None:
        while not self._failed:
            try:
                resting = self._wal.sealed and not self._lazy and not self._release_to
                items = [self._queue.get(timeout=None if resting else self._idle_s)]
            except queue.Empty:
                self.idle()
                continue
            self._drain(items)
            if not self._carry_out(items):
                break
        self._end()

    def _drain(self, items: list[_Item]) -> None:
        size = 0
        while size < FRAME_BYTES:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            items.append(item)
            if isinstance(item, _Submission) and item.batch is not None:
                size += item.batch.size

    def _carry_out(self, items: list[_Item]) -> bool:
        """False where the last item asked to close."""
        number, release, frame = 0, 0, Batch()
        for item in items:
            if isinstance(item, _Release):
                release = max(release, item.index)
            elif item is not None:
                number = item.number
                if item.batch is not None:
                    if item.batch.hard_state is not None:
                        self._written_hard_state = number
                    frame.extend(item.batch)
        try:
            if frame.parts or frame.hard_state is not None:
                frame.hard_state = self._take_lazy(number) or frame.hard_state
                began = perf_counter()
                self._wal.append(frame)
                self.sync_seconds.observe(perf_counter() - began)
            if number:
                self._tell(self._on_persisted, number)
                self._persisted_number = number
            self._release_to = max(self._release_to, release)
            self._release_one()
        except Exception as error:
            self._fail(error)
        return None not in items

    def _release_one(self) -> None:
        """Deletes one segment while nobody waits, or after a while of somebody always waiting."""
        self._frames_since_release += 1
        if not self._release_to or (self._frames_since_release < RELEASE_FRAMES and not self._queue.empty()):
            return
        self._frames_since_release = 0
        if not self._wal.release(self._release_to, limit=1):
            self._release_to = 0

    def _take_lazy(self, reached: int) -> HardState | None:
        """The newest waiting hard state whose entries are durable, or in this frame: those up to submission
        `reached`; None where a newer one was written."""
        newest: HardState | None = None
        while self._lazy and self._lazy[0].after <= reached:
            lazy = self._lazy.popleft()
            if lazy.number > self._written_hard_state:
                newest, self._written_hard_state = lazy.hard_state, lazy.number
        return newest

    def _tell(self, function: Callable[..., None], argument: object) -> None:
        try:
            self._post(function, argument)
        except RuntimeError:
            self._closed = True  # the loop is closed: there is nobody left to tell

    def _fail(self, error: Exception) -> None:
        """Also for an error that is a bug: a thread that ended silently would be a member that hangs."""
        self._failed = True
        known = error if isinstance(error, WalError) else WalFailed(self._wal.directory, error)
        self._tell(self._on_failure, known)

    def _end(self) -> None:
        try:
            self.idle()
            self._wal.close(seal=not self._failed)
        except WalError as error:
            self._fail(error)
