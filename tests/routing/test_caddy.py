"""Real Caddy, its upstreams kept through its admin API."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.demo.processes import Program, free_ports
from tests.routing.programs import Answers, Bench, Store, asking, required, started_store, until
from tests.routing.webs import fleet, many_asking

EXAMPLE = Path(__file__).parent.parent.parent / "deploy" / "caddy.json"


class Caddy:
    """Caddy with the example configuration of deploy/, on ports of its own."""

    def __init__(self, folder: Path, own: Bench) -> None:
        self._own, self._folder = own, folder
        self._program = required("caddy", "caddy")
        admin, port = free_ports(2)
        self.url = f"http://127.0.0.1:{port}/"
        self.admin = f"http://127.0.0.1:{admin}"
        self.config: dict[str, Any] = json.loads(
            EXAMPLE.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        )
        self.config["admin"] = {"listen": f"127.0.0.1:{admin}", "config": {"persist": False}}

    @property
    def proxy(self) -> dict[str, Any]:
        found: dict[str, Any] = self.config["apps"]["http"]["servers"]["web"]["routes"][0]["handle"][0]
        return found

    async def start(self) -> Program:
        file = self._folder / "caddy.json"
        file.write_text(json.dumps(self.config))
        environment = {"HOME": str(self._folder), "XDG_DATA_HOME": str(self._folder)}
        command = [self._program, "run", "--config", str(file)]
        running = await self._own.programs.start("caddy", command, environment)
        await running.wait_line("serving initial configuration")
        return running

    async def route(self, *options: str) -> Program:
        words = [f"--service={self._own.service}", f"--admin={self.admin}", "--id=web-upstreams"]
        return await self._own.kvctl("route", "route", "caddy", *words, *options)

    def upstreams(self) -> Any:
        with urllib.request.urlopen(f"{self.admin}/id/web-upstreams/upstreams", timeout=5.0) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Ours alone: what follows the store is tested with both elsewhere."""
    yield from started_store("kvstore", tmp_path_factory.mktemp("kvstore"))


@pytest.fixture
def caddy(own: Bench, tmp_path: Path) -> Caddy:
    return Caddy(tmp_path, own)


def taken_and_failed(*clients: Answers) -> list[str]:
    """Caddy opens its port anew for each change: a connection that waits to be accepted in that moment is reset,
    before a request is sent."""
    failures = [failure for one in clients for failure in one.failures]
    return [
        each for each in failures if "Connect call failed" not in each or "ConnectionResetError" not in each
    ]


async def test_announced_gets_traffic_and_killed_stops_getting_it(own: Bench, caddy: Caddy) -> None:
    router = await caddy.route()
    await own.announce("a")
    await router.wait_line(f"warning: Caddy at {caddy.admin} cannot be reached: .*; trying again")
    await caddy.start()
    await router.wait_line("Caddy does as it is asked again")
    async with asking(caddy.url) as answers:
        await answers.only("a")
        await own.announce("b")
        await answers.only("a", "b")
        answers.failures.clear()
        await (await own.kvctl("drain", "drain", f"{own.service}/b")).wait_line("drains, until")
        await answers.only("a")
        await (await own.kvctl("undo", "drain", f"{own.service}/b", "--undo")).wait_line("traffic again")
        await answers.only("a", "b")
        own.kill_web("a")
        await answers.only("b")
        assert taken_and_failed(answers) == []


async def test_a_caddy_that_starts_again_is_filled_again(own: Bench, caddy: Caddy) -> None:
    del caddy.proxy["upstreams"]  # the list need not be there
    await own.announce("a")
    await caddy.route()
    for _ in range(2):
        running = await caddy.start()
        async with asking(caddy.url) as answers:
            await answers.only("a")
        await running.kill()


async def test_what_an_upstream_has_besides_stays_and_strangers_do_not(own: Bench, caddy: Caddy) -> None:
    async with fleet(own.service, own.endpoint) as running:
        await running.announce("a")
        await running.announce("b")
        addresses = [one.web.instance.address for one in running.running.values()]
        known = {"dial": addresses[1], "max_requests": 7}
        caddy.proxy["upstreams"] = [{"dial": "127.0.0.1:9"}, known]
        await caddy.start()
        await caddy.route()

        async def brought_up_to_date() -> bool:
            with contextlib.suppress(OSError):  # its admin address is away while it takes a change
                return bool(caddy.upstreams() == [known, {"dial": addresses[0]}])
            return False

        await until("Caddy has what is announced", brought_up_to_date)


async def test_a_rolling_replacement_fails_no_request_that_caddy_took(own: Bench, caddy: Caddy) -> None:
    await caddy.start()
    await caddy.route()
    async with fleet(own.service, own.endpoint) as running, many_asking(caddy.url, 3) as clients:
        for number in range(6):
            await running.announce(f"a{number}")
        for one in clients:
            await one.only(*running.running, count=40)
            one.failures.clear()
        for number in range(6):
            await running.announce(f"b{number}")
            await running.replace(f"a{number}")
        for one in clients:
            await one.only(*running.running, count=40)
        failed = [failure for one in clients for failure in one.failures]
        assert [
            each for each in failed if "ConnectionResetError" not in each or "Connect call" not in each
        ] == []


async def test_what_caddy_refuses_is_said(own: Bench, caddy: Caddy) -> None:
    await caddy.start()
    await own.announce("a")
    router = await caddy.route("--id=nobody")
    await router.wait_line("Caddy refused GET .*: unknown object ID 'nobody'; a reverse_proxy handler .*@id")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--admin=127.0.0.1:2019"], "is not http://HOST:PORT or unix:///PATH"),
        (["--id=a/b"], "'a/b': letters"),
    ],
)
async def test_bad_words_are_refused_at_once(own: Bench, words: list[str], told: str) -> None:
    router = await own.kvctl("route", "route", "caddy", "--service=web", "--id=web", *words)
    await router.wait_line(told)
    assert await router.ended() != 0


async def test_an_admin_address_that_is_a_socket(own: Bench, caddy: Caddy, tmp_path: Path) -> None:
    socket = tmp_path / "admin.sock"
    caddy.config["admin"]["listen"] = f"unix/{socket}"
    await caddy.start()
    await own.announce("a")
    await caddy.route(f"--admin=unix://{socket}")
    async with asking(caddy.url) as answers:
        await answers.only("a")
