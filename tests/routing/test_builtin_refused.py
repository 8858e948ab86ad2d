"""What the builtin proxy does not pass on: requests that could be read in two ways, and ends that keep it waiting."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from kvstore.routing.builtin import Options
from kvstore.routing.upstreams import Timeouts
from tests.routing.instances import head, named, proxying, serving
from tests.routing.programs import until

PIECE = bytes(1 << 16)
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Length: 35, 0\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Length: +35\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Length: 0x23\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Length : 35\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + HIDDEN,
        HEAD + b"X: a\r\n b\x00\r\n\r\n" + HIDDEN,
        b"GET / HTTP/1.1\nHost: x\nContent-Length: 35\n\n" + HIDDEN,
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
async def test_what_two_parsers_could_read_differently_is_refused(request_bytes: bytes) -> None:
    asked: list[str] = []
    async with serving(named("a", asked)) as address, proxying() as local:
        local.announce("a", address)
        answer = await local.exchange(request_bytes)
        assert set(re.findall(rb"HTTP/1\.\d (\d+)", answer)) == {b"400"}, answer
        assert asked == []


async def test_a_body_that_breaks_its_own_framing_is_refused() -> None:
    bodies: list[object] = []

    async def upload(request: web.BaseRequest) -> web.Response:
        bodies.append(None)
        bodies[-1] = await request.read()
        return web.Response()

    options = Options(timeouts=Timeouts(read_s=0.2))
    async with serving(upload) as address, proxying(options) as local:
        local.announce("a", address)
        reader, writer = await local.connect()
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")

        async def holds() -> bool:
            return bool(bodies)

        await until("the instance has the request", holds)
        writer.write(b"xyz\r\n" + HIDDEN)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert set(re.findall(rb"HTTP/1\.\d (\d+)", answer)) <= {b"400", b"408"}, answer
        assert bodies == [None]


async def test_a_header_that_is_too_long_is_refused() -> None:
    async with serving(named("a")) as address, proxying(head_bytes=4096) as local:
        local.announce("a", address)
        for size, status in ((3000, b"200"), (5000, b"400")):
            request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + b"x" * size + b"\r\n\r\n"
            assert (await local.exchange(request)).split()[1] == status


@pytest.mark.parametrize(("begins", "status"), [(False, 504), (True, None)])
async def test_an_instance_that_is_silent_for_too_long(begins: bool, status: int | None) -> None:
    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if begins:
            await response.prepare(request)
            await response.write(b"x")
        await asyncio.Event().wait()
        return response

    options = Options(timeouts=Timeouts(read_s=0.2))
    async with serving(silent) as address, proxying(options) as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        async with client.get(local.url) as answer:
            if status is not None:
                assert answer.status == status
            else:
                with pytest.raises(aiohttp.ClientError):
                    await answer.read()


@pytest.mark.parametrize("size", [100, 1_000_000])
async def test_a_client_that_does_not_send_its_body(size: int) -> None:
    options = Options(timeouts=Timeouts(read_s=0.2))
    async with serving(named("a")) as address, proxying(options) as local:
        local.announce("a", address)
        answer = await local.exchange(HEAD + b"Content-Length: %d\r\n\r\nx" % size)
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_an_instance_that_does_not_take_the_body() -> None:
    async def ignore(request: web.BaseRequest) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield PIECE

    options = Options(timeouts=Timeouts(read_s=0.3))
    async with serving(ignore) as address, proxying(options) as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        async with client.post(local.url, data=body()) as answer:
            assert answer.status == 504


async def test_connect_is_refused() -> None:
    async with serving(named("a")) as address, proxying() as local:
        local.announce("a", address)
        reader, writer = await local.connect()
        writer.write(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert (await head(reader)).startswith(b"HTTP/1.1 501 ")
        writer.close()
