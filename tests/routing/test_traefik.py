"""Real Traefik, which reads what is announced for it through its own etcd provider."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.demo.processes import Program, free_ports
from tests.routing.programs import Bench, asking, bench, required, started_store, until

ROOT = "traefik/http"
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


@pytest.fixture
def traefik(own: Bench) -> Traefik:
    return Traefik(own)


async def more_than(names: list[str], count: int) -> bool:
    return len(names) > count


async def keys(own: Bench) -> dict[str, tuple[str, bool]]:
    """What is stored for Traefik of the test's service, and whether it hangs on a lease."""
    found = {}
    async with Client(own.endpoint) as client:
        for part in ("routers", "services"):
            prefix = f"{ROOT}/{part}/{own.service}/"
            for kv in (await client.get(prefix, prefix=True)).kvs:
                found[kv.key.decode().removeprefix(f"{ROOT}/")] = (kv.value.decode(), bool(kv.lease))
    return found


def shared(service: str, rule: str, *entrypoints: str) -> dict[str, tuple[str, bool]]:
    router = f"routers/{service}"
    made = {
        f"services/{service}/loadbalancer/passhostheader": ("true", False),
        f"{router}/rule": (rule, False),
        f"{router}/service": (service, False),
    }
    return made | {f"{router}/entrypoints/{n}": (name, False) for n, name in enumerate(entrypoints)}


def server(own: Bench, name: str, address: str, weight: int = 100) -> dict[str, tuple[str, bool]]:
    at = f"services/{own.service}/loadbalancer/servers/{name}"
    return {f"{at}/url": (f"http://{address}", True), f"{at}/weight": (str(weight), True)}


async def until_keys(own: Bench, expected: dict[str, tuple[str, bool]]) -> None:
    async def holds() -> bool:
        return await keys(own) == expected

    await until(f"the keys for Traefik are {expected}", holds)


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
    for store in started_store("kvstore", tmp_path):
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


async def test_the_keys_of_an_instance_come_and_go_with_it(own: Bench) -> None:
    first, second = free_ports(2)
    all_of_them = shared(own.service, "Host(`w`)")
    quick = ["--traefik=Host(`w`)", "--fall=1", "--timeout=200ms"]
    a = await own.announce("a", *quick, port=first)
    await until_keys(own, all_of_them | server(own, "a", f"127.0.0.1:{first}"))
    await own.announce("b", "--traefik=Host(`w`)", "--weight=7", port=second)
    of_b = server(own, "b", f"127.0.0.1:{second}", 7)
    await until_keys(own, all_of_them | server(own, "a", f"127.0.0.1:{first}") | of_b)
    os.kill(own.webs["a"], signal.SIGSTOP)  # it is not ready any more
    await until_keys(own, all_of_them | of_b)
    os.kill(own.webs["a"], signal.SIGCONT)
    await until_keys(own, all_of_them | server(own, "a", f"127.0.0.1:{first}") | of_b)
    await a.stop()
    assert await keys(own) == all_of_them | of_b, "gone when it is withdrawn, not later"
    own.kill_web("b")
    await until_keys(own, all_of_them)


async def test_a_lost_lease_and_a_killed_announcer(own: Bench) -> None:
    port = free_ports(1)[0]
    expected = shared(own.service, "Host(`w`)") | server(own, "a", f"127.0.0.1:{port}")
    announcer = await own.announce("a", "--traefik=Host(`w`)", "--ttl=1s", "--grace=300ms", port=port)
    await until_keys(own, expected)
    async with Client(own.endpoint) as client:
        at = f"{ROOT}/services/{own.service}/loadbalancer/servers/a/url"
        await client.lease_revoke((await client.get(at)).kvs[0].lease)
    await announcer.wait_line("the lease is lost; announcing again")
    await until_keys(own, expected)
    await announcer.kill()
    await until_keys(own, shared(own.service, "Host(`w`)"))


async def test_the_latest_rule_counts_and_strangers_keys_stay(own: Bench) -> None:
    port = free_ports(1)[0]
    middleware = f"routers/{own.service}/middlewares/0"
    async with Client(own.endpoint) as client:
        await client.put(f"{ROOT}/{middleware}", "compress")
    stays = {middleware: ("compress", False)}
    both = ["--traefik-entrypoint=web", "--traefik-entrypoint=other"]
    a = await own.announce("a", "--traefik=Host(`old`)", *both, port=port)
    of_a = server(own, "a", f"127.0.0.1:{port}")
    await until_keys(own, stays | of_a | shared(own.service, "Host(`old`)", "web", "other"))
    await a.stop()
    await own.announce("a", "--traefik=Host(`new`)", "--traefik-entrypoint=other", port=port)
    await until_keys(own, stays | of_a | shared(own.service, "Host(`new`)", "other"))


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--traefik=Host(`w`)", "--protocol=tcp"],
            "--traefik is for --protocol http, https, h2c, not for 'tcp'",
        ),
        (["--traefik-entrypoint=web"], "--traefik-entrypoint goes with --traefik RULE"),
        (["--traefik=Host(`w`)", "--traefik-entrypoint=a/b"], "traefik-entrypoint: 'a/b' is not a name"),
    ],
)
async def test_bad_words_are_refused_at_once(own: Bench, words: list[str], told: str) -> None:
    announcer = await own.kvctl("a", "announce", own.service, "--address=:1", "--check=none", *words)
    await announcer.wait_line(told)
    assert await announcer.ended() != 0
