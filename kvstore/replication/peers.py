"""Connections between members: each dials each other member and says there what it has to say.

Raft allows for lost messages, so nothing waits here: what cannot go now (no connection, or more than
send_buffer_bytes_max queued) is dropped and reported as unreachable. A connection keeps the order of what was
sent. Everything sent to one peer in one call is one write; everything complete in one read is one delivery.
Runs on the loop's thread; callbacks too, and never from inside the call that caused them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvstore import log
from kvstore.meters import PeerMeter
from kvstore.pb.etcdserverpb_pb2 import Member
from kvstore.pb.internal_pb2 import PeerHello, PeerWelcome
from kvstore.replication.peer_protocol import (
    DIAL_TIMEOUT_S,
    FRAME_BYTES_MAX,
    NOTIFY,
    PROTOCOL,
    RAFT,
    REQUEST,
    RESPONSE,
    Acceptor,
    Channel,
    Dialer,
    Frame,
    PeerProtocolError,
    Security,
    add_message,
    decode_notify,
    decode_request,
    decode_response,
    dial,
    encode_notify,
    encode_request,
    encode_response,
    judge_hello,
    keep_alive,
    parse_url,
    probe,
    read_message,
    refused,
)
from kvstore.replication.world import Entropy
from raft.messages import Message

__all__ = ["PeerCallbacks", "PeerDeclined", "PeerRequestTimeout", "PeerTransport", "PeerUnreachable", "probe"]

BACKOFF_MIN_S = 0.01
BACKOFF_MAX_S = 1.0
SEND_BUFFER_BYTES_MAX = 64 << 20
REQUESTS_MAX = 100_000
CONNECTIONS_MAX = 512

Guard = Callable[[Callable[[str], asyncio.Protocol]], Callable[[], asyncio.Protocol]]
Reply = Callable[[bytes | None], None]
RequestDone = Callable[[bytes | None, Exception | None], None]


class PeerUnreachable(Exception):
    """There is no connection to the peer, or it broke before an answer: the peer may have seen the request."""


class PeerRequestTimeout(Exception): ...


class PeerDeclined(Exception):
    """The peer answered that it would not answer."""


@dataclass(frozen=True, kw_only=True)
class PeerCallbacks:
    on_messages: Callable[[list[Message]], None]
    on_notify: Callable[[int, int, bytes], None]  # (from_id, kind, payload)
    on_request: Callable[[int, int, bytes, Reply], None]  # reply(None) declines; call it once, at any time
    on_unreachable: Callable[[int], None]  # what was sent to this member since it was reachable may be lost
    on_gone: Callable[[int], None]  # its process has ended: nothing is open either way, its port refuses
    on_refused: Callable[[int, PeerWelcome], None]  # again with every attempt
    check_hello: Callable[[PeerHello], PeerWelcome]  # what only the caller knows of the sender
    members: Callable[[], Sequence[Member]] = tuple  # for those who want to join
    snapshot_channel: Callable[[PeerHello, asyncio.Transport], Channel] | None = None


class PeerLink:
    """The way to one other member: dials it for ever, and has at most one connection."""

    def __init__(self, owner: PeerTransport, node_id: int, urls: Sequence[str]) -> None:
        self.node_id = node_id
        self.urls = list(urls)
        self.nudge = asyncio.Event()  # the peer has dialed here, so it is up: dial it now
        self._owner = owner
        self._meter = owner.meter(node_id)
        self._connection: Dialer | None = None
        self._told = ""  # what the log said last of why the peer cannot be spoken to
        self._queued: list[bytes] = []
        self._queued_bytes = 0
        self._requests: dict[int, tuple[RequestDone, asyncio.TimerHandle]] = {}
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"peer {node_id:x}")
        self._task.add_done_callback(_tell_of_a_bug)

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def address(self) -> object:
        connection = self._connection
        return (
            connection.transport.get_extra_info("peername") if connection and connection.transport else None
        )

    def write(self, parts: list[bytes], size: int) -> bool:
        """Whether the connection took it: whole frames, behind everything queued before."""
        if self._queued:
            parts, self._queued = self._queued + parts, []
            size, self._queued_bytes = self._queued_bytes + size, 0
        transport = self._connection.transport if self._connection is not None else None
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() + size > self._owner.send_buffer_bytes_max:
            return False
        transport.write(b"".join(parts))
        self._meter.sent_bytes += size
        return True

    def queue(self, parts: Iterable[bytes]) -> bool:
        """Goes at the end of this turn of the loop, or with the next write. False: there is no connection."""
        if self._connection is None:
            return False
        if not self._queued:
            asyncio.get_running_loop().call_soon(self._flush)
        for part in parts:
            self._queued.append(part)
            self._queued_bytes += len(part)
        return True

    def _flush(self) -> None:
        if self._queued and not self.write([], 0):
            self._owner.report_unreachable(self.node_id)

    def request(self, number: int, kind: int, payload: bytes, timeout_s: float, done: RequestDone) -> None:
        loop = asyncio.get_running_loop()
        if len(self._requests) >= REQUESTS_MAX or not self.queue(encode_request(number, kind, payload)):
            loop.call_soon(done, None, PeerUnreachable(f"{self.node_id:x}"))
            return
        self._requests[number] = done, loop.call_later(timeout_s, self._expire, number)

    def _expire(self, number: int) -> None:
        done, _ = self._requests.pop(number)
        done(None, PeerRequestTimeout(f"{self.node_id:x}"))

    def _answered(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind != RESPONSE:
                raise PeerProtocolError(f"frame kind {frame.kind} where an answer should be")
            number, payload = decode_response(frame)
            done, timer = self._requests.pop(number, (None, None))
            if done is not None and timer is not None:
                timer.cancel()
                done(payload, PeerDeclined(f"{self.node_id:x}") if payload is None else None)

    def _fail_requests(self) -> None:
        requests, self._requests = self._requests, {}
        for done, timer in requests.values():
            timer.cancel()
            done(None, PeerUnreachable(f"{self.node_id:x}"))

    async def _run(self) -> None:
        loop, backoff, attempt = asyncio.get_running_loop(), BACKOFF_MIN_S, 0
        while True:
            self.nudge.clear()
            started = loop.time()
            if await self._connect(self.urls[attempt % len(self.urls)]):
                await self._stay()
                if loop.time() - started > BACKOFF_MAX_S:
                    backoff = BACKOFF_MIN_S
                    continue  # at once: an answer tells a broken connection from a member that is gone
            attempt += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff * (0.5 + self._owner.entropy.random() / 2)):
                    await self.nudge.wait()
            backoff = min(2 * backoff, BACKOFF_MAX_S)

    async def _connect(self, url: str) -> bool:
        hello = self._owner.hello(self.node_id, "raft")
        try:
            connection = await dial(url, lambda: Dialer(hello, self._answered), self._owner.security)
        except (OSError, TimeoutError, PeerProtocolError) as error:
            self._tell_why(url, error)
            if isinstance(error, ConnectionRefusedError):
                self._owner.nobody_there(self.node_id)
            return False
        self._told = ""
        welcome = connection.welcome.result()
        if refused(welcome):
            connection.abort()
            self._owner.callbacks.on_refused(self.node_id, welcome)
            return False
        self._connection = connection
        connection.meter = self._meter
        log.info("connected to a peer", remote_peer_id=f"{self.node_id:x}", url=url)
        return True

    def _tell_why(self, url: str, error: Exception) -> None:
        """A peer that is down is no news. One that is there and cannot be spoken to is, once: the flags are wrong,
        or a certificate is."""
        text, peer = str(error), f"{self.node_id:x}"
        if isinstance(error, ssl.SSLError | PeerProtocolError) and text != self._told:
            self._told = text
            log.warn("cannot speak to a peer", remote_peer_id=peer, url=url, error=text)
        else:
            log.debug("could not reach a peer", remote_peer_id=peer, url=url, error=text)

    async def _stay(self) -> None:
        connection = self._connection
        assert connection is not None, "stayed without a connection"
        try:
            await asyncio.shield(connection.lost)
        finally:
            self._connection = None
            self._queued, self._queued_bytes = [], 0
            if connection.transport is not None:
                connection.transport.close()
            self._fail_requests()
        log.warn("lost the connection to a peer", remote_peer_id=f"{self.node_id:x}")
        self._owner.report_unreachable(self.node_id)

    async def close(self) -> None:
        """What is in the send buffer still goes out, if the peer takes it within a moment."""
        self._flush()
        connection = self._connection
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if connection is not None:
            await asyncio.wait([connection.lost], timeout=DIAL_TIMEOUT_S)
            connection.abort()


def _tell_of_a_bug(task: asyncio.Task[None]) -> None:
    """A link ends by being cancelled; anything else must be seen."""
    if not task.cancelled() and task.exception() is not None:
        context = {"message": "a peer link broke", "exception": task.exception(), "task": task}
        task.get_loop().call_exception_handler(context)


class RaftChannel:
    """What another member says here."""

    frame_bytes_max = FRAME_BYTES_MAX

    def __init__(self, owner: PeerTransport, from_id: int, transport: asyncio.Transport) -> None:
        self._owner = owner
        self._from_id = from_id
        self._transport = transport
        self._answers: list[bytes] = []

    def received(self, frames: list[Frame]) -> None:
        messages: list[Message] = []
        callbacks, from_id, self_id = self._owner.callbacks, self._from_id, self._owner.self_id
        for frame in frames:
            if frame.kind == RAFT:
                messages.append(read_message(frame, sender=from_id, to=self_id))
            elif frame.kind == NOTIFY:
                callbacks.on_notify(from_id, *decode_notify(frame))
            elif frame.kind == REQUEST:
                number, kind, payload = decode_request(frame)
                callbacks.on_request(from_id, kind, payload, self._reply_to(number))
            else:
                raise PeerProtocolError(f"frame kind {frame.kind} on a raft channel")
        if messages:
            callbacks.on_messages(messages)

    def _reply_to(self, number: int) -> Reply:
        def reply(payload: bytes | None) -> None:
            if not self._answers:
                asyncio.get_running_loop().call_soon(self._flush)
            self._answers.extend(encode_response(number, payload))

        return reply

    def _flush(self) -> None:
        answers, self._answers = b"".join(self._answers), []
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() + len(answers) > self._owner.send_buffer_bytes_max:
            self._transport.abort()  # asks and does not listen
            return
        self._transport.write(answers)

    def lost(self) -> None: ...


class PeerTransport:
    """All connections of one member. start() listens and dials; close() ends everything."""

    def __init__(
        self,
        *,
        self_id: int,
        cluster_id: int,
        data_id: int,
        incarnation: int,
        peers: Mapping[int, Sequence[str]],
        callbacks: PeerCallbacks,
        entropy: Entropy,
        guard: Guard | None = None,
        security: Security | None = None,
        send_buffer_bytes_max: int = SEND_BUFFER_BYTES_MAX,
    ) -> None:
        """peers: the others' ids and URLs. Where a URL says https, guard stands before what is listened on and
        security says how others are dialed."""
        self.self_id = self_id
        self.cluster_id = cluster_id
        self.data_id = data_id
        self.incarnation = incarnation
        self.callbacks = callbacks
        self.entropy = entropy
        self.security = security
        self.send_buffer_bytes_max = send_buffer_bytes_max
        self._guard = guard
        self._peers = {node_id: list(urls) for node_id, urls in peers.items() if node_id != self_id}
        self._links: dict[int, PeerLink] = {}
        self._servers: list[asyncio.Server] = []
        self._meters: dict[int, PeerMeter] = {}
        self._accepted: set[Acceptor] = set()
        self._speaking: dict[int, Acceptor] = {}  # the one raft connection from each member
        self._unreachable: set[int] = set()
        self._next_request = 1
        self._closed = False

    async def start(
        self, listen_urls: Sequence[str] = (), sockets: Sequence[tuple[socket.socket, bool]] = ()
    ) -> None:
        """Listens on URLs and on sockets that are bound already (with whether they speak TLS), then dials."""
        loop = asyncio.get_running_loop()
        for url in listen_urls:
            host, port, tls = parse_url(url)
            self._servers.append(await loop.create_server(self._factory(tls), host, port))
        for sock, tls in sockets:
            self._servers.append(await loop.create_server(self._factory(tls), sock=sock))
        for node_id, urls in self._peers.items():
            self._links[node_id] = PeerLink(self, node_id, urls)

    @property
    def ports(self) -> list[int]:
        return [sock.getsockname()[1] for server in self._servers for sock in server.sockets]

    def set_peer(self, node_id: int, urls: Sequence[str]) -> None:
        """A member that is new, or reached elsewhere from its next connection on."""
        if node_id == self.self_id or self._closed:
            return
        self._peers[node_id] = list(urls)
        if node_id in self._links:
            self._links[node_id].urls = list(urls)
        else:
            self._links[node_id] = PeerLink(self, node_id, urls)

    async def remove_peer(self, node_id: int) -> None:
        """Takes leave of a member: what is queued for it still goes; nothing of it is heard again."""
        self._peers.pop(node_id, None)
        self._meters.pop(node_id, None)
        speaking = self._speaking.pop(node_id, None)
        if speaking is not None:
            speaking.abort()
        link = self._links.pop(node_id, None)
        if link is not None:
            await link.close()

    def send(self, messages: list[Message]) -> None:
        """Raft's messages, each to the member it names. What cannot go at once is dropped and reported."""
        outgoing: dict[int, tuple[list[bytes], list[int]]] = {}
        for message in messages:
            parts, sizes = outgoing.setdefault(message.to, ([], []))
            sizes.append(add_message(message, parts))
        for node_id, (parts, sizes) in outgoing.items():
            link = self._links.get(node_id)
            if link is None or not link.write(parts, sum(sizes)):
                self.report_unreachable(node_id)

    def notify(self, to_id: int, kind: int, payload: bytes) -> bool:
        """One-way. False: it was dropped. True promises nothing: the connection may break."""
        link = self._links.get(to_id)
        return link is not None and link.queue(encode_notify(kind, payload))

    def request(self, to_id: int, kind: int, payload: bytes, timeout_s: float, done: RequestDone) -> None:
        """done(answer, None), or done(None, PeerUnreachable | PeerRequestTimeout | PeerDeclined), later, once."""
        link = self._links.get(to_id)
        if link is None:
            asyncio.get_running_loop().call_soon(done, None, PeerUnreachable(f"{to_id:x}"))
            return
        number, self._next_request = self._next_request, self._next_request + 1
        link.request(number, kind, payload, timeout_s, done)

    def meter(self, node_id: int) -> PeerMeter:
        return self._meters.setdefault(node_id, PeerMeter())

    def connected(self, node_id: int) -> bool:
        return node_id in self._links and self._links[node_id].connected

    @property
    def peer_ids(self) -> list[int]:
        return sorted(self._peers)

    def urls(self, node_id: int) -> list[str]:
        return list(self._peers.get(node_id, ()))

    def hello(self, to_id: int, channel: str) -> PeerHello:
        return PeerHello(
            protocol=PROTOCOL,
            cluster_id=self.cluster_id,
            from_id=self.self_id,
            to_id=to_id,
            data_id=self.data_id,
            channel=channel,
            incarnation=self.incarnation,
        )

    def report_unreachable(self, node_id: int) -> None:
        """At most once a turn, and never from inside send()."""
        self.meter(node_id).sent_failures += 1
        if not self._unreachable:
            asyncio.get_running_loop().call_soon(self._report)
        self._unreachable.add(node_id)

    def nobody_there(self, node_id: int) -> None:
        """Its port refused a connection. It is gone if it has hung up here as well: a firewall may refuse us
        while the member speaks on."""
        speaking = self._speaking.get(node_id)
        if not self._closed and (speaking is None or speaking.lost.done()):
            self.callbacks.on_gone(node_id)

    def _report(self) -> None:
        unreachable, self._unreachable = sorted(self._unreachable), set()
        if not self._closed:
            for node_id in unreachable:
                self.callbacks.on_unreachable(node_id)

    # Being dialed

    def _factory(self, tls: bool) -> Callable[[], asyncio.Protocol]:
        if not tls:
            return self._accept
        if self._guard is None:
            raise ValueError("cannot listen on TLS: KeyFile and CertFile are not presented")
        return self._guard(lambda common_name: self._accept())

    def _accept(self) -> Acceptor:
        acceptor = Acceptor(self._admit, self._accepted.discard)
        if len(self._accepted) >= CONNECTIONS_MAX or self._closed:
            asyncio.get_running_loop().call_soon(acceptor.abort)
        self._accepted.add(acceptor)
        return acceptor

    def _admit(self, hello: PeerHello, acceptor: Acceptor) -> tuple[PeerWelcome, Channel | None]:
        if hello.channel == "members" and hello.protocol == PROTOCOL:
            return PeerWelcome(cluster_id=self.cluster_id, members=self.callbacks.members()), None
        check = self.callbacks.check_hello
        welcome = judge_hello(hello, cluster_id=self.cluster_id, self_id=self.self_id, check=check)
        transport = acceptor.transport
        assert transport is not None, "a hello on no connection"
        if refused(welcome):
            peer = f"{hello.from_id:x}"
            log.warn("refused a peer", remote_peer_id=peer, code=welcome.code, reason=welcome.refusal)
            return welcome, None
        if hello.channel == "snapshot" and self.callbacks.snapshot_channel is not None:
            return welcome, self.callbacks.snapshot_channel(hello, transport)
        if hello.channel != "raft":
            return welcome, None
        keep_alive(transport)
        acceptor.meter = self.meter(hello.from_id)
        before = self._speaking.get(hello.from_id)
        if before is not None:
            before.abort()  # the member dials anew only when its old connection is dead
        self._speaking[hello.from_id] = acceptor
        link = self._links.get(hello.from_id)
        if link is not None:
            link.nudge.set()
        return welcome, RaftChannel(self, hello.from_id, transport)

    async def close(self) -> None:
        """Sends what is queued, within a second; then every connection is gone."""
        self._closed = True
        for server in self._servers:
            server.close()
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links))
        ends = [acceptor.lost for acceptor in self._accepted]
        for acceptor in list(self._accepted):
            acceptor.abort()
        if ends:
            await asyncio.wait(ends, timeout=DIAL_TIMEOUT_S)
