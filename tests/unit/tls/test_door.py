"""kvstore/tls/door.py and stream.py: who is let in, over loopback, with real handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kvstore.tls.door import Door
from kvstore.tls.keeper import Keeper
from kvstore.tls.settings import TlsSettings
from tests.certificates import SERVER_ONLY, Authority, Pair

BIG = bytes(range(256)) * 4096 * 16  # 16 MiB


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


Test = Callable[..., Coroutine[Any, Any, None]]


def on_both_loops(test: Test) -> Callable[..., None]:
    """The member runs on uvloop; asyncio's own transports differ in small ways."""
    return on_loops(test, *LOOPS)


def on_uvloop(test: Test) -> Callable[..., None]:
    return on_loops(test, "uvloop")


def on_loops(test: Test, *names: str) -> Callable[..., None]:
    def run(loop: str, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(test(**arguments))

    marks = [*getattr(test, "pytestmark", []), pytest.mark.parametrize("loop", names).mark]
    run.pytestmark = marks  # type: ignore[attr-defined]
    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Reasons of refusals, as logged."""

    class Reasons(list[str]):
        def __contains__(self, text: object) -> bool:
            return any(str(text) in each for each in self.now())

        def now(self) -> list[str]:
            return [record.fields["error"] for record in caplog.records if "rejected" in record.message]  # type: ignore[attr-defined]

    with caplog.at_level(logging.WARNING, logger="kvstore"):
        yield Reasons()


class Echo(asyncio.Protocol):
    """Says who it takes the client for, then everything it is told."""

    made: list[Echo]

    def __init__(self, name: str, made: list[Echo]) -> None:
        self.name = name
        self.transport: Any = None
        self.ended = asyncio.get_running_loop().create_future()
        self.pauses = 0
        made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(f"<{self.name}>".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.pauses += 1
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


class Serving:
    def __init__(self, port: int, door: Door, made: list[Echo]) -> None:
        self.port = port
        self.door = door
        self.made = made

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[Any, Any]:
        name = "127.0.0.1" if context is not None else None
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)

    async def greeting(self, context: ssl.SSLContext) -> str:
        """What the server says first. Raises what the refusal of a connection looks like to its client."""
        async with asyncio.timeout(10):
            reader, writer = await self.connect(context)
            try:
                return str((await reader.readuntil(b">")).decode())
            finally:
                writer.transport.abort()

    async def refuses(self, context: ssl.SSLContext) -> str:
        """Its client's view of a refusal."""
        with pytest.raises((OSError, asyncio.IncompleteReadError)) as failed:
            await self.greeting(context)
        return str(getattr(failed.value, "reason", failed.value))


@contextlib.asynccontextmanager
async def serving(settings: TlsSettings, **bounds: Any) -> AsyncIterator[Serving]:
    door, made = Door(Keeper(settings), **bounds), list[Echo]()
    factory = door.guard(lambda name: Echo(name, made))
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        yield Serving(server.sockets[0].getsockname()[1], door, made)
    finally:
        server.close()
        await door.close()
        for each in made:
            if each.transport is not None:
                each.transport.abort()
        await asyncio.gather(*(each.ended for each in made))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (there is nobody who could set an event)
            await asyncio.sleep(0.001)


def client(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.cert))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


@pytest.fixture
def one_way(server: Pair) -> TlsSettings:
    return TlsSettings("client", cert_file=str(server.cert), key_file=str(server.key))


@pytest.fixture
def mutual(one_way: TlsSettings, authority: Authority) -> TlsSettings:
    return replace(one_way, trusted_ca_file=str(authority.cert), client_cert_auth=True)


@on_both_loops
async def test_without_certificates_of_clients(
    one_way: TlsSettings, authority: Authority, stranger: Authority, alice: Pair
) -> None:
    async with serving(one_way) as it:
        assert await it.greeting(client(authority)) == "<>"
        assert await it.greeting(client(authority, alice)) == "<>", "it was not verified, so it names nobody"
        assert "CERTIFICATE_VERIFY_FAILED" in await it.refuses(client(stranger))


@on_both_loops
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_with_them(
    mutual: TlsSettings, authority: Authority, alice: Pair, version: ssl.TLSVersion, told: list[str]
) -> None:
    async with serving(mutual) as it:
        shown, none = client(authority, alice), client(authority)
        shown.maximum_version = none.maximum_version = version
        assert await it.greeting(shown) == "<alice>"
        assert "ALERT" in await it.refuses(none), "the alert says why, before the connection ends"
        assert "tls: client didn't provide a certificate" in told


