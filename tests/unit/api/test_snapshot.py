"""Snapshots to clients: what is sent and when, and that nothing of it is left, whoever gives up."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvstore.api import snapshot as module
from kvstore.api.context import Context
from kvstore.api.snapshot import CHUNK_BYTES, SLAB_BYTES, STREAMS_MAX, SnapshotService
from kvstore.backup.exporter import Exporter, ExportFailed
from kvstore.config import load
from kvstore.pb.etcdserverpb_pb2 import HashResponse, SnapshotResponse
from kvstore.rpc import Status, StreamCall, UnaryCall
from kvstore.state.auth import AuthStore
from kvstore.state.quotas import Quotas
from tests.unit.state.harness import MAP_BYTES, Replica


class Call:
    """The transport's half. Without `reads` the client takes nothing."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = reads
        self.sent: list[bytes] = []
        self.buffered_bytes = 0
        self.ended: tuple[int, str] | None = None
        self.most_buffered = 0
        self.handler: Any = None
        self.over = asyncio.Event()

    def send(self, message: bytes) -> None:
        self.sent.append(message)
        self.buffered_bytes += len(message)
        self.most_buffered = max(self.most_buffered, self.buffered_bytes)
        if self.reads:
            asyncio.get_running_loop().call_soon(self.take)

    def take(self) -> None:
        if self.buffered_bytes:
            self.buffered_bytes = 0
            self.handler.drained()

    def finish(self, status: int = 0, message: str = "") -> None:
        self.ended = status, message
        self.over.set()

    def reply(self, message: bytes) -> None:
        self.sent.append(message)
        self.over.set()

    def fail(self, status: int, message: str) -> None:
        self.finish(status, message)

    @property
    def responses(self) -> list[SnapshotResponse]:
        return [SnapshotResponse.FromString(message) for message in self.sent]


class Exports:
    """Files of a size, or a failure, once allowed."""

    def __init__(self, content: bytes = b"", problem: str = "") -> None:
        self.content = content
        self.problem = problem
        self.allowed = asyncio.Event()
        self.allowed.set()
        self.at_once = self.most_at_once = self.made = 0

    async def snapshot(self) -> tuple[int, int]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.allowed.wait()
        finally:
            self.at_once -= 1
        if self.problem:
            raise ExportFailed(self.problem)
        self.made += 1
        with tempfile.TemporaryFile() as file:
            file.write(self.content)
            file.flush()
            return os.dup(file.fileno()), len(self.content)

    async def hash(self) -> int:
        return len(self.content)


class Machine:
    def __init__(self) -> None:
        self.applied_index = self.durable_index = 7
        self.revision = 3
        self.map_bytes = MAP_BYTES
        self.released = 0
        self.auth = AuthStore()
        self.quotas = Quotas()

    def release_dead_readers(self) -> None:
        self.released += 1


def service(exports: Exports) -> tuple[SnapshotService, Machine]:
    machine = Machine()
    node = SimpleNamespace(term=1)
    context = Context(
        config=load(["--data-dir", "nowhere"], {}),
        driver=cast(Any, SimpleNamespace(node=node)),
        machine=cast(Any, machine),
        cluster_id=1,
        member_id=2,
        now=lambda: 0.0,
        call_later=lambda delay, call: None,
    )
    return SnapshotService(context, exports), machine


def begin(made: SnapshotService, *, reads: bool = True) -> Call:
    call = Call(reads=reads)
    call.handler = made.open(cast(StreamCall, call))
    call.handler.message(b"")
    call.handler.half_closed()
    return call


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  there is nobody who could set an event
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, SLAB_BYTES, 3 * SLAB_BYTES + 5])
async def test_all_of_it_in_chunks_and_its_digest(size: int) -> None:
    content = os.urandom(size)
    made, _ = service(Exports(content))
    call = begin(made)
    await call.over.wait()
    *chunks, last = call.responses
    assert b"".join(chunk.blob for chunk in chunks) == content
    assert (last.blob, last.remaining_bytes) == (hashlib.sha256(content).digest(), 0)
    left = size
    for chunk in chunks:
        left -= len(chunk.blob)
        assert chunk.remaining_bytes == left
        assert len(chunk.blob) == CHUNK_BYTES or not left
    assert call.ended == (0, "")


