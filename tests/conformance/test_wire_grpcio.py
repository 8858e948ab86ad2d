"""The wire server with grpcio's own client on the other end, and with those who mean harm beside it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from kvstore.rpc import Status, UnaryMethod
from kvstore.wire import frames as h2
from kvstore.wire.headers import literal
from kvstore.wire.limits import Limits
from kvstore.wire.server import Server, serve
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Peer, Service, framed

FAIL, META, BYTES, BROKEN = "/test.Test/Fail", "/test.Test/Meta", "/test.Test/Bytes", "/test.Test/Broken"
LIMITS = Limits(max_concurrent_streams=200, preface_timeout_s=0.3, queued_bytes=8 << 20)


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
        BROKEN: UnaryMethod(lambda call, data: call.reply(bytes(1 // 0))),
        BYTES: UnaryMethod(lambda call, data: call.reply(base64.b64decode(call.metadata["x-bin"] + "=="))),
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
    assert await running.echo(b"", BYTES, metadata=(("x-bin", b"\0\xff\x80"),)) == b"\0\xff\x80"
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await running.echo(b"", "/test.Test/Nothing")
    assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_long_message_is_cut_and_its_connection_lives(running: Running) -> None:
    """Percent-encoded it would be 54 KB, more than a frame holds and more than grpcio takes of headers."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await running.echo(("→" * 6000).encode(), FAIL)
    assert failure.value.code() == grpc.StatusCode.DATA_LOSS
    assert str(failure.value.details()).startswith("→" * 400)
    assert await running.echo(b"after") == b"after"
    assert running.server.connection_count == 1


async def test_compressed_requests(running: Running) -> None:
    data = b"squeeze me " * 10_000
    assert await running.echo(data, compression=grpc.Compression.Gzip) == data
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await running.echo(data, compression=grpc.Compression.Deflate)
    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as bomb:
        await running.echo(b"\0" * (LIMITS.max_message_bytes + 1), compression=grpc.Compression.Gzip)
    assert bomb.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


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


async def test_a_client_that_does_not_read_holds_back_its_own_stream(running: Running) -> None:
    call = running.channel.stream_stream(CHAT)()
    await call.write(b"hello")
    assert await call.read() == b"hello"
    chat = running.service.chats[0]
    for _ in range(6):
        chat.call.send(b"s" * 1_000_000)
    assert chat.call.buffered_bytes > 1_000_000
    assert await running.echo(b"beside it") == b"beside it"
    assert [len(await call.read()) for _ in range(6)] == [1_000_000] * 6
    assert (chat.call.buffered_bytes, running.service.ends) == (0, ["drained"])
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


async def test_a_service_that_breaks_costs_its_connection(running: Running) -> None:
    """And no other; the loop's handler is told, so that the log has it."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    held = asyncio.ensure_future(running.echo(b"", HOLD))
    await until(lambda: bool(running.service.held))
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(START + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, Peer().head(BROKEN)))
    writer.write(h2.frame(h2.DATA, h2.END_STREAM, 1, framed(b"x")))
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
    writer.close()
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]
    running.service.held[0][0].reply(b"not mine")
    assert await held == b"not mine"


async def test_calls_that_outlast_the_grace_are_cut(running: Running) -> None:
    call = running.channel.unary_unary(HOLD)(b"")
    await until(lambda: bool(running.service.held))
    await running.server.close(0.1)
    with pytest.raises(grpc.aio.AioRpcError) as cut:
        await call
    assert cut.value.code() == grpc.StatusCode.UNAVAILABLE
    assert running.service.held[0][0].cancelled


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


async def _http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # nobody serves it here


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(h2.PREFACE[:5])


async def _slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    """Each byte is a sign of life; the preface has its time as a whole."""
    for byte in h2.PREFACE[:-1]:
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.02)
        if writer.is_closing():
            return


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


async def _empty_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    writer.write(START + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, peer.head(CHAT)))
    writer.write(h2.frame(h2.DATA, 0, 1) * 10_000)


async def _never_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    """Requests of some fifty bytes, each refused with 4 KB of text that no window holds back."""
    plain = literal(":method", "POST") + literal("content-type", "application/grpc")
    path = b"\x40" + literal(":path", "/" + "n" * 4000 + "/x")[1:]  # into HPACK's table, at its front
    writer.write(START + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, plain + path))
    for number in range(3, 1 << 20, 2):
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, plain + b"\xbe"))
        await writer.drain()


async def _greedy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    """Opens every window and has large replies made, and reads none of them."""
    writer.write(START + h2.frame(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, h2.WINDOW_MAX)))
    writer.write(h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(h2.WINDOW_MAX - h2.DEFAULT_WINDOW)))
    data = framed(b"g" * 1_000_000)
    for number in range(1, 1 << 20, 2):
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS, number, peer.head(ECHO)))
        for at in range(0, len(data), h2.MAX_FRAME_BYTES):
            last = at + h2.MAX_FRAME_BYTES >= len(data)
            piece = data[at : at + h2.MAX_FRAME_BYTES]
            writer.write(h2.frame(h2.DATA, h2.END_STREAM if last else 0, number, piece))
            await writer.drain()


async def _header_bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
    big = [("x", "y" * 4000)]
    block = peer.encoder.encode(big) + peer.encoder.encode(big) * 100
    writer.write(START + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block))


HARM = [
    _nonsense,
    _http1,
    _silence,
    _slowly,
    _oversize,
    _reset,
    _continuation,
    _pings,
    _settings,
    _empty_data,
    _never_reading,
    _greedy,
    _header_bomb,
]


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: str(harm.__name__).strip("_"))
async def test_harm_ends_its_connection_and_no_other(running: Running, harm: Harm) -> None:
    """While it lasts, another connection goes on being served."""
    assert await running.echo(b"before") == b"before"
    (good,) = running.server._connections
    during = 0

    async def others() -> None:
        nonlocal during
        while True:
            async with asyncio.timeout(2):
                assert await running.echo(b"during") == b"during"
            during += 1
            await asyncio.sleep(0.001)

    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    beside = asyncio.ensure_future(others())
    try:
        async with asyncio.timeout(10):
            try:
                await harm(reader, writer, Peer())
                while await reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass  # cut off in the middle of it
        await until(lambda: running.server._connections == {good} and during > 0)
    finally:
        writer.close()
        beside.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beside
    assert await running.echo(b"after") == b"after"
    assert running.server._connections == {good}


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
