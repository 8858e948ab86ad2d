"""The wire server with grpcio's own client on the other end, and with those who mean harm beside it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from kvstore.rpc import Status, UnaryMethod
from kvstore.wire import frames as h2
from kvstore.wire.limits import Limits
from kvstore.wire.server import Server, serve
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Peer, Service, framed

FAIL, META = "/test.Test/Fail", "/test.Test/Meta"
LIMITS = Limits(max_concurrent_streams=200, preface_timeout_s=0.3)


class Running:
    def __init__(self, server: Server, service: Service) -> None:
        self.server = server
        self.service = service
        self.port: int = server.sockets[0].getsockname()[1]
        self.channel: Any = grpc.aio.insecure_channel(  # without stubs of generated code nothing is typed
            f"127.0.0.1:{self.port}", options=[("grpc.max_receive_message_length", -1)]
        )

    async def echo(self, data: bytes, path: str = ECHO, **options: object) -> bytes:
        reply: bytes = await self.channel.unary_unary(path)(data, **options)
        return reply


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    service = Service()
    methods = {
        **service.methods(),
        FAIL: UnaryMethod(lambda call, data: call.fail(Status.DATA_LOSS, data.decode())),
        META: UnaryMethod(lambda call, data: call.reply(call.metadata["x-note"].encode())),
    }
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    server = await serve(sock, methods, limits=LIMITS)
    made = Running(server, service)
    try:
        yield made
    finally:
        await made.channel.close(None)
        await server.close(0.2)


async def test_messages_of_every_size(running: Running) -> None:
    for size in (0, 1, 16_379, 16_380, 65_535, 70_000, 1_500_000):
        assert len(await running.echo(b"m" * size)) == size
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await running.echo(b"m" * (LIMITS.max_message_bytes + 1))
    assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in str(refusal.value.details())


async def test_statuses_metadata_and_unknown_methods(running: Running) -> None:
    for text in ("plain", "100 % ü → \n done"):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await running.echo(text.encode(), FAIL)
        assert (failure.value.code(), failure.value.details()) == (grpc.StatusCode.DATA_LOSS, text)
    assert await running.echo(b"", META, metadata=(("x-note", "hello"),)) == b"hello"
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await running.echo(b"", "/test.Test/Nothing")
    assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_many_calls_at_once(running: Running) -> None:
    answers = await asyncio.gather(*(running.echo(b"%d" % number) for number in range(500)))
    assert answers == [b"%d" % number for number in range(500)]


async def test_deadlines_and_cancellation_reach_the_service(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await running.echo(b"", HOLD, timeout=0.1)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    call = running.channel.unary_unary(HOLD)(b"")
    await until(lambda: len(running.service.held) == 2)
    call.cancel()
    await until(lambda: running.service.held[1][0].cancelled)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_streams_both_ways(running: Running) -> None:
    call = running.channel.stream_stream(CHAT)()
    for size in (1, 100_000, 0, 1_000_000):
        await call.write(b"s" * size)
        assert len(await call.read()) == size
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    assert await call.code() == grpc.StatusCode.OK
    other = running.channel.stream_stream(CHAT)()
    await other.write(b"x")
    await other.read()
    other.cancel()
    await until(lambda: running.service.ends[-1:] == ["cancelled"])


async def test_closing_lets_calls_finish(running: Running) -> None:
    call = running.channel.unary_unary(HOLD)(b"")
    await until(lambda: bool(running.service.held))
    closing = asyncio.ensure_future(running.server.close(2.0))
    await asyncio.sleep(0.05)
    running.service.held[0][0].reply(b"done")
    assert await call == b"done"
    await closing
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", running.port)


# Those who mean harm

Harm = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Peer], Awaitable[None]]
START = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in another task's calls
            await asyncio.sleep(0.005)


async def _nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(b"\x16\x03\x01 this is neither" * 10)


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(h2.PREFACE[:5])


async def _oversize(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(START + struct.pack(">HBBBI", 0xFFFF, 0xFF, h2.DATA, 0, 1))


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(START)
    for number in range(1, 12_000, 2):
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS, number, peer.head(HOLD)))
        writer.write(h2.frame(h2.RST_STREAM, 0, number, h2.U32.pack(h2.CANCEL)))
        await writer.drain()


async def _continuation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(START + h2.frame(h2.HEADERS, 0, 1))
    for _ in range(200):
        writer.write(h2.frame(h2.CONTINUATION, 0, 1, b"\0" * 1000))
        await writer.drain()


async def _pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(START + h2.frame(h2.PING, 0, 0, b"x" * 8) * 10_000)


async def _settings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(START + h2.frame(h2.SETTINGS, 0, 0) * 10_000)


async def _header_bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    big = [("x", "y" * 4000)]
    block = peer.encoder.encode(big) + peer.encoder.encode(big) * 100
    writer.write(START + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block))


HARM = [_nonsense, _silence, _oversize, _reset, _continuation, _pings, _settings, _header_bomb]


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: str(harm.__name__).strip("_"))
async def test_harm_ends_its_connection_and_no_other(running: Running, harm: Harm) -> None:
    assert await running.echo(b"before") == b"before"
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        async with asyncio.timeout(10):
            try:
                await harm(reader, writer, Peer())
                while await reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass  # cut off in the middle of it
    finally:
        writer.close()
    assert await running.echo(b"after") == b"after"
    await until(lambda: running.server.connection_count == 1)


async def test_a_flood_of_streams_is_refused_stream_by_stream(running: Running) -> None:
    peer = Peer()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(START)
    for number in range(1, 1001, 2):
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS, number, peer.head(HOLD)))
        writer.write(h2.frame(h2.DATA, h2.END_STREAM, number, framed(b"x")))
    refused = b""
    async with asyncio.timeout(5):
        while refused.count(h2.U32.pack(h2.REFUSED_STREAM)) < 300:
            refused += await reader.read(1 << 16)
    assert len(running.service.held) == 200
    assert await running.echo(b"beside it") == b"beside it"
    writer.close()
    await until(lambda: all(call.cancelled for call, _ in running.service.held))
