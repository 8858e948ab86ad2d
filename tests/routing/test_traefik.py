"""Real Traefik, which reads what is announced for it through its own etcd provider."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.demo.processes import Program, free_ports
from tests.routing.programs import Bench, Store, asking, bench, required, started_store, until

ANSWER = "no available server"


class Traefik:
    """With an entry point `web` and an etcd provider, as docs/route-traefik.md says, on ports of its own."""

    def __init__(self, own: Bench) -> None:
        self._own = own
        beside_python = Path(sys.executable).parent / "traefik"
        self._program = required(str(beside_python) if beside_python.exists() else "traefik", "traefik")
        self._ports = free_ports(2)
        self.url = f"http://127.0.0.1:{self._ports[0]}/"
        self.other_url = f"http://127.0.0.1:{self._ports[1]}/"

    async def start(self) -> Program:
        words = [
            f"--entrypoints.web.address=127.0.0.1:{self._ports[0]}",
            f"--entrypoints.other.address=127.0.0.1:{self._ports[1]}",
            "--providers.etcd=true",
            f"--providers.etcd.endpoints={self._own.endpoint}",
            "--providers.providersthrottleduration=0s",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
        ]
        return await self._own.programs.start("traefik", [self._program, *words])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Ours alone: what is stored is tested with both, in test_traefik_keys.py."""
    yield from started_store("kvstore", tmp_path_factory.mktemp("kvstore"))


@pytest.fixture
def traefik(own: Bench) -> Traefik:
    return Traefik(own)


async def more_than(names: list[str], count: int) -> bool:
    return len(names) > count


async def test_announced_gets_traffic_and_what_goes_does_not(own: Bench, traefik: Traefik) -> None:
    """Traefik's own test of a rule; one path for each service, because all share one store."""
    async with Client(own.endpoint) as client:
        await client.put("traefik")
    await traefik.start()
    rule = f"--traefik=PathPrefix(`/{own.service}`)"
    a = await own.announce("a", rule, "--drain=2s")
    async with asking(traefik.url + own.service) as answers, asking(traefik.url) as strangers:
        await answers.only("a")
        await own.announce("b", rule)
        await answers.only("a", "b")
        answers.failures.clear()
        assert await a.stop() == 128 + 15
        await answers.only("b")
        assert answers.failures == []
        await own.announce("c", rule, "--weight=0")
        await (await own.kvctl("drain", "drain", f"{own.service}/b")).wait_line("drains, until")
        await answers.failing_with(f"503 {ANSWER}")
        await (await own.kvctl("undo", "drain", f"{own.service}/b", "--undo")).wait_line("traffic again")
        await answers.only("b")
        own.kill_web("b")
        await answers.failing_with(f"503 {ANSWER}")
        assert strangers.names == []
        assert set(strangers.failures) == {"404 404 page not found"}


async def test_without_the_store_it_goes_on_and_then_is_brought_up_to_date(tmp_path: Path) -> None:
    with contextmanager(started_store)("kvstore", tmp_path) as store:
        async with bench("web", store.endpoint) as own:
            traefik = Traefik(own)
            await own.announce("a", "--traefik=PathPrefix(`/`)")
            await traefik.start()
            async with asking(traefik.url) as answers:
                await answers.only("a")
                answers.failures.clear()
                await asyncio.to_thread(store.kill)
                answers.names.clear()
                await until("answers without a store", lambda: more_than(answers.names, 100))
                await asyncio.to_thread(store.start)
                await own.announce("b", "--traefik=PathPrefix(`/`)")
                await answers.only("a", "b")
                assert answers.failures == []


async def test_only_the_entry_points_that_are_named(own: Bench, traefik: Traefik) -> None:
    async with Client(own.endpoint) as client:
        await client.put("traefik")
    await traefik.start()
    rule = f"--traefik=PathPrefix(`/{own.service}`)"
    await own.announce("a", rule, "--traefik-entrypoint=other")
    async with (
        asking(traefik.other_url + own.service) as answers,
        asking(traefik.url + own.service) as others,
    ):
        await answers.only("a")
        assert others.names == []
