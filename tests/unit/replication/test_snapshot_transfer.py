"""Snapshots between members, over loopback: whole and durable, or not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvstore.pb.internal_pb2 import PeerHello, PeerWelcome
from kvstore.replication.disk import RealDisk
from kvstore.replication.peer_protocol import (
    SNAPSHOT_CHUNK,
    SNAPSHOT_RESULT,
    Dialer,
    Frame,
    dial,
    encode_frame,
    encode_snapshot_begin,
    encode_snapshot_end,
)
from kvstore.replication.peers import PeerCallbacks, PeerTransport
from kvstore.replication.snapshot_transfer import SnapshotFailed, SnapshotTransfers
from raft.messages import InstallSnapshot
from raft.types import ConfState, SnapshotMeta

MESSAGE = InstallSnapshot(1, 2, 5, SnapshotMeta(1000, 4, ConfState((1, 2, 3))))
HELLO = PeerHello(protocol=1, cluster_id=9, from_id=1, to_id=2, data_id=7, channel="snapshot", incarnation=1)


class FaultyDisk(RealDisk):
    """Real, but for the call named in `broken`."""

    broken = ""

    def write(self, handle: int, buffers: Sequence[bytes], *, offset: int) -> None:
        if self.broken == "write" and offset > 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(handle, buffers, offset=offset)

    def fsync(self, handle: int) -> None:
        if self.broken == "fsync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(handle)


class Receiving:
    """Member 2."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.arrived: list[tuple[int, InstallSnapshot, str]] = []
        self.disk = FaultyDisk()
        self.transfers = SnapshotTransfers(
            self_id=2,
            directory=str(directory),
            disk=self.disk,
            on_snapshot=self._arrived,
            progress_timeout_s=5,
        )
        self.transport = PeerTransport(
            self_id=2,
            cluster_id=9,
            data_id=8,
            incarnation=1,
            peers={},
            callbacks=PeerCallbacks(
                on_messages=lambda messages: None,
                on_notify=lambda from_id, kind, payload: None,
                on_request=lambda from_id, kind, payload, reply: None,
                on_unreachable=lambda node_id: None,
                on_gone=lambda node_id: None,
                on_refused=lambda node_id, welcome: None,
                check_hello=lambda hello: PeerWelcome(),
                snapshot_channel=self.transfers.channel,
            ),
            entropy=random.Random(1),
        )
        self.url = ""

    def _arrived(self, from_id: int, message: InstallSnapshot, path: str) -> None:
        self.arrived.append((from_id, message, path))


@pytest.fixture
async def receiving(tmp_path: Path) -> AsyncIterator[Receiving]:
    directory = tmp_path / "receiving"
    directory.mkdir()
    member = Receiving(directory)
    await member.transport.start(["http://127.0.0.1:0"])
    member.url = f"http://127.0.0.1:{member.transport.ports[0]}"
    yield member
    await member.transfers.close()
    await member.transport.close()


def sender(tmp_path: Path, progress_timeout_s: float = 5) -> SnapshotTransfers:
    return SnapshotTransfers(
        self_id=1,
        directory=str(tmp_path),
        disk=RealDisk(),
        on_snapshot=lambda from_id, message, path: None,
        progress_timeout_s=progress_timeout_s,
    )


def snapshot(tmp_path: Path, size: int) -> Path:
    path = tmp_path / "data"
    path.write_bytes(random.Random(size).randbytes(size))
    return path


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 30 << 20])
async def test_a_snapshot_arrives_whole(receiving: Receiving, tmp_path: Path, size: int) -> None:
    path = snapshot(tmp_path, size)
    await sender(tmp_path).send(receiving.url, HELLO, MESSAGE, str(path))
    ((from_id, message, found),) = receiving.arrived
    assert (from_id, message) == (1, MESSAGE)
    assert found == str(receiving.directory / f"{1000:016x}-{4:016x}.snapshot")
    assert Path(found).read_bytes() == path.read_bytes()
    assert os.listdir(receiving.directory) == [os.path.basename(found)]


