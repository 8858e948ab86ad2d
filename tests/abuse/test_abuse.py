"""Attacks on a real member: its memory stays where it was, and whoever else is there goes on being served. What the
others feel in milliseconds depends on the machine: python -m tests.abuse shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT
from kvstore.demo.cluster import LocalCluster, MemberProcess, server_program
from kvstore.demo.processes import Programs
from kvstore.pb.etcdserverpb_pb2 import PutRequest
from tests.abuse.attacks import ATTACKS, carried_out
from tests.abuse.victim import Memory, fill

GROWTH_MAX_MB = 64.0


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
