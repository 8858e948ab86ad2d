"""kvstore/client: channels and calls, with servers on real sockets that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from kvstore.client import Client
from kvstore.client.caller import Settings
from kvstore.client.channel import Channel, _rounded
from kvstore.client.connection import Connection
from kvstore.client.dial import DialFailed, first_of
from kvstore.client.endpoints import parse_endpoints
from kvstore.client.errors import (
    ClientClosed,
    ClientError,
    ConnectionLost,
    NotProposed,
    OutcomeUnknown,
    RequestTimeout,
    RequestTooLarge,
    Unreachable,
)
from kvstore.client.methods import LEASE_KEEP_ALIVE, RANGE
from kvstore.demo.processes import free_ports
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.wire import frames as h2
from kvstore.wire.frames import frame
from tests.unit.client.server import Peer, serving
from tests.unit.client.wire import REQUEST, Heard, framed, setting


def client_of(endpoint: str, **options: Any) -> Client:
    return Client(
        endpoint, **{"wait_for_endpoints": False, "timeout_s": 10.0, "dial_timeout_s": 10.0, **options}
    )


async def obliging(peer: Peer) -> None:
    await peer.greet()
    while True:
        stream, _, _ = await peer.request()
        peer.answer(stream)


async def silent(peer: Peer) -> None:
    await peer.greet()
    await peer.until_gone()


# Connecting


async def test_refused() -> None:
    endpoint = f"127.0.0.1:{free_ports(1)[0]}"
    async with client_of(endpoint) as client:
        for call in (client.put("a", "1"), client.get("a"), client.lease_keep_alive_once(1), client.status()):
            with pytest.raises(Unreachable) as refused:
                await call
            assert refused.value.reasons == {endpoint: "Connection refused"}
            assert refused.value.definite


async def says_nothing(peer: Peer) -> None:
    await peer.until_gone()


async def test_a_server_that_accepts_and_says_nothing_gets_no_request() -> None:
    got = b""

    async def listen(peer: Peer) -> None:
        nonlocal got
        while data := await peer.reader.read(1 << 16):
            got += data

    async with serving(listen) as running, client_of(running.endpoint, dial_timeout_s=0.05) as client:
        with pytest.raises(Unreachable, match=r"no connection to .* within 0.05 s") as late:
            await client.put("a", "1")
        assert late.value.definite
    assert b"KV/Put" not in got


async def hangs_up(peer: Peer) -> None:
    await peer.reader.readexactly(1)


async def speaks_http1(peer: Peer) -> None:
    await peer.reader.readexactly(1)
    peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def speaks_garbage(peer: Peer) -> None:
    await peer.reader.readexactly(1)
    peer.say(b"SSH-2.0-OpenSSH_9.2\r\n")
    await peer.until_gone()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (hangs_up, "the server closed the connection"),
        (speaks_http1, "it speaks HTTP/1, not gRPC"),
        (speaks_garbage, "the server broke HTTP/2: its first bytes are no HTTP/2"),
    ],
)
async def test_whoever_is_there_is_no_server(script: Callable[[Peer], Awaitable[None]], reason: str) -> None:
    async with serving(script) as running, client_of(running.endpoint) as client:
        with pytest.raises(Unreachable) as failed:
            await client.put("a", "1")
        # Hanging up with bytes of ours unread, a kernel may say so in its own way.
        assert failed.value.reasons[running.endpoint] in (reason, "Connection reset by peer")
        assert not failed.value.by_tls


async def test_a_name_that_has_no_address() -> None:
    async with client_of("nobody.invalid:2379") as client:
        with pytest.raises(Unreachable, match=r"no address for 'nobody.invalid'"):
            await client.get("a")


async def test_names_ipv6_and_unix_sockets(tmp_path: Path) -> None:
    async with (
        serving(obliging) as running,
        client_of(running.endpoint.replace("127.0.0.1", "localhost")) as client,
    ):
        await client.put("a", "1")
    async with serving(obliging, path=str(tmp_path / "s")) as running, client_of(running.endpoint) as client:
        await client.put("a", "1")
    async with client_of(f"unix://{tmp_path}/none") as client:
        with pytest.raises(Unreachable, match="No such file or directory"):
            await client.put("a", "1")
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        async with serving(obliging, host="::1") as running, client_of(running.endpoint) as client:
            await client.put("a", "1")


async def test_an_address_that_says_nothing_does_not_hold_up_the_next() -> None:
    with contextlib.ExitStack() as held:
        full = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # its queue is full: the kernel answers nobody any more
            queued = held.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(full.getsockname())
        good = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        refusing = ("127.0.0.1", free_ports(1)[0])
        addresses = [(socket.AF_INET, each) for each in (refusing, full.getsockname(), good.getsockname())]
        found = held.enter_context(await first_of(addresses))
        assert found.getpeername() == good.getsockname()
        with pytest.raises(DialFailed, match="Connection refused"):
            await first_of([addresses[0], addresses[0]])
        with pytest.raises(DialFailed, match="no address"):
            await first_of([])


async def test_a_server_that_leaves_as_it_greets() -> None:
    async def leaves(peer: Peer) -> None:
        await peer.greet()
        peer.goaway(0, h2.NO_ERROR, b"shutting down")
        await peer.until_gone()

    async with serving(leaves) as running, client_of(running.endpoint) as client:
        with pytest.raises(Unreachable, match="shutting down"):
            await client.put("a", "1")


async def test_who_connects_at_once_shares_one_connection() -> None:
    async with serving(obliging) as running, client_of(running.endpoint) as client:
        await asyncio.gather(*(client.put(f"{n}", "1") for n in range(20)))
        assert running.connections == 1


async def test_a_failed_connection_is_not_tried_again_at_once() -> None:
    [endpoint] = parse_endpoints(f"127.0.0.1:{free_ports(1)[0]}")
    channel = Channel(endpoint, None, Settings())
    for _ in range(3):
        with pytest.raises(Unreachable, match="Connection refused"):
            await channel.connect(5.0)
    assert channel._rest_s == 0.1, "one failure: the others were told of it"
    port = int(endpoint.target.rpartition(":")[2])
    server = await asyncio.start_server(
        lambda reader, writer: obliging(Peer(reader, writer)), "127.0.0.1", port
    )
    channel._rests_until = 0.0
    await channel.connect(5.0)
    assert channel._rest_s == 0.05
    await channel.close()
    with pytest.raises(ClientClosed):
        await channel.connect(5.0)
    server.close()


async def test_closing_while_connecting() -> None:
    accepted = asyncio.Event()

    async def accepts(peer: Peer) -> None:
        accepted.set()
        await peer.until_gone()

    async with serving(accepts) as running:
        client = client_of(running.endpoint)
        asking = asyncio.ensure_future(client.put("a", "1"))
        await accepted.wait()
        await client.close()
        with pytest.raises(ClientClosed):
            await asking


# Calls that fail


async def breaks_off(peer: Peer) -> None:
    await peer.greet()
    stream, _, _ = await peer.request()
    peer.head(stream)
    peer.say(frame(h2.DATA, 0, stream, framed(b"half of it"))[:-4])


async def test_a_connection_that_breaks_within_an_answer() -> None:
    async with serving(breaks_off) as running, client_of(running.endpoint) as client:
        with pytest.raises(OutcomeUnknown):
            await client.put("a", "1")
        with pytest.raises(ConnectionLost):
            await client.caller.at(client.caller.choice.pinned, RANGE, pb.RangeRequest(key=b"a"))
        assert running.connections == 2


async def test_a_server_that_breaks_the_protocol_within_a_call() -> None:
    async def pushes(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.say(frame(h2.PUSH_PROMISE, 0, 1, bytes(8)))
        assert (await peer.next(h2.GOAWAY)).payload[4:8] == h2.U32.pack(h2.PROTOCOL_ERROR)

    async with serving(pushes) as running, client_of(running.endpoint) as client:
        with pytest.raises(OutcomeUnknown, match="the server broke HTTP/2: a push, which was not asked for"):
            await client.put("a", "1")


async def test_what_is_refused_is_sent_once_more_and_is_definite() -> None:
    asked = 0

    async def refuses(peer: Peer) -> None:
        nonlocal asked
        await peer.greet()
        while True:
            stream, _, _ = await peer.request()
            asked += 1
            if asked % 2 or asked > 2:
                peer.say(frame(h2.RST_STREAM, 0, stream, h2.U32.pack(h2.REFUSED_STREAM)))
            else:
                peer.answer(stream, pb.PutResponse().SerializeToString())

    async with serving(refuses) as running, client_of(running.endpoint) as client:
        await client.put("a", "1")
        assert asked == 2
        with pytest.raises(NotProposed, match="REFUSED_STREAM") as refused:
            await client.caller.at(client.caller.choice.pinned, RANGE, pb.RangeRequest(key=b"a"), write=True)
        assert refused.value.definite
        assert asked == 4


async def test_goaway_with_calls_on_it() -> None:
    """The call below finishes where it is; the one above, a write, was not looked at and goes over a new connection;
    so does every new one."""
    first_done = asyncio.Event()

    async def leaves(peer: Peer) -> None:
        await peer.greet()
        first, _, _ = await peer.request()
        await peer.request()
        peer.goaway(first, h2.NO_ERROR, b"max_age")
        await first_done.wait()
        peer.answer(first, pb.PutResponse(header=pb.ResponseHeader(revision=7)).SerializeToString())
        await peer.until_gone()

    async with serving(leaves, obliging) as running, client_of(running.endpoint) as client:
        below = asyncio.ensure_future(client.put("a", "1"))
        above = asyncio.ensure_future(client.put("b", "1"))
        assert (await above).header.revision == 0
        assert running.connections == 2
        await client.put("c", "1")
        assert not below.done()
        first_done.set()
        assert (await below).header.revision == 7
        assert running.connections == 2


async def test_too_many_pings_makes_them_fewer() -> None:
    async def complains(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.goaway(1, h2.ENHANCE_YOUR_CALM, b"too_many_pings")

    async with (
        serving(complains, obliging) as running,
        client_of(running.endpoint, keepalive_s=9.0) as client,
    ):
        with pytest.raises(OutcomeUnknown, match="the server ended the connection: too_many_pings"):
            await client.put("a", "1")
        [channel] = client.caller._channels.values()
        assert channel._keepalive_s == 18.0


async def test_a_request_that_is_too_large_does_not_leave() -> None:
    async with serving(obliging) as running, client_of(running.endpoint, max_message_bytes=100) as client:
        with pytest.raises(RequestTooLarge, match="Sent message larger than max") as refused:
            await client.put("a", bytes(200))
        assert refused.value.definite


async def test_an_answer_that_is_no_message() -> None:
    async def mumbles(peer: Peer) -> None:
        await peer.greet()
        while True:
            stream, _, _ = await peer.request()
            peer.answer(stream, b"\xff\xff\xff")

    async with serving(mumbles) as running, client_of(running.endpoint) as client:
        with pytest.raises(OutcomeUnknown, match="the answer cannot be read"):
            await client.put("a", "1")
        with pytest.raises(ClientError, match="the answer cannot be read"):
            await client.get("a")


async def test_an_answer_without_a_message() -> None:
    async def bare(peer: Peer) -> None:
        await peer.greet()
        stream, _, _ = await peer.request()
        peer.head(stream)
        peer.end(stream)
        await peer.until_gone()

    async with serving(bare) as running, client_of(running.endpoint) as client:
        with pytest.raises(OutcomeUnknown, match="no message"):
            await client.put("a", "1")


# Deadlines, cancelling, keepalive, closing


async def test_deadlines_are_told_and_kept() -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    reset: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def dawdles(peer: Peer) -> None:
        await peer.greet()
        _, fields, _ = await peer.request()
        told.set_result(fields["grpc-timeout"])
        reset.set_result(h2.U32.unpack((await peer.next(h2.RST_STREAM)).payload)[0])
        await peer.until_gone()

    async with serving(dawdles) as running, client_of(running.endpoint) as client:
        [endpoint] = client.caller.choice.endpoints
        with pytest.raises(RequestTimeout, match="Deadline Exceeded"):
            await client.caller.at(endpoint, RANGE, pb.RangeRequest(key=b"a"), timeout_s=0.05)
        value = await told
        assert value.endswith("m")
        assert 0 < int(value[:-1]) <= 50
        assert await reset == h2.CANCEL


@pytest.mark.parametrize(
    ("left_s", "milliseconds"),
    [(5.0, 5000), (4.99, 5000), (1.01, 1100), (1.0, 1000), (0.0101, 11), (0.0, 1), (-1.0, 1)],
)
def test_the_server_is_told_no_less_than_what_is_left(left_s: float, milliseconds: int) -> None:
    assert _rounded(left_s) == milliseconds


async def test_a_cancelled_call_is_reset() -> None:
    asked, reset = asyncio.Event(), asyncio.Event()

    async def waits(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        asked.set()
        assert (await peer.next(h2.RST_STREAM)).payload == h2.U32.pack(h2.CANCEL)
        reset.set()
        stream, _, _ = await peer.request()
        peer.answer(stream)
        await peer.until_gone()

    # The deadline resets too, and is not what this is about.
    async with serving(waits) as running, client_of(running.endpoint, timeout_s=600.0) as client:
        asking = asyncio.ensure_future(client.put("a", "1"))
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await reset.wait()
        await client.put("a", "1")
        assert running.connections == 1


async def test_closing_the_client_ends_its_calls() -> None:
    asked = asyncio.Event()

    async def listens(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        await peer.request()
        asked.set()
        await peer.until_gone()

    async with serving(listens) as running:
        client = client_of(running.endpoint)
        writing, reading = asyncio.ensure_future(client.put("a", "1")), asyncio.ensure_future(client.get("a"))
        await asked.wait()
        await client.close()
        with pytest.raises(OutcomeUnknown, match="the client was closed"):
            await writing
        with pytest.raises(ClientClosed, match="the client was closed"):
            await reading
        with pytest.raises(ClientClosed, match="the client is closed"):
            await client.get("a")


async def test_a_server_that_answers_no_ping_is_left() -> None:
    pings = 0

    async def plays_dead(peer: Peer) -> None:
        nonlocal pings
        await peer.greet()
        await peer.request()
        ping = await peer.next(h2.PING)
        peer.say(frame(h2.PING, h2.ACK, 0, ping.payload))
        await peer.next(h2.PING)
        pings = 2
        await peer.until_gone()

    options = {"keepalive_s": 0.02, "keepalive_timeout_s": 0.02}
    async with serving(plays_dead) as running, client_of(running.endpoint, **options) as client:
        with pytest.raises(OutcomeUnknown, match=r"no answer to a keepalive ping within 0\.02 s"):
            await client.put("a", "1")
        assert pings == 2


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


class Recorder(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


async def test_a_small_call_is_one_write_at_once_and_what_follows_in_the_turn_is_one_more() -> None:
    connection, transport = Connection(1 << 20, 10.0, 5.0, lambda _: None), Recorder()
    connection.connection_made(transport)
    connection.data_received(frame(h2.SETTINGS, 0, 0))
    await turns()
    transport.writes.clear()
    for text in (b"first", b"second", b"third"):
        connection.open(REQUEST, Heard(), message=text, ends=True)
    [first] = transport.writes
    assert first.endswith(framed(b"first"))
    await turns()
    assert len(transport.writes) == 2
    assert framed(b"second") in transport.writes[1]
    assert framed(b"third") in transport.writes[1]
    transport.writes.clear()
    call = connection.open(REQUEST, Heard(), holds=True)
    assert transport.writes == [], "the headers of a stream wait for its first message"
    connection.send(call, b"hello")
    assert len(transport.writes) == 1
    connection.abort("over")
    connection.connection_lost(None)


# Streams


async def talks(peer: Peer) -> None:
    """Answers each message with one; "end" ends the call."""
    await peer.greet(setting(h2.INITIAL_WINDOW_SIZE, 1000))
    while True:
        found = await peer.next(h2.HEADERS, h2.DATA)
        if found.kind == h2.HEADERS:
            peer.head(found.stream)
            continue
        lease_id = pb.LeaseKeepAliveRequest.FromString(found.payload[5:]).ID
        if lease_id == 99:
            peer.end(found.stream)
        else:
            peer.message(found.stream, pb.LeaseKeepAliveResponse(ID=lease_id).SerializeToString())


async def test_a_read_that_was_given_up_loses_nothing() -> None:
    async with serving(talks) as running, client_of(running.endpoint) as client:
        [endpoint] = client.caller.choice.endpoints
        await client.caller.connect(endpoint, 5.0)
        stream = client.caller.open_stream(endpoint, LEASE_KEEP_ALIVE)
        with pytest.raises(RequestTimeout, match=r"no answer from .* within 0\.01 s"):
            await stream.read(0.01)
        reading = asyncio.ensure_future(stream.read(None))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        for lease_id in (5, 6):
            await stream.write(pb.LeaseKeepAliveRequest(ID=lease_id))
        assert [(await stream.read(5.0)).ID for _ in range(2)] == [5, 6]
        await stream.write(pb.LeaseKeepAliveRequest(ID=7))
        assert await stream.wait(5.0)
        await stream.write(pb.LeaseKeepAliveRequest(ID=99))
        assert (await stream.read(5.0)).ID == 7, "what came before the end comes first"
        assert await stream.next(5.0) is None
        for again in (stream.read(None), stream.write(pb.LeaseKeepAliveRequest())):
            with pytest.raises(ConnectionLost, match="the server ended the stream"):
                await again


async def test_a_wait_can_be_ended_and_a_read_cannot() -> None:
    async with serving(talks) as running, client_of(running.endpoint) as client:
        [endpoint] = client.caller.choice.endpoints
        await client.caller.connect(endpoint, 5.0)
        stream = client.caller.open_stream(endpoint, LEASE_KEEP_ALIVE)
        waiting = asyncio.ensure_future(stream.wait(None))
        await asyncio.sleep(0)
        stream.wake()
        assert await waiting is False
        reading = asyncio.ensure_future(stream.read(None))
        await asyncio.sleep(0)
        stream.wake()
        await stream.write(pb.LeaseKeepAliveRequest(ID=5))
        assert (await reading).ID == 5
        ending = asyncio.ensure_future(stream.read(None))
        await asyncio.sleep(0)
        await stream.close()
        with pytest.raises(ConnectionLost, match="the stream was cancelled"):
            await ending


async def test_a_write_waits_for_the_servers_window() -> None:
    may_go = asyncio.Event()

    async def narrow(peer: Peer) -> None:
        await peer.greet(setting(h2.INITIAL_WINDOW_SIZE, 3))
        await peer.next(h2.DATA)
        await may_go.wait()
        peer.say(frame(h2.WINDOW_UPDATE, 0, 1, h2.U32.pack(1000)))
        await peer.until_gone()

    async with serving(narrow, silent) as running, client_of(running.endpoint) as client:
        [endpoint] = client.caller.choice.endpoints
        await client.caller.connect(endpoint, 5.0)
        stream = client.caller.open_stream(endpoint, LEASE_KEEP_ALIVE)
        writing = asyncio.ensure_future(stream.write(pb.LeaseKeepAliveRequest(ID=5)))
        await asyncio.sleep(0)
        assert not writing.done()
        may_go.set()
        await writing


def test_on_uvloop_as_well(tmp_path: Path) -> None:
    async def run() -> None:
        await test_refused()
        await test_names_ipv6_and_unix_sockets(tmp_path)
        await test_a_connection_that_breaks_within_an_answer()
        await test_goaway_with_calls_on_it()
        await test_a_read_that_was_given_up_loses_nothing()
        await test_closing_the_client_ends_its_calls()
        await test_closing_while_connecting()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_a_stream_that_outlives_its_loop_is_let_go_of_in_silence() -> None:
    left: list[Any] = []

    async def run() -> None:
        async with serving(talks) as running, client_of(running.endpoint) as client:
            [endpoint] = client.caller.choice.endpoints
            await client.caller.connect(endpoint, 5.0)
            left.append(client.caller.open_stream(endpoint, LEASE_KEEP_ALIVE))

    asyncio.run(run())
    cast(Any, left.pop()).cancel()
