"""What passes through the builtin proxy, and what does not: bodies, headers, odd requests and limits."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from kvstore.routing.builtin import Options
from kvstore.routing.headers import Trusted
from tests.routing.instances import head, named, proxying, raw_serving, serving
from tests.routing.programs import until

PIECE = bytes(range(256)) * 256
LIMIT_BYTES = 24 * 1024 * 1024  # of what the kernel's and the proxy's buffers may hold together


async def steady(count: list[int]) -> int:
    """Waits until the number stays as it is."""
    last = -1

    async def holds() -> bool:
        nonlocal last
        before, last = last, count[0]
        await asyncio.sleep(0.2)
        return count[0] > 0 and before == last == count[0]

    await until("it stands still", holds, 30)
    return last


async def test_a_long_answer_is_passed_on_as_fast_as_the_client_takes_it() -> None:
    sent = [0]

    async def download(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1024):
            await response.write(PIECE)
            sent[0] += len(PIECE)
        return response

    async with serving(download) as address, proxying() as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        async with client.get(local.url) as answer:
            assert await steady(sent) < LIMIT_BYTES
            got = 0
            async for piece in answer.content.iter_any():
                got += len(piece)
        assert got == sent[0] == 1024 * len(PIECE)


@pytest.mark.parametrize("length", [None, 1024 * len(PIECE)])
async def test_a_long_body_is_passed_on_as_fast_as_the_instance_takes_it(length: int | None) -> None:
    sent, may_read = [0], asyncio.Event()

    async def upload(request: web.BaseRequest) -> web.Response:
        await may_read.wait()
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
        return web.Response(text=f"{digest.hexdigest()} {request.content_length}")

    async def body() -> AsyncIterator[bytes]:
        for _ in range(1024):
            sent[0] += len(PIECE)
            yield PIECE

    async with serving(upload) as address, proxying() as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        headers = {} if length is None else {"Content-Length": str(length)}
        asking = asyncio.ensure_future(client.post(local.url, data=body(), headers=headers))
        assert await steady(sent) < LIMIT_BYTES
        may_read.set()
        async with await asking as answer:
            expected = hashlib.sha256(PIECE * 1024).hexdigest()
            assert await answer.text() == f"{expected} {length}"


async def test_both_directions_at_once() -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    said: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while piece := await said.get():
            yield piece

    async with serving(echo) as address, proxying() as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        said.put_nowait(b"one")
        async with client.post(local.url, data=body()) as answer:
            assert await answer.content.readany() == b"one"
            said.put_nowait(b"two")
            assert await answer.content.readany() == b"two"
            said.put_nowait(b"")
            assert await answer.content.readany() == b""


async def test_a_client_that_waits_for_100_is_told_to_go_on_when_an_instance_is_there() -> None:
    async with serving(named("a")) as address, proxying() as local:
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        refused = await local.exchange(request)  # and then the connection ends: nobody knows what follows
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"100 Continue" not in refused
        local.announce("a", address)
        for length, body in ((b"4", b"body"), (b"100000", b"x" * 100_000)):
            reader, writer = await local.connect()
            writer.write(request.replace(b"4", length, 1))
            assert await head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await head(reader)).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_an_answer_before_the_body_has_been_sent_reaches_the_client() -> None:
    async def too_large(request: web.BaseRequest) -> web.Response:
        response = web.Response(status=413, text="too large")
        response.force_close()
        return response

    async with serving(too_large) as address, proxying() as local:
        local.announce("a", address)
        reader, writer = await local.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 100_000)
        assert (await head(reader)).startswith(b"HTTP/1.1 413 ")
        writer.close()


async def seen_by_instance(request: web.BaseRequest) -> web.Response:
    return web.json_response([request.method, request.raw_path, list(request.headers.items())])


async def headers_seen(local: object, url: str, headers: dict[str, str]) -> dict[str, str]:
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        return dict((await answer.json())[2])


async def test_what_belongs_to_a_connection_is_taken_off_and_who_asked_is_put_on() -> None:
    async with serving(seen_by_instance) as address, proxying() as local:
        local.announce("a", address)
        seen = await headers_seen(
            local,
            local.url,
            {
                "Connection": "X-Secret, keep-alive",
                "X-Secret": "1",
                "Keep-Alive": "timeout=5",
                "Proxy-Authorization": "Basic eA==",
                "TE": "trailers",
                "Upgrade": "h2c",
                "X-Kept": "1",
                "X-Forwarded-For": "1.2.3.4",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "evil",
                "Forwarded": "for=1.2.3.4",
                "Host": "shop.example",
            },
        )
        assert seen.pop("X-Kept") == "1"
        for name in ("Accept", "Accept-Encoding", "User-Agent"):
            seen.pop(name)
        assert seen == {
            "Host": "shop.example",
            "X-Forwarded-For": "127.0.0.1",
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Host": "shop.example",
        }


async def test_the_word_of_a_trusted_proxy_counts() -> None:
    options = Options(trusted=Trusted(["127.0.0.0/8"]))
    async with serving(seen_by_instance) as address, proxying(options) as local:
        local.announce("a", address)
        said = {
            "X-Forwarded-For": "1.2.3.4",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "shop.example",
        }
        seen = await headers_seen(local, local.url, said)
        assert seen["X-Forwarded-For"] == "1.2.3.4, 127.0.0.1"
        assert (seen["X-Forwarded-Proto"], seen["X-Forwarded-Host"]) == ("https", "shop.example")


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"])
def test_trusted_networks(peer: str) -> None:
    assert peer in Trusted(["10.0.0.0/8", "fd00::/8"])
    assert peer not in Trusted(["11.0.0.0/8"])
    assert "unknown" not in Trusted(["10.0.0.0/8"])


async def test_of_an_answer_too() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 Fine\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nX-Kept: 1\r\n"
            b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: text/x\r\nDate: now\r\nContent-Length: 2\r\n\r\nhi"
        )

    async with raw_serving(answer) as address, proxying() as local:
        local.announce("a", address)
        reader, writer = await local.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        lines = (await head(reader)).decode().split("\r\n")
        assert lines[0] == "HTTP/1.1 200 Fine"
        assert sorted(lines[1:-2]) == [
            "Content-Length: 2",
            "Content-Type: text/x",
            "Date: now",
            "Server: kvstore",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "X-Kept: 1",
        ]
        assert await reader.readexactly(2) == b"hi"
        writer.close()


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ("/a/../b/./c", None),
        ("//double//slash", None),
        ("/a%2Fb%20c%00", None),
        ("/?x=%20+&y=1&y=2", None),
        ("/a;b=c?d=e/f?g", None),
        ("http://other.example/path?q", "/path?q"),
    ],
)
async def test_a_path_is_passed_on_as_it_came(asked: str, seen: str | None) -> None:
    async with serving(seen_by_instance) as address, proxying() as local:
        local.announce("a", address)
        request = f"GET {asked} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1")
        answer = await local.exchange(request)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        method, path, headers = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert (method, path) == ("GET", seen or asked.encode("latin-1").decode())
        assert dict(headers)["Host"] == ("other.example" if seen else "x")


async def test_answers_without_a_body() -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": "1000000"})
        return web.Response(status=int(request.raw_path[1:]))

    async with serving(answer) as address, proxying() as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        async with client.head(local.url) as got:
            assert got.headers["Content-Length"] == "1000000"
        for status in (204, 304, 205):
            async with client.get(f"{local.url}{status}") as got:
                assert (got.status, await got.read()) == (status, b"")


async def test_http_1_0_gets_its_answer_unchunked() -> None:
    async def stream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await response.write(b"piece ")
            await asyncio.sleep(0)
        return response

    async with serving(stream) as address, proxying() as local:
        local.announce("a", address)
        answer = await local.exchange(b"GET / HTTP/1.0\r\n\r\n")
        assert b"chunked" not in answer
        assert answer.endswith(b"\r\n\r\npiece piece piece ")


async def test_a_client_that_goes_takes_its_request_to_the_instance_with_it() -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.Response:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with serving(wait) as address, proxying() as local:
        local.announce("a", address)
        _, writer = await local.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(began.wait(), 10)
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 10)
        assert local.proxy.upstreams.all()[0].counts.faults == dict.fromkeys(
            local.proxy.upstreams.all()[0].counts.faults, 0
        )
