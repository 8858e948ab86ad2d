"""kvctl route builtin as a program: a fleet replaced under load, TLS with curl, bodies that do not fit, SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from kvstore.client import Client
from kvstore.demo.processes import Program
from kvstore.readiness.instance import encode
from tests.certificates import Authority
from tests.routing.instances import instance, named, serving
from tests.routing.programs import Bench, Store, required, started_store, until

FLEET = 20
PIECE = bytes(1 << 16)
PIECES = 50 * 16  # 50 MiB


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from started_store("kvstore", tmp_path_factory.mktemp("store"))


@pytest.fixture
async def client(own: Bench) -> AsyncIterator[Client]:
    async with Client(own.endpoint) as made:
        yield made


async def put(client: Client, own: Bench, name: str, address: str) -> bytes:
    one = instance(name, address, service=own.service)
    await client.put(one.key, encode(one))
    return one.key


async def started(own: Bench, *options: str) -> tuple[Program, str]:
    """The proxy and its HOST:PORT; options may name a status port."""
    words = ["route", "builtin", f"--service={own.service}", "--listen=127.0.0.1:0", *options]
    proxy = await own.kvctl("proxy", *words)
    return proxy, (await proxy.wait_line("listening on (.*)"))[1]


class Fleet:
    """FLEET instances, each of which can be replaced: the new one is announced, the old one withdrawn, and ended as
    soon as the proxy knows."""

    def __init__(self, own: Bench, client: Client, status_url: str) -> None:
        self._own, self._client, self._status_url = own, client, status_url
        self._ends: dict[str, contextlib.AsyncExitStack] = {}

    async def start(self, name: str) -> None:
        end = contextlib.AsyncExitStack()
        address = await end.enter_async_context(serving(named(name)))
        self._ends[name] = end
        await put(self._client, self._own, name, address)

    async def replace(self, old: str, new: str) -> None:
        await self.start(new)
        await self._client.delete(instance(old, "", service=self._own.service).key)
        await self.known(lambda names: old not in names, f"{old} has gone")
        await self._ends.pop(old).aclose()

    async def known(self, holds: Callable[[set[str]], bool], what: str) -> None:
        async def look() -> bool:
            async with aiohttp.ClientSession() as session, session.get(self._status_url) as answer:
                return holds({one["instance"] for one in (await answer.json())["instances"]})

        await until(f"the proxy knows that {what}", look)

    async def close(self) -> None:
        for name, end in self._ends.items():
            await self._client.delete(instance(name, "", service=self._own.service).key)
            await end.aclose()


async def keep_asking(url: str, method: str, failures: list[str], count: list[int]) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.request(method, url, data=b"x" if method == "POST" else None) as answer:
                    text = await answer.text()
                    if answer.status != 200:
                        failures.append(f"{answer.status} {text}")
            except aiohttp.ClientError as problem:
                failures.append(repr(problem))
            count[0] += 1


@pytest.mark.parametrize("balance", ["round-robin", "least-requests"])
async def test_a_fleet_is_replaced_one_by_one_and_no_request_fails(
    own: Bench, client: Client, balance: str
) -> None:
    proxy, address = await started(own, "--status-listen=127.0.0.1:0", f"--balance={balance}")
    status = (await proxy.wait_line("status on (.*)"))[1]
    fleet = Fleet(own, client, f"http://{status}/")
    failures: list[str] = []
    count = [0]
    try:
        await asyncio.gather(*(fleet.start(f"old-{number}") for number in range(FLEET)))
        await fleet.known(lambda names: len(names) == FLEET, "all are there")
        methods = ("GET", "GET", "GET", "POST")
        asking = [
            asyncio.ensure_future(keep_asking(f"http://{address}/", method, failures, count))
            for method in methods
        ]
        for number in range(FLEET):
            await fleet.replace(f"old-{number}", f"new-{number}")
        await fleet.known(lambda names: all(name.startswith("new") for name in names), "all are new")
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert failures == []
        assert count[0] > FLEET
    finally:
        await fleet.close()


def peak_kb(program: Program) -> int:
    return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{program.pid}/status").read_text())[0])


async def test_bodies_are_not_gathered(own: Bench, client: Client) -> None:
    """Up and down at once, with an instance and a client that take their time."""

    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    async def body() -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield PIECE

    async with serving(echo) as address, aiohttp.ClientSession() as session:
        await put(client, own, "a", address)
        proxy, where = await started(own)
        before_kb = 0
        got = 0
        async with session.post(f"http://{where}/", data=body()) as answer:
            async for piece in answer.content.iter_any():
                before_kb = before_kb or peak_kb(proxy)
                got += len(piece)
        assert got == PIECES * len(PIECE)
        assert peak_kb(proxy) - before_kb < 16 * 1024


async def curl(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        required("curl", "curl"), "-s", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_tls_and_a_certificate_that_changes(own: Bench, client: Client, tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data)
            return socket
        return web.Response(text=request.headers["X-Forwarded-Proto"])

    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    pair, other = first.issue("web"), second.issue("web")
    cert, key = tmp_path / "web.pem", tmp_path / "web.key"

    def install(new_cert: Path, new_key: Path) -> None:
        for source, target in ((new_cert, cert), (new_key, key)):
            shutil.copy(source, tmp_path / "new")
            os.replace(tmp_path / "new", target)

    install(pair.cert, pair.key)
    async with serving(answer) as address:
        await put(client, own, "a", address)
        proxy, where = await started(own, f"--tls-cert={cert}", f"--tls-key={key}")
        url = f"https://{where}/"
        assert await curl("--cacert", str(first.cert), url) == (0, "https")
        assert (await curl("--cacert", str(second.cert), url))[0] != 0
        refused, _ = await curl("--cacert", str(first.cert), "--tls-max", "1.1", url)
        assert refused == 35
        context = ssl.create_default_context(cafile=str(first.cert))
        async with aiohttp.ClientSession() as session, session.ws_connect(url, ssl=context) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            install(other.cert, pair.key)  # half of a change
            assert (await curl("--cacert", str(first.cert), url))[0] == 0
            await proxy.wait_line("error: the key .* does not fit the certificate .*going on with")
            install(other.cert, other.key)
            assert (await curl("--cacert", str(second.cert), url))[0] == 0
            assert (await curl("--cacert", str(first.cert), url))[0] != 0
            await socket.send_str("still the old one here")
            assert await socket.receive_str() == "still the old one here"


async def test_sigterm_lets_requests_finish_and_ends_websockets_at_the_limit(
    own: Bench, client: Client
) -> None:
    may_end = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "Upgrade" in request.headers:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data)
            return socket
        if request.raw_path == "/slow":
            await may_end.wait()
        return web.Response(text="done")

    async with serving(answer) as address, aiohttp.ClientSession() as session:
        await put(client, own, "a", address)
        proxy, where = await started(own, "--stop-timeout=4s", "--status-listen=127.0.0.1:0")
        status = (await proxy.wait_line("status on (.*)"))[1]
        async with session.ws_connect(f"http://{where}/") as socket:
            slow = asyncio.ensure_future(session.get(f"http://{where}/slow"))

            async def both_there() -> bool:
                async with session.get(f"http://{status}/") as got:
                    return bool((await got.json())["in_flight"] == 2)

            await until("both are on their way", both_there)
            proxy.signal(signal.SIGTERM)

            async def listens_no_more() -> bool:
                with contextlib.suppress(aiohttp.ClientError):
                    async with aiohttp.ClientSession() as fresh, fresh.get(f"http://{where}/"):
                        return False
                return True

            await until("it listens no more", listens_no_more)
            await socket.send_str("still here")
            assert await socket.receive_str() == "still here"
            may_end.set()
            async with await slow as got:
                assert (got.status, await got.text()) == (200, "done")
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
        assert await proxy.ended() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tls-cert=web.pem"], "--tls-cert and --tls-key belong together: give both or neither"),
        (["--tls-cert=no.pem", "--tls-key=no.key"], "cannot open no.pem: No such file or directory"),
        (["--trust=10.0.0.1/33"], "'10.0.0.1/33' does not appear to be an IPv4 or IPv6 network"),
        (["--timeout=0s"], "Invalid value for '--timeout': more than 0"),
        (["--status-listen=nowhere"], "'nowhere' is not \\[HOST\\]:PORT"),
    ],
)
async def test_what_cannot_be_is_said_in_a_line(own: Bench, options: list[str], said: str) -> None:
    words = ["route", "builtin", f"--service={own.service}", "--listen=127.0.0.1:0", *options]
    proxy = await own.kvctl("proxy", *words)
    await proxy.wait_line(said)
    assert await proxy.ended() != 0