@pytest.mark.parametrize("broken", ["write", "fsync"])
async def test_a_disk_that_fails_is_told_to_the_sender(
    receiving: Receiving, tmp_path: Path, broken: str
) -> None:
    receiving.disk.broken = broken
    path = snapshot(tmp_path, 12 << 20)
    with pytest.raises(SnapshotFailed, match=r"No space left|Input/output error"):
        await sender(tmp_path).send(receiving.url, HELLO, MESSAGE, str(path))
    assert not receiving.arrived
    assert not os.listdir(receiving.directory)


async def by_hand(receiving: Receiving, frames: list[bytes]) -> str:
    """Sends frames as they are; returns the result, "" where the connection just ends."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def answered(frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind == SNAPSHOT_RESULT:
                answer.set_result(frame.body.decode())

    dialer = await dial(receiving.url, lambda: Dialer(HELLO, answered), None)
    assert dialer.transport is not None
    dialer.transport.write(b"".join(frames))
    ends: list[asyncio.Future[Any]] = [answer, dialer.lost]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    dialer.abort()
    return answer.result() if answer.done() else ""


DATA = b"the data of a snapshot" * 100


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([encode_frame(SNAPSHOT_CHUNK, DATA), encode_snapshot_end(0)], "damaged on the way"),
        (
            [encode_frame(SNAPSHOT_CHUNK, DATA[1:]), encode_snapshot_end(zlib.crc32(DATA))],
            "damaged on the way",
        ),
        ([encode_snapshot_end(zlib.crc32(b""))], "damaged on the way"),
        ([encode_frame(SNAPSHOT_CHUNK, DATA + b"more")], ""),
        ([encode_snapshot_begin(MESSAGE, len(DATA), 5)], ""),
        ([encode_snapshot_end(0), encode_frame(SNAPSHOT_CHUNK, DATA)], ""),
        ([encode_frame(99, b"")], ""),
        ([encode_frame(SNAPSHOT_CHUNK, bytes(1 << 20))], ""),
    ],
)
async def test_a_damaged_stream_leaves_nothing(
    receiving: Receiving, frames: list[bytes], reason: str
) -> None:
    found = await by_hand(receiving, [encode_snapshot_begin(MESSAGE, len(DATA), 5), *frames])
    assert (reason in found) if reason else found == ""
    await receiving.transfers.close()
    assert not receiving.arrived
    assert not os.listdir(receiving.directory)


async def test_a_chunk_before_the_beginning_is_refused(receiving: Receiving) -> None:
    assert await by_hand(receiving, [encode_frame(SNAPSHOT_CHUNK, DATA)]) == ""
    await receiving.transfers.close()
    assert not os.listdir(receiving.directory)


async def test_a_sender_that_stops_is_given_up(receiving: Receiving) -> None:
    receiving.transfers.progress_timeout_s = 0.05
    result = await by_hand(
        receiving, [encode_snapshot_begin(MESSAGE, 1000, 5), encode_frame(SNAPSHOT_CHUNK, b"x")]
    )
    assert result == "no progress"
    assert not os.listdir(receiving.directory)


async def test_a_broken_connection_leaves_nothing(receiving: Receiving, tmp_path: Path) -> None:
    dialer = await dial(receiving.url, lambda: Dialer(HELLO), None)
    assert dialer.transport is not None
    dialer.transport.write(encode_snapshot_begin(MESSAGE, 1000, 5) + encode_frame(SNAPSHOT_CHUNK, b"some"))
    dialer.abort()
    await receiving.transfers.close()
    assert not os.listdir(receiving.directory)
    path = snapshot(tmp_path, 1000)
    await sender(tmp_path).send(receiving.url, HELLO, MESSAGE, str(path))
    assert len(receiving.arrived) == 1


async def test_after_a_broken_connection_it_goes_on_where_it_stopped(
    receiving: Receiving, tmp_path: Path
) -> None:
    """The relay between the two cuts the connection twice."""
    passed: list[int] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", receiving.transport.ports[0])

        async def back() -> None:
            with contextlib.suppress(ConnectionError):
                while data := await there_reader.read(1 << 16):
                    writer.write(data)

        backward = asyncio.ensure_future(back())
        passed.append(0)
        limit = 9 << 20 if len(passed) < 3 else 1 << 40
        with contextlib.suppress(ConnectionError):
            while passed[-1] < limit and (data := await reader.read(1 << 16)):
                passed[-1] += len(data)
                there_writer.write(data)
                await there_writer.drain()
        there_writer.close()
        writer.close()
        await backward

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    path, size = snapshot(tmp_path, 24 << 20), 24 << 20
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await sender(tmp_path).send(url, HELLO, MESSAGE, str(path))
    server.close()
    ((_, _, found),) = receiving.arrived
    assert Path(found).read_bytes() == path.read_bytes()
    assert len(passed) == 3
    assert size < sum(passed) < 1.5 * size  # from its beginning each time it would have been twice that
    assert os.listdir(receiving.directory) == [os.path.basename(found)]


async def test_what_was_kept_is_not_taken_for_another_snapshot(receiving: Receiving, tmp_path: Path) -> None:
    dialer = await dial(receiving.url, lambda: Dialer(HELLO), None)
    assert dialer.transport is not None
    dialer.transport.write(encode_snapshot_begin(MESSAGE, 1000, 5) + encode_frame(SNAPSHOT_CHUNK, b"x" * 500))
    async with asyncio.timeout(5):
        while not any(  # noqa: ASYNC110 - another task makes the file
            name.endswith(".tmp") for name in os.listdir(receiving.directory)
        ):
            await asyncio.sleep(0.01)
    dialer.transport.close()
    path = snapshot(tmp_path, 1000)
    await sender(tmp_path).send(receiving.url, HELLO, MESSAGE, str(path))
    ((_, _, found),) = receiving.arrived
    assert Path(found).read_bytes() == path.read_bytes()
    await receiving.transfers.close()
    assert os.listdir(receiving.directory) == [os.path.basename(found)]


async def test_the_rate_is_bounded(receiving: Receiving, tmp_path: Path) -> None:
    path, slow = snapshot(tmp_path, 2 << 20), sender(tmp_path)
    slow.bytes_per_s = 8 << 20
    loop = asyncio.get_running_loop()
    started = loop.time()
    await slow.send(receiving.url, HELLO, MESSAGE, str(path))
    assert loop.time() - started >= (2 - 0.25) / 8  # all but the first chunk had to wait its turn


async def test_one_snapshot_at_a_time_to_each_member(receiving: Receiving, tmp_path: Path) -> None:
    path, transfers = snapshot(tmp_path, 8 << 20), sender(tmp_path)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(transfers.send(receiving.url, HELLO, MESSAGE, str(path)))
        await asyncio.sleep(0)
        with pytest.raises(SnapshotFailed, match="a snapshot to 2 is under way"):
            await transfers.send(receiving.url, HELLO, MESSAGE, str(path))
        await first
    await transfers.send(receiving.url, HELLO, MESSAGE, str(path))
    assert len(receiving.arrived) == 2


async def test_a_receiver_that_answers_nothing_times_out(tmp_path: Path) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from kvstore.replication.peer_protocol import encode_welcome

        writer.write(encode_welcome(PeerWelcome()))
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(SnapshotFailed, match="TimeoutError"):
        path = snapshot(tmp_path, 1000)
        await sender(tmp_path, 0.05).send(url, HELLO, MESSAGE, str(path))
    server.close()
    with pytest.raises(SnapshotFailed, match="ConnectionRefusedError"):
        await sender(tmp_path).send(url, HELLO, MESSAGE, str(path))


async def test_a_refusal_is_told(receiving: Receiving, tmp_path: Path) -> None:
    hello = PeerHello()
    hello.CopyFrom(HELLO)
    hello.cluster_id = 10
    with pytest.raises(SnapshotFailed, match="cluster-mismatch"):
        await sender(tmp_path).send(receiving.url, hello, MESSAGE, str(snapshot(tmp_path, 10)))


async def test_leftovers_of_interrupted_transfers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "0001-0002-1.snapshot.tmp").write_bytes(b"half")
    (tmp_path / "0001-0002.snapshot").write_bytes(b"whole")
    sender(tmp_path).remove_leftovers()
    assert os.listdir(tmp_path) == ["0001-0002.snapshot"]
