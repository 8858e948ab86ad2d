"""Websockets through the builtin proxy: what the two ends say to each other, and how they are ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from kvstore.routing.builtin import Options
from kvstore.routing.upstreams import Timeouts
from tests.routing.instances import Local, named, proxying, raw_serving, serving
from tests.routing.programs import until


@dataclass(slots=True)
class Echo:
    """An instance that sends back what it gets. closed: the codes that its websockets ended with."""

    closed: list[int | None] = field(default_factory=list)
    extensions: list[str] = field(default_factory=list)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path == "/refused":
            return web.Response(status=403, text="not you", headers={"X-Why": "because"})
        socket = web.WebSocketResponse(protocols=("chat.v2", "chat.v1"), autoping=False, max_msg_size=0)
        self.extensions.append(request.headers.get("Sec-WebSocket-Extensions", ""))
        await socket.prepare(request)
        try:
            async for message in socket:
                if message.type is WSMsgType.PING:
                    await socket.pong(b"instance:" + message.data)
                elif message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
                elif message.data == "close me":
                    await socket.close(code=4002, message=b"as you wish")
                elif message.data == "die":
                    assert request.transport is not None
                    request.transport.abort()
                else:
                    await socket.send_str(message.data)
        finally:
            self.closed.append(socket.close_code)
        return socket


@asynccontextmanager
async def echoing(
    options: Options | None = None, **listening: Any
) -> AsyncIterator[tuple[Local, Echo, aiohttp.ClientSession]]:
    echo = Echo()
    async with (
        serving(echo) as address,
        proxying(options, **listening) as local,
        aiohttp.ClientSession() as client,
    ):
        local.announce("a", address)
        yield local, echo, client


async def ended(echo: Echo, code: int | None) -> None:
    async def holds() -> bool:
        return echo.closed == [code]

    await until(f"the instance's websocket ends with {code}: {echo.closed}", holds)


@pytest.mark.parametrize("compress", [0, 15])
async def test_messages_of_any_size_both_ways(compress: int) -> None:
    async with echoing() as (local, echo, client):
        async with client.ws_connect(local.url, compress=compress, max_msg_size=0) as socket:
            assert bool(socket.compress) == bool(compress)  # agreed on by the two ends
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            for size in (0, 125, 126, 65535, 65536, 5_000_000):
                data = b"\x01\x02\x03\x04" * (size // 4)
                await socket.send_bytes(data)
                assert await socket.receive_bytes() == data
        await ended(echo, 1000)


async def test_subprotocols_pings_and_close_codes_are_the_business_of_the_ends() -> None:
    async with echoing() as (local, echo, client):
        async with client.ws_connect(local.url, protocols=("x", "chat.v1"), autoping=False) as socket:
            assert socket.protocol == "chat.v1"
            await socket.ping(b"p")
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.PONG, b"instance:p")
            await socket.send_str("close me")
            message = await socket.receive()
            assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4002, "as you wish")
        await ended(echo, 1000)  # as it is without the proxy: the library's name for having closed it itself
        echo.closed.clear()
        async with client.ws_connect(local.url) as socket:
            await socket.close(code=4001, message=b"bye")
        await ended(echo, 4001)


async def test_a_handshake_that_is_refused_is_refused_in_the_instances_words() -> None:
    async with echoing() as (local, _, client):
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        async with client.get(local.url + "refused", headers=headers) as answer:
            assert (answer.status, await answer.text()) == (403, "not you")
            assert answer.headers["X-Why"] == "because"
            assert answer.headers["Connection"] == "close"


async def test_a_handshake_goes_on_to_the_next_instance() -> None:
    async def closes(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        pass

    async with echoing() as (local, _, client), raw_serving(closes) as address:
        local.announce("b", address)
        local.announce("c", "127.0.0.1:1")
        for _turn in range(4):
            async with client.ws_connect(local.url) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello"


async def test_a_side_that_goes_takes_the_other_with_it() -> None:
    async with echoing() as (local, echo, client):
        async with client.ws_connect(local.url) as socket:
            await socket.send_str("die")
            message = await socket.receive()
            assert message.type in (WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSING)
            assert socket.close_code == 1006

        async def gone() -> bool:
            return len(echo.closed) == 1

        await until("the instance has let go of it", gone)
        echo.closed.clear()
        socket = await client.ws_connect(local.url)
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        response: Any = socket._response
        response.connection.transport.abort()
        await until("the instance hears of it", gone)

        async def holds() -> bool:
            return local.proxy.busy == set()

        await until("the proxy has let go of it", holds)


async def test_a_websocket_stays_open_while_its_instance_drains_until_the_limit() -> None:
    options = Options(timeouts=Timeouts(drain_s=0.8))
    async with echoing(options) as (local, echo, client), serving(named("b")) as other:
        async with client.ws_connect(local.url) as socket:
            local.announce("b", other)
            local.drain("a")
            async with client.get(local.url) as answer:
                assert await answer.text() == "b"  # nothing new for a
            await socket.send_str("still here")
            assert await socket.receive_str() == "still here"
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
        await ended(echo, 1001)


async def test_nor_does_one_end_whose_instance_has_gone_from_the_store() -> None:
    options = Options(timeouts=Timeouts(drain_s=0.8))
    async with echoing(options) as (local, echo, client):
        async with client.ws_connect(local.url) as socket:
            local.withdraw("a")
            await socket.send_str("still here")
            assert await socket.receive_str() == "still here"
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
        await ended(echo, 1001)


async def test_a_drain_that_is_taken_back_ends_nothing() -> None:
    options = Options(timeouts=Timeouts(drain_s=0.8))
    async with echoing(options) as (local, _, client), client.ws_connect(local.url) as socket:
        local.drain("a")
        local.announce("a", local.instances["a"].address)
        await asyncio.sleep(1.0)  # nothing happens, which is the point
        await socket.send_str("still here")
        assert await socket.receive_str() == "still here"


async def test_at_the_limit_of_a_stop_both_ends_are_told_1001() -> None:
    async with echoing(stop_timeout_s=0.8) as (local, echo, client):
        async with client.ws_connect(local.url) as socket:
            stopping = asyncio.ensure_future(local.listener.stop())
            await socket.send_str("still here")
            assert await socket.receive_str() == "still here"
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
            await stopping
        await ended(echo, 1001)


async def test_in_the_middle_of_a_message_too_between_two_frames() -> None:
    """And one that takes nothing any more does not hold it up."""
    options = Options(timeouts=Timeouts(drain_s=0.2))

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while True:
            await socket.send_bytes(b"x" * 100_000)

    async with serving(flood) as address, proxying(options) as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        async with client.ws_connect(local.url) as socket, client.ws_connect(local.url):
            local.drain("a")
            while (message := await socket.receive()).type is WSMsgType.BINARY:
                assert len(message.data) == 100_000
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)

            async def holds() -> bool:
                return local.proxy.busy == set()

            await until("the proxy has let go of both", holds)