@on_uvloop
async def test_a_ca_alone_demands_certificates_and_names_nobody(
    mutual: TlsSettings, authority: Authority, alice: Pair
) -> None:
    async with serving(replace(mutual, client_cert_auth=False)) as it:
        assert await it.greeting(client(authority, alice)) == "<>"
        assert "CERTIFICATE_REQUIRED" in await it.refuses(client(authority))


@on_uvloop
async def test_certificates_that_are_no_good(
    mutual: TlsSettings, authority: Authority, stranger: Authority, told: list[str]
) -> None:
    async with serving(mutual) as it:
        old = authority.issue("old", cn="alice", expired=True)
        assert "EXPIRED" in await it.refuses(client(authority, old))
        other = stranger.issue("other", cn="alice")
        assert "UNKNOWN_CA" in await it.refuses(client(authority, other))
        serving_only = authority.issue("serving", cn="alice", uses=SERVER_ONLY)
        assert "CERTIFICATE" in await it.refuses(client(authority, serving_only))
        for reason in ("certificate has expired", "unable to get local issuer", "purpose"):
            assert reason in told


@on_uvloop
async def test_revoked_ones_and_a_list_that_changes(
    mutual: TlsSettings, authority: Authority, alice: Pair, tmp_path: Path, told: list[str]
) -> None:
    crl = tmp_path / "list.crl"
    crl.write_bytes(authority.revoke("others", 1).read_bytes())
    async with serving(replace(mutual, crl_file=str(crl))) as it:
        assert await it.greeting(client(authority, alice)) == "<alice>"
        crl.write_bytes(authority.revoke("alices", 1, alice.serial).read_bytes())
        await it.refuses(client(authority, alice))
        assert f"transport: certificate serial {alice.serial:x} revoked" in told


@on_uvloop
async def test_allowed_hostnames(mutual: TlsSettings, authority: Authority, alice: Pair) -> None:
    async with serving(replace(mutual, allowed_hostnames=("x", "alice.example.com"))) as it:
        assert await it.greeting(client(authority, alice)) == "<alice>"
        bob = authority.issue("bob", cn="bob", hosts=("bob.example.com",))
        await it.refuses(client(authority, bob))


@on_uvloop
async def test_the_address_a_peer_comes_from(
    mutual: TlsSettings, authority: Authority, server: Pair, told: list[str]
) -> None:
    peers = replace(mutual, side="peer", checks_address=True)
    elsewhere = authority.issue("elsewhere", hosts=("10.9.8.7",))
    named = authority.issue("named", hosts=("localhost",))
    nameless = authority.issue("nameless", hosts=())
    async with serving(peers) as it:
        assert await it.greeting(client(authority, server)) == "<server>"
        assert await it.greeting(client(authority, nameless)) == "<>"
        assert await it.greeting(client(authority, named)) == "<>", "by a name that leads to its address"
        await it.refuses(client(authority, elsewhere))
        assert "x509: certificate is valid for 10.9.8.7, not 127.0.0.1" in told
    async with serving(replace(peers, checks_address=False)) as it:
        assert await it.greeting(client(authority, elsewhere)) == "<>"


@on_uvloop
async def test_whatever_the_ca_file_has_is_trusted(one_way: TlsSettings, stranger: Authority) -> None:
    """A single certificate in it, too: as Go, and so etcd, sees it."""
    pinned = stranger.issue("pinned", cn="pinned")
    settings = replace(one_way, trusted_ca_file=str(pinned.cert), client_cert_auth=True)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(pinned.cert, pinned.key)
    async with serving(settings) as it:
        assert await it.greeting(context) == "<pinned>"


@on_uvloop
@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2"], "h2"), (["h2", "http/1.1"], "http/1.1"), ([], None), (["x"], None)]
)
async def test_alpn(
    one_way: TlsSettings, authority: Authority, offered: list[str], chosen: str | None
) -> None:
    context = client(authority)
    if offered:
        context.set_alpn_protocols(offered)
    async with serving(one_way) as it:
        reader, writer = await it.connect(context)
        await reader.readuntil(b">")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        writer.transport.abort()


