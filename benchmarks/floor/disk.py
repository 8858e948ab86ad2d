"""What a member of the floor does with its disk: a log that is synced, and a store that is not."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from struct import Struct

import lmdb

from kvstore.pb.etcdserverpb_pb2 import PutRequest
from kvstore.pb.mvccpb_pb2 import KeyValue

LOG_BYTES = 512 << 20  # laid out beforehand: a sync then writes data and nothing about the file
MAP_BYTES = 4 << 30
PUTS_OF_A_TRANSACTION = 5_000
_REVISION = Struct(">Q")


class Log:
    """Appends from a thread of its own: everything queued while the last fdatasync ran shares the next. done(index)
    runs on the loop, with the highest index that is durable."""

    def __init__(self, path: Path, done: Callable[[int], None]) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.posix_fallocate(self._file, 0, LOG_BYTES)
        os.fsync(self._file)
        self._queue: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._done = done
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def append(self, index: int, records: bytes) -> None:
        self._queue.put((index, records))

    def _run(self) -> None:
        while True:
            index, records = self._queue.get()
            batch = [records]
            while not self._queue.empty():
                index, records = self._queue.get()
                batch.append(records)
            os.write(self._file, b"".join(batch))
            os.fdatasync(self._file)
            self._loop.call_soon_threadsafe(self._done, index)


class Store:
    """Keys as they are now, every version by revision, and the revisions of each key."""

    def __init__(self, path: Path) -> None:
        self._environment = lmdb.open(str(path), map_size=MAP_BYTES, max_dbs=3, sync=False)
        self._now, self._history, self._versions = (
            self._environment.open_db(name) for name in (b"now", b"history", b"versions")
        )
        self._transaction = self._environment.begin(write=True)
        self._pending = 0
        self.revision = 1

    def put(self, request: bytes) -> int:
        """Its revision. request: an encoded PutRequest."""
        put = PutRequest.FromString(request)
        self.revision += 1
        revision, transaction = _REVISION.pack(self.revision), self._transaction
        transaction.get(put.key, db=self._now)
        kv = KeyValue(key=put.key, value=put.value, mod_revision=self.revision, version=1)
        encoded = kv.SerializeToString()
        transaction.put(put.key, encoded, db=self._now)
        transaction.put(revision, encoded, append=True, db=self._history)
        transaction.put(put.key + revision, b"", db=self._versions)
        self._pending += 1
        if self._pending == PUTS_OF_A_TRANSACTION:
            transaction.commit()
            self._pending, self._transaction = 0, self._environment.begin(write=True)
        return self.revision
