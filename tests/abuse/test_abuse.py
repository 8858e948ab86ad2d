"""Attacks on a real member: its memory stays where it was, and whoever else is there goes on being served. What the
others feel in milliseconds depends on the machine: python -m tests.abuse shows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT
from kvstore.demo.cluster import LocalCluster, MemberProcess, server_program
from kvstore.demo.processes import Programs
from kvstore.pb.etcdserverpb_pb2 import PutRequest
from kvstore.wire import frames as h2
from kvstore.wire.limits import Limits
from tests.abuse.attacks import ATTACKS, carried_out
from tests.abuse.victim import Memory, fill

GROWTH_MAX_MB = 64.0
START = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def member(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MemberProcess]:
    folder: Path = tmp_path_factory.mktemp("abuse")
    async with Programs() as programs:
        cluster = await LocalCluster.start(server_program(), folder, programs, 1)
        await fill(cluster.endpoints[0])
        yield cluster.members[0]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_costs_little_and_others_are_served(name: str, member: MemberProcess) -> None:
    assert member.program is not None
    neighbour = await RawConnection.connect(member.endpoint)
    put = PutRequest(key=b"neighbour", value=b"v").SerializeToString()
    await neighbour.ask(PUT, put)  # the attack before may have to be waited out
    async with Memory.watching(member.program.pid) as memory:
        attack = asyncio.ensure_future(carried_out(name, member.endpoint))
        served = 0
        while not attack.done():
            await neighbour.ask(PUT, put)
            served += 1
            await asyncio.sleep(0.005)
        report = await attack
    neighbour.close()
    assert report.sent_bytes > 0
    assert served > 20
    assert memory.growth_mb < GROWTH_MAX_MB


@pytest.mark.asyncio(loop_scope="module")
async def test_who_flooded_is_not_heard_again_for_a_while_and_others_there_are(member: MemberProcess) -> None:
    """A new connection would have the whole burst again. Who is connected from the same address stays served."""
    neighbour = await RawConnection.connect(member.endpoint)
    put = PutRequest(key=b"neighbour", value=b"v").SerializeToString()
    await neighbour.ask(PUT, put)
    host, port = member.endpoint.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    began = asyncio.get_running_loop().time()
    flood = h2.frame(h2.PRIORITY, 0, 1, b"\0" * 5) * (int(Limits().control_frames_burst) + 1_000)
    writer.write(START + flood)
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()
    again, writer = await asyncio.open_connection(host, int(port))
    writer.write(START)
    answer = asyncio.ensure_future(again.readexactly(h2.FRAME_BYTES))
    while not answer.done():
        await neighbour.ask(PUT, put)
        await asyncio.sleep(0.01)
    assert h2.FRAME.unpack(await answer)[2] == h2.SETTINGS
    assert asyncio.get_running_loop().time() - began >= Limits().calm_s
    writer.close()
    neighbour.close()
