"""Connections between members, over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from kvstore.pb.internal_pb2 import PeerHello, PeerWelcome
from kvstore.replication import peer_protocol
from kvstore.replication.peer_protocol import HEAD, FrameParser, PeerProtocolError, encode_frame, encode_hello
from kvstore.replication.peers import (
    PeerCallbacks,
    PeerDeclined,
    PeerRequestTimeout,
    PeerTransport,
    PeerUnreachable,
    Reply,
    probe,
)
from raft.messages import AppendEntries, Heartbeat, Message
from raft.types import Entry

CLUSTER = 0xC1


class Member:
    """One transport, and everything it was told."""

    def __init__(
        self, self_id: int, *, data_id: int = 7, cluster_id: int = CLUSTER, buffer: int = 64 << 20
    ) -> None:
        self.self_id = self_id
        self.batches: list[list[Message]] = []
        self.notes: list[tuple[int, int, bytes]] = []
        self.unreachable: list[int] = []
        self.gone: list[int] = []
        self.refusals: list[tuple[int, PeerWelcome]] = []
        self.known_data: dict[int, int] = {}
        self.replies: list[Reply] = []
        self.changed = asyncio.Event()
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        self.transport = PeerTransport(
            self_id=self_id,
            cluster_id=cluster_id,
            data_id=data_id,
            incarnation=1,
            peers={},
            callbacks=PeerCallbacks(
                on_messages=lambda messages: self._add(self.batches, messages),
                on_notify=lambda *note: self._add(self.notes, note),
                on_request=self._request,
                on_unreachable=lambda node_id: self._add(self.unreachable, node_id),
                on_gone=lambda node_id: self._add(self.gone, node_id),
                on_refused=lambda *refusal: self._add(self.refusals, refusal),
                check_hello=self._check,
            ),
            entropy=random.Random(self_id),
            send_buffer_bytes_max=buffer,
        )

    def _add(self, where: list[Any], what: object) -> None:
        where.append(what)
        self.changed.set()

    def _request(self, from_id: int, kind: int, payload: bytes, reply: Reply) -> None:
        if kind == 1:
            reply(b"%x asked: " % from_id + payload)
        elif kind == 2:
            reply(None)
        else:
            self._add(self.replies, reply)

    def _check(self, hello: PeerHello) -> PeerWelcome:
        known = self.known_data.setdefault(hello.from_id, hello.data_id)
        if known != hello.data_id:
            return PeerWelcome(refusal="it was bootstrapped before", code="already-bootstrapped")
        return PeerWelcome()

    @property
    def messages(self) -> list[Message]:
        return [message for batch in self.batches for message in batch]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.02)


@contextlib.asynccontextmanager
async def running(*members: Member) -> AsyncIterator[None]:
    for member in members:
        await member.transport.start(sockets=[(member.sock, member.url.startswith("https:"))])
    for member in members:
        for other in members:
            member.transport.set_peer(other.self_id, [other.url])
    try:
        yield
    finally:
        for member in members:
            await member.transport.close()


def heartbeat(context: int, to: int = 2) -> Heartbeat:
    return Heartbeat(sender=1, to=to, term=1, commit=0, context=context)


async def connected(*members: Member) -> None:
    for member in members:
        others = [other.self_id for other in members if other is not member]
        await member.until(lambda t=member.transport, ids=others: all(map(t.connected, ids)))  # type: ignore[misc]


async def test_messages_arrive_in_order_and_a_send_is_one_delivery() -> None:
    one, two, three = Member(1), Member(2), Member(3)
    async with running(one, two, three):
        await connected(one, two, three)
        one.transport.send([heartbeat(1), heartbeat(1, to=3), heartbeat(2), heartbeat(3)])
        for context in range(4, 200):
            one.transport.send([heartbeat(context)])
        await two.until(lambda: len(two.messages) == 199)
        await three.until(lambda: len(three.messages) == 1)
        assert two.messages == [heartbeat(context) for context in range(1, 200)]
        assert two.batches[0][:3] == [heartbeat(1), heartbeat(2), heartbeat(3)]
        assert not one.unreachable


async def test_a_large_message_arrives_whole() -> None:
    one, two = Member(1), Member(2)
    async with running(one, two):
        await connected(one, two)
        entries = [Entry(index, 1, random.Random(index).randbytes(3 << 20)) for index in range(1, 9)]
        large = AppendEntries(1, 2, 1, 0, 0, entries, 0)
        one.transport.send([heartbeat(1), large, heartbeat(2)])
        await two.until(lambda: len(two.messages) == 3)
        assert two.messages == [heartbeat(1), large, heartbeat(2)]


async def test_requests_are_answered_declined_and_timed_out() -> None:
    one, two = Member(1), Member(2)
    async with running(one, two):
        await connected(one, two)
        answers: list[tuple[bytes | None, Exception | None]] = []

        def done(answer: bytes | None, error: Exception | None) -> None:
            answers.append((answer, error))
            one.changed.set()

        one.transport.request(2, 1, b"what?", 5.0, done)
        assert not answers, "answered from inside the call"
        await one.until(lambda: len(answers) == 1)
        assert answers == [(b"1 asked: what?", None)]
        one.transport.request(2, 2, b"", 5.0, done)
        await one.until(lambda: len(answers) == 2)
        assert isinstance(answers[1][1], PeerDeclined)
        one.transport.request(2, 3, b"", 0.01, done)
        await one.until(lambda: len(answers) == 3)
        assert isinstance(answers[2][1], PeerRequestTimeout)
        await two.until(lambda: len(two.replies) == 1)
        two.replies[0](b"too late")
        one.transport.request(9, 1, b"", 5.0, done)
        await one.until(lambda: len(answers) == 4)
        assert isinstance(answers[3][1], PeerUnreachable)
        one.transport.request(2, 3, b"", 5.0, done)
        await two.until(lambda: len(two.replies) == 2)
        await two.transport.close()
        await one.until(lambda: len(answers) == 5)
        assert isinstance(answers[4][1], PeerUnreachable)


async def test_many_requests_and_notes_share_writes() -> None:
    one, two = Member(1), Member(2)
    async with running(one, two):
        await connected(one, two)
        answers: list[bytes | None] = []
        for number in range(1000):
            one.transport.request(2, 1, b"%d" % number, 5.0, lambda answer, _: answers.append(answer))
            assert one.transport.notify(2, 5, b"%d" % number)
        await one.until(lambda: len(answers) == 1000)
        assert answers == [b"1 asked: %d" % number for number in range(1000)]
        assert two.notes == [(1, 5, b"%d" % number) for number in range(1000)]
        assert not one.transport.notify(9, 5, b"")


@pytest.mark.parametrize(
    ("other", "code"),
    [
        (Member, "cluster-mismatch"),
        (Member, "member-mismatch"),
        (Member, "already-bootstrapped"),
    ],
)
async def test_a_stranger_is_refused(other: type[Member], code: str) -> None:
    one = Member(1, data_id=8, cluster_id=0xC2 if code == "cluster-mismatch" else CLUSTER)
    two = other(5 if code == "member-mismatch" else 2)
    two.known_data[1] = 7 if code == "already-bootstrapped" else 8
    await two.transport.start(sockets=[(two.sock, False)])
    await one.transport.start(sockets=[(one.sock, False)])
    one.transport.set_peer(2, [two.url])
    await one.until(lambda: bool(one.refusals))
    assert (one.refusals[0][0], one.refusals[0][1].code) == (2, code)
    if code == "cluster-mismatch":  # etcd's words, which people search logs for
        told = f"cluster ID mismatch: c2 is not {CLUSTER:x}, which this member belongs to"
        assert one.refusals[0][1].refusal == told
    assert not one.transport.connected(2)
    one.transport.send([heartbeat(1)])
    await one.until(lambda: one.unreachable == [2])
    assert not two.messages
    await one.transport.close()
    await two.transport.close()


async def test_a_probe_asks_and_leaves() -> None:
    two = Member(2)
    two.known_data[1] = 7
    async with running(two):
        hello = PeerHello(cluster_id=CLUSTER, from_id=1, to_id=2, data_id=7)
        welcome = await probe(two.url, hello)
        assert welcome is not None
        assert welcome.code == ""
        hello.data_id = 8
        welcome = await probe(two.url, hello)
        assert welcome is not None
        assert welcome.code == "already-bootstrapped"
        hello.from_id = 2
        welcome = await probe(two.url, hello)
        assert welcome is not None
        assert welcome.code == "member-mismatch"
    assert await probe(two.url, hello) is None
    assert await probe("http://127.0.0.1", hello) is None


async def test_a_peer_that_refuses_us_but_speaks_on_is_not_gone() -> None:
    """As behind a firewall: only when it has hung up as well is its process taken for ended."""
    one, two = Member(1), Member(2)
    async with running(one, two):
        await connected(one, two)
        two.transport._servers[0].close()
        one.transport._links[2]._connection.transport.abort()  # type: ignore[union-attr]
        await one.until(lambda: 2 in one.unreachable)
        two.transport.send([heartbeat(2, to=1)])
        await one.until(lambda: bool(one.messages))
        assert not one.gone
        await two.transport.close()
        await one.until(lambda: 2 in one.gone)


async def test_a_peer_that_comes_back_is_reached_again() -> None:
    one, two = Member(1), Member(2)
    async with running(one, two):
        await connected(one, two)
        await two.transport.close()
        await one.until(lambda: one.unreachable == [2])
        one.transport.send([heartbeat(1)])
        await one.until(lambda: len(one.unreachable) >= 2)
        await one.until(lambda: 2 in one.gone)
        again = Member(2)
        again.sock.close()
        port = int(two.url.rsplit(":", 1)[1])
        await again.transport.start([f"http://127.0.0.1:{port}"])
        assert again.transport.ports == [port]
        again.transport.set_peer(1, [one.url])
        await one.until(lambda: one.transport.connected(2))
        one.transport.send([heartbeat(2)])
        await again.until(lambda: again.messages == [heartbeat(2)])
        await again.transport.close()


async def test_a_removed_peer_is_left() -> None:
    one, two = Member(1), Member(2)
    async with running(one, two):
        await connected(one, two)
        one.transport.send([heartbeat(9)])
        await one.transport.remove_peer(2)
        await two.until(lambda: two.messages == [heartbeat(9)])
        assert not one.transport.connected(2)


async def test_a_peer_that_does_not_read_costs_bounded_memory() -> None:
    one = Member(1, buffer=1 << 20)
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.bind(("127.0.0.1", 0))
    deaf.listen()
    deaf.setblocking(False)
    loop = asyncio.get_running_loop()
    await one.transport.start(sockets=[(one.sock, False)])
    one.transport.set_peer(2, [f"http://127.0.0.1:{deaf.getsockname()[1]}"])
    connection, _ = await loop.sock_accept(deaf)
    await loop.sock_sendall(connection, peer_protocol.encode_welcome(PeerWelcome()))
    await one.until(lambda: one.transport.connected(2))
    message = AppendEntries(1, 2, 1, 0, 0, [Entry(1, 1, b"x" * 300_000)], 0)
    sent = 0
    while not one.unreachable:
        one.transport.send([message])
        sent += 300_000
        await asyncio.sleep(0)
        assert sent < 100 << 20
    (link,) = one.transport._links.values()
    assert link._connection is not None
    assert link._connection.transport is not None
    assert link._connection.transport.get_write_buffer_size() <= 1 << 20
    connection.close()
    deaf.close()
    await one.transport.close()


HELLO = PeerHello(protocol=1, cluster_id=CLUSTER, from_id=1, to_id=2, data_id=7, channel="raft")
STRANGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    HEAD.pack(1 << 31, 1),
    HEAD.pack(0, 1),
    encode_frame(3, b""),
    encode_frame(1, b"\xff\xff"),
    encode_frame(1, PeerHello(channel="other").SerializeToString()),
    encode_hello(HELLO) + encode_frame(3, b"before the welcome"),
]


@pytest.mark.parametrize("data", STRANGE, ids=range(len(STRANGE)))
async def test_strange_bytes_end_the_connection(data: bytes) -> None:
    two = Member(2)
    async with running(two):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(two.url.rsplit(":", 1)[1]))
        writer.write(data)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert not two.messages


async def test_a_malformed_message_ends_the_connection() -> None:
    two = Member(2)
    async with running(two):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(two.url.rsplit(":", 1)[1]))
        writer.write(encode_hello(HELLO))
        await reader.readexactly(5)
        writer.write(encode_frame(3, b"\x63"))
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert not two.messages


def test_frames_are_cut_the_same_however_they_come() -> None:
    rng = random.Random(1)
    sent = [(rng.randrange(256), rng.randbytes(rng.choice([0, 1, 5, 300]))) for _ in range(200)]
    stream = b"".join(encode_frame(kind, body) for kind, body in sent)
    for seed in range(30):
        rng, parser, found, at = random.Random(seed), FrameParser(1000), [], 0
        while at < len(stream):
            size = rng.choice([1, 2, 4, 5, 6, 100, 3000])
            found += [(frame.kind, frame.body) for frame in parser.feed(stream[at : at + size])]
            at += size
        assert found == sent
    with pytest.raises(PeerProtocolError, match="a frame of 1001 bytes"):
        FrameParser(1000).feed(encode_frame(1, bytes(1000)))
