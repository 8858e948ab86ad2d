"""Many instances of one announcer, as `kvctl announce docker` has them, with a real store."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.client import Client
from kvstore.readiness.docker import Wanted
from kvstore.readiness.fleet import Fleet, Manner, usable
from kvstore.readiness.health import Policy
from kvstore.readiness.instance import Instance, State
from kvstore.readiness.registrar import Registrar
from tests.routing.programs import Bench
from tests.routing.test_announce import stored, until_stored


def wanted(own: Bench, *names: str, check: str = "", state: State = State.READY) -> dict[bytes, Wanted]:
    found = [
        Instance(own.service, name, f"127.0.0.1:{number}", state=state)
        for number, name in enumerate(names, start=1)
    ]
    return {one.key: Wanted(one, check) for one in found}


async def test_what_is_wanted_is_there_and_nothing_else(own: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with Client(own.endpoint, wait_for_endpoints=False) as client:
        manner = Manner(lambda: Registrar(client, 2000), Policy())
        async with Fleet(manner) as fleet:
            fleet.reconcile(wanted(own, "a", "b", "c"))
            await until_stored(own, "a", "b", "c")
            fleet.reconcile(wanted(own, "a", "c"))
            await until_stored(own, "a", "c")
            assert (await stored(own))["c"].address == "127.0.0.1:2"
            # Gone and back at once: its own withdrawal is waited for, and is nobody to contend with.
            fleet.reconcile({})
            fleet.reconcile(wanted(own, "a"))
            await until_stored(own, "a")
            fleet.reconcile(wanted(own, "a", state=State.FAILED))
            await until_stored(own)
            fleet.reconcile(wanted(own, "a"))
            await until_stored(own, "a")
        assert await stored(own) == {}
    assert "already" not in caplog.text


async def test_a_check_of_its_own_decides_too(own: Bench) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    check = f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Client(own.endpoint, wait_for_endpoints=False) as client:
        manner = Manner(lambda: Registrar(client, 2000), Policy(interval_s=0.02))
        async with Fleet(manner) as fleet:
            fleet.reconcile(wanted(own, "a", check=check))
            await until_stored(own, "a")
            server.close()
            await server.wait_closed()
            await until_stored(own)


async def test_a_check_that_cannot_be_made_is_said(own: Bench) -> None:
    (good,) = wanted(own, "a", check="grpc:/service").values()
    (bad,) = wanted(own, "a", check="tcp:h").values()
    assert usable(good) == ""
    assert usable(bad) == "check 'tcp:h': 'h' is not HOST:PORT"


async def test_an_engine_that_is_not_there_is_said_and_waited_for(own: Bench) -> None:
    announcer = await own.kvctl("a", "announce", "docker", "--engine=unix:///nowhere/docker.sock")
    await announcer.wait_line(
        "the Docker engine cannot be followed: Cannot connect to .*/nowhere/docker.sock.*; trying"
    )
    assert await announcer.stop() == 0
