"""The stores that the benchmarks compare with, for real: three members of each take puts and give them back.

A peer that is not installed is skipped, here as there: none of them is part of the product.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.floor.start import start_floor
from benchmarks.load import Shape
from benchmarks.peers.nats import Nats
from benchmarks.peers.peer import Peer, Unavailable
from benchmarks.peers.pysyncobj import PySyncObj
from benchmarks.peers.zookeeper import ZooKeeper
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, pipeline, puts
from kvstore.demo.processes import Programs
from kvstore.pb.etcdserverpb_pb2 import PutResponse


async def test_the_floor_answers_each_put_with_its_revision(tmp_path: Path) -> None:
    async with Programs() as programs:
        endpoint = await start_floor(tmp_path, programs)
        connections = [await RawConnection.connect(endpoint) for _ in range(2)]
        await pipeline(connections, PUT, puts("key/", 300), 16)
        (put,) = puts("key/", 1)
        last = PutResponse.FromString(await connections[0].ask(PUT, put))
        assert last.header.revision == 302
        for connection in connections:
            connection.close()
    logs = [start_of(path) for path in tmp_path.rglob("log")]
    assert len(logs) == 3
    assert sum(b"key/00000299" in log for log in logs) >= 2


def start_of(path: Path) -> bytes:
    """The log is much longer than what is in it."""
    with path.open("rb") as file:
        return file.read(302 * 320)


@pytest.mark.parametrize("kind", [ZooKeeper, Nats, PySyncObj])
async def test_a_peer_is_measured(kind: type[ZooKeeper | Nats | PySyncObj], tmp_path: Path) -> None:
    peer: Peer = kind()
    async with Programs() as programs:
        try:
            await peer.start(tmp_path / "peer", programs)
        except Unavailable as why:
            if "not installed" not in str(why):
                raise
            pytest.skip(str(why))
        assert await peer.rate("put", Shape(2, 4, 100)) > 0
        if peer.gets:
            assert await peer.rate("get", Shape(2, 4, 100)) > 0
        assert peer.puts