@on_uvloop
async def test_versions_below_the_least(one_way: TlsSettings, authority: Authority, told: list[str]) -> None:
    old = client(authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(replace(one_way, min_version="TLS1.3")) as it:
        assert "PROTOCOL_VERSION" in await it.refuses(old)
        assert "unsupported versions" in told


@on_both_loops
async def test_much_data_both_ways_and_an_end(one_way: TlsSettings, authority: Authority) -> None:
    async with serving(one_way) as it:
        reader, writer = await it.connect(client(authority))
        await reader.readuntil(b">")
        [echo] = it.made
        writer.write(BIG)  # and reads nothing, so the socket's buffer fills, and reading stops for it
        await until(lambda: echo.pauses > 0)
        assert await reader.readexactly(len(BIG)) == BIG
        writer.close()
        await writer.wait_closed()
        assert await echo.ended is None


@on_both_loops
async def test_the_server_ends_it_behind_what_it_wrote(one_way: TlsSettings, authority: Authority) -> None:
    async with serving(one_way) as it:
        reader, writer = await it.connect(client(authority))
        await reader.readuntil(b">")
        [echo] = it.made
        echo.transport.write(b"goodbye")
        echo.transport.close()
        echo.transport.write(b"not any more")
        assert echo.transport.is_closing()
        assert await reader.read() == b"goodbye"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@on_uvloop
async def test_a_record_that_was_tampered_with_ends_it(one_way: TlsSettings, authority: Authority) -> None:
    async with serving(one_way) as it:
        pipes = [ssl.MemoryBIO() for _ in range(2)]
        tls = client(authority).wrap_bio(pipes[0], pipes[1], server_hostname="127.0.0.1")
        reader, writer = await it.connect()
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(pipes[1].read())
                pipes[0].write(await reader.read(65536))
        writer.write(pipes[1].read())
        tls.write(b"something")
        record = bytearray(pipes[1].read())
        record[-1] ^= 1
        writer.write(record)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        [echo] = it.made
        await echo.ended
        writer.transport.abort()


@on_uvloop
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", "client sent an HTTP request to an HTTPS server"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "tls: first record does not look like a TLS handshake"),
        (bytes(range(256)) * 8, "tls:"),
        (b"\x16\x03\x01\x10\x01" + b"\0" * 5000, "tls:"),
        (b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb" + b"\0" * 400_000, "tls:"),
    ],
)
async def test_garbage(
    one_way: TlsSettings, authority: Authority, words: bytes, reason: str, told: list[str]
) -> None:
    async with serving(one_way) as it:
        reader, writer = await it.connect()
        writer.write(words)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()
        assert reason in told
        assert not it.door.half_open and not it.made
        assert await it.greeting(client(authority)) == "<>"


@on_uvloop
async def test_a_handshake_byte_by_byte(one_way: TlsSettings, authority: Authority) -> None:
    async with serving(one_way) as it:
        pipes = [ssl.MemoryBIO() for _ in range(2)]
        tls = client(authority).wrap_bio(pipes[0], pipes[1], server_hostname="127.0.0.1")
        reader, writer = await it.connect()
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        for byte in pipes[1].read():
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        while True:
            pipes[0].write(await reader.read(65536))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        writer.write(pipes[1].read())
        pipes[0].write(await reader.read(65536))
        assert tls.read(100) == b"<>"
        writer.transport.abort()


@on_both_loops
async def test_silence_is_dropped_in_time(one_way: TlsSettings, told: list[str]) -> None:
    async with serving(one_way, handshake_timeout_s=0.05) as it:
        reader, writer = await it.connect()
        writer.write(b"\x16\x03")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()
        assert "no handshake within 0.05 s" in told
        assert not it.door.half_open


@on_uvloop
async def test_of_too_many_half_open_ones_the_oldest_goes(one_way: TlsSettings, authority: Authority) -> None:
    async with serving(one_way, half_open_max=3) as it:
        idle = []
        for number in range(4):
            idle.append(await it.connect())
            await until(lambda n=number: len(it.door.half_open) >= min(n + 1, 3))  # type: ignore[misc]
        reader, _ = idle[0]
        assert await reader.read() == b"", "the oldest"
        assert await it.greeting(client(authority)) == "<>", "who means it comes through"
        for _, writer in idle:
            writer.transport.abort()


@on_uvloop
async def test_a_storm_of_handshakes(mutual: TlsSettings, authority: Authority, alice: Pair) -> None:
    """The loop is not theirs: a timer that comes due meanwhile is not kept waiting for all of them."""
    context = client(authority, alice)
    async with serving(mutual) as it:
        greetings = await asyncio.gather(*(it.greeting(context) for _ in range(40)))
        assert greetings == ["<alice>"] * 40
        assert not it.door.half_open


@on_uvloop
async def test_refusals_do_not_flood_the_log(one_way: TlsSettings, told: Any) -> None:
    async with serving(one_way) as it:
        for _ in range(30):
            reader, writer = await it.connect()
            writer.write(b"nonsense" * 4)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.transport.abort()
        assert 20 <= len(told.now()) < 30


@on_both_loops
async def test_close_ends_what_is_half_open(one_way: TlsSettings) -> None:
    async with serving(one_way) as it:
        reader, writer = await it.connect()
        await until(lambda: bool(it.door.half_open))
        await it.door.close()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()