async def test_a_client_that_reads_slowly_is_waited_for_and_one_that_does_not_is_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _ = service(Exports(bytes(4 * SLAB_BYTES)))
    slow = begin(made, reads=False)
    for slab in range(1, 5):
        await settled(lambda slab=slab: len(slow.sent) >= slab * SLAB_BYTES // CHUNK_BYTES)  # type: ignore[misc]
        slow.take()
    await slow.over.wait()
    assert slow.most_buffered < SLAB_BYTES + 32 * 64
    monkeypatch.setattr(module, "STALL_S", 0.01)
    stalled = begin(made, reads=False)
    await stalled.over.wait()
    assert stalled.ended is not None
    assert stalled.ended[0] == Status.DEADLINE_EXCEEDED
    await settled(lambda: not made.tasks)


async def test_it_waits_until_what_is_applied_is_stored() -> None:
    exports = Exports(b"x")
    made, machine = service(exports)
    machine.applied_index = 9
    call = begin(made)
    for _ in range(5):
        await asyncio.sleep(0.01)
        assert exports.made == 0
    machine.applied_index, machine.durable_index = 100, 9  # what came since is not waited for
    await call.over.wait()
    assert call.ended == (0, "")


async def test_one_export_at_a_time_and_not_too_many_clients() -> None:
    exports = Exports(b"x")
    exports.allowed.clear()
    made, machine = service(exports)
    calls = [begin(made) for _ in range(STREAMS_MAX)]
    refused = begin(made)
    assert refused.ended == (Status.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
    await settled(lambda: exports.at_once == 1)
    calls[0].handler.cancelled()
    exports.allowed.set()
    for call in calls[1:]:
        await call.over.wait()
    assert (exports.most_at_once, exports.made, calls[0].sent) == (1, STREAMS_MAX - 1, [])
    await settled(lambda: not made.tasks)
    assert machine.released == STREAMS_MAX
    assert begin(made).ended is None


async def test_failures_are_told() -> None:
    made, _ = service(Exports(problem="no space left"))
    call = begin(made)
    await call.over.wait()
    assert call.ended == (Status.INTERNAL, "kvstore: snapshot: no space left")
    nonsense = Call()
    made.open(cast(StreamCall, nonsense)).message(b"\xff")
    assert nonsense.ended is not None
    assert nonsense.ended[0] == Status.INTERNAL
    unary = Call()
    made.hash(cast(UnaryCall, unary), b"")
    await unary.over.wait()
    assert HashResponse.FromString(unary.sent[0]).header.revision == 3


async def test_the_process_writes_a_file_without_a_name_and_leaves_nothing(tmp_path: Path) -> None:
    """Whether it ends well, is cancelled, or fails."""
    folders = {name: tmp_path / name for name in ("db", "snap")}
    for folder in folders.values():
        folder.mkdir()
    replica = Replica(str(folders["db"]))
    for number in range(100):
        replica.put(b"k%d" % number, b"v")
    replica.machine.flush()
    exporter = Exporter(str(folders["db"]), str(folders["snap"]), MAP_BYTES)
    descriptor, size = await exporter.snapshot()
    assert os.fstat(descriptor).st_size == size > 0
    os.close(descriptor)
    task = asyncio.ensure_future(exporter.snapshot())
    await settled(lambda: bool(os.listdir(folders["snap"])) or task.done())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    replica.machine.release_dead_readers()
    readers = replica.machine._reader.env.readers().split("\n")[1:]
    assert {line.split()[0] for line in readers if line} <= {str(os.getpid())}
    assert await exporter.hash() > 0
    exporter.map_bytes = -1
    with pytest.raises(ExportFailed):
        await exporter.snapshot()
    assert os.listdir(folders["snap"]) == []
    replica.machine.abandon()
