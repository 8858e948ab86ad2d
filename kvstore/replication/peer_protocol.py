"""What members say on a connection: frames, the handshake, requests; and the two ends as asyncio protocols.

    frame := length u32 | kind u8 | body                       length counts kind and body (big-endian)

The dialer opens with HELLO, the acceptor answers WELCOME, with a refusal or without. On the channel "raft" the
dialer then sends RAFT, NOTIFY and REQUEST, and the acceptor RESPONSE; each member dials each other, so raft's
messages travel one way on every connection. On "snapshot" the dialer sends one snapshot and the acceptor one
RESULT. A "probe" ends with the WELCOME. Before the handshake a frame may have HELLO_BYTES_MAX bytes, so that a
stranger cannot make a member hold more.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError

from kvstore import log
from kvstore.meters import PeerMeter
from kvstore.pb.internal_pb2 import PeerHello, PeerWelcome
from kvstore.replication.codec import PROTOCOL, PeerProtocolError, decode_message, encode_message
from raft.messages import InstallSnapshot, Message

__all__ = ["PROTOCOL", "Acceptor", "Channel", "Dialer", "FrameParser", "PeerProtocolError"]

FRAME_BYTES_MAX = 256 << 20
HELLO_BYTES_MAX = 64 << 10  # a welcome may list every member
HANDSHAKE_TIMEOUT_S = 5.0
DIAL_TIMEOUT_S = 1.0
TOLD_AGAIN_S = 60.0
NO_TLS = (
    "its URL is https, and this member has no TLS for peers: see --peer-cert-file, --peer-trusted-ca-file"
)
UNACKNOWLEDGED_MS = 5000  # TCP gives a connection up whose data nobody acknowledges for that long

# Frame kinds are on the wire: never reuse one.
HELLO = 1
WELCOME = 2
RAFT = 3
NOTIFY = 4
REQUEST = 5
RESPONSE = 6
SNAPSHOT_BEGIN = 7
SNAPSHOT_CHUNK = 8
SNAPSHOT_END = 9
SNAPSHOT_RESULT = 10
SNAPSHOT_RESUME = 11

HEAD = struct.Struct(">IB")
_NOTIFY = struct.Struct(">IBH")
_REQUEST = struct.Struct(">IBQH")
_RESPONSE = struct.Struct(">IBQB")
_SNAPSHOT_BEGIN = struct.Struct(">QQ")
_SNAPSHOT_RESUME = struct.Struct(">Q")
_SNAPSHOT_END = struct.Struct(">I")

CHANNELS = ("raft", "snapshot", "probe", "members")


class Frame(NamedTuple):
    """data[start:end] is the body: most bodies are read where they lie."""

    kind: int
    data: bytes
    start: int
    end: int

    @property
    def body(self) -> bytes:
        return self.data[self.start : self.end]


class FrameParser:
    """Cuts a stream into frames. A frame that comes in many pieces is joined once, when all of it is there."""

    def __init__(self, limit: int = HELLO_BYTES_MAX) -> None:
        self.limit = limit
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = HEAD.size

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that data completes. Raises PeerProtocolError for a length out of bounds."""
        if self._have:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
        frames: list[Frame] = []
        at, size, head = 0, len(data), HEAD.unpack_from
        self._need = HEAD.size
        while size - at >= 5:
            length, kind = head(data, at)
            if not 0 < length <= self.limit:
                if data[at] in (0x15, 0x16) and data[at + 1] == 3:  # an alert's or a handshake's record
                    raise PeerProtocolError(
                        "TLS where plain frames should be: one end's URL is https, not both"
                    )
                raise PeerProtocolError(f"a frame of {length} bytes, where 1 to {self.limit} are allowed")
            end = at + 4 + length
            if end > size:
                self._need = 4 + length
                break
            frames.append(Frame(kind, data, at + 5, end))
            at = end
        rest = data[at:] if at else data
        self._pieces = [rest] if rest else []
        self._have = len(rest)
        return frames


def encode_frame(kind: int, body: bytes) -> bytes:
    return HEAD.pack(1 + len(body), kind) + body


def encode_hello(hello: PeerHello) -> bytes:
    return encode_frame(HELLO, hello.SerializeToString())


def encode_welcome(welcome: PeerWelcome) -> bytes:
    return encode_frame(WELCOME, welcome.SerializeToString())


def decode_hello(frame: Frame) -> PeerHello:
    if frame.kind != HELLO:
        raise PeerProtocolError(f"frame kind {frame.kind} where the hello should be")
    try:
        hello = PeerHello.FromString(frame.body)
    except DecodeError:
        raise PeerProtocolError("a hello that cannot be read") from None
    if hello.channel not in CHANNELS:
        raise PeerProtocolError(f"a hello for channel {hello.channel!r}")
    return hello


def decode_welcome(frame: Frame) -> PeerWelcome:
    if frame.kind != WELCOME:
        raise PeerProtocolError(f"frame kind {frame.kind} where the welcome should be")
    try:
        return PeerWelcome.FromString(frame.body)
    except DecodeError:
        raise PeerProtocolError("a welcome that cannot be read") from None


def judge_hello(
    hello: PeerHello, *, cluster_id: int, self_id: int, check: Callable[[PeerHello], PeerWelcome]
) -> PeerWelcome:
    """What every member checks by itself, then what the caller knows of the sender (its data id)."""
    if hello.protocol != PROTOCOL:
        refusal = f"protocol {hello.protocol} is not {PROTOCOL}, the one spoken here"
        return PeerWelcome(refusal=refusal, code="protocol")
    if hello.cluster_id != cluster_id:
        refusal = (
            f"cluster ID mismatch: {hello.cluster_id:x} is not {cluster_id:x}, which this member belongs to"
        )
        return PeerWelcome(refusal=refusal, code="cluster-mismatch")
    if hello.to_id != self_id:
        refusal = f"member {hello.to_id:x} was called and {self_id:x} answers"
        return PeerWelcome(refusal=refusal, code="member-mismatch")
    if hello.from_id in (0, self_id):
        return PeerWelcome(refusal=f"no other member is {hello.from_id:x}", code="member-mismatch")
    return check(hello)


def refused(welcome: PeerWelcome) -> bool:
    return bool(welcome.code or welcome.refusal)


def add_message(message: Message, parts: list[bytes]) -> int:
    """Adds the frame of one raft message to parts; returns its size."""
    at = len(parts)
    parts.append(b"")
    size = encode_message(message, parts)
    parts[at] = HEAD.pack(1 + size, RAFT)
    return HEAD.size + size


def read_message(frame: Frame, *, sender: int, to: int) -> Message:
    return decode_message(frame.data, frame.start, frame.end, sender=sender, to=to)


def encode_notify(kind: int, payload: bytes) -> tuple[bytes, bytes]:
    return _NOTIFY.pack(3 + len(payload), NOTIFY, kind), payload


def encode_request(number: int, kind: int, payload: bytes) -> tuple[bytes, bytes]:
    return _REQUEST.pack(11 + len(payload), REQUEST, number, kind), payload


def encode_response(number: int, payload: bytes | None) -> tuple[bytes, bytes]:
    """payload None: the member asked would not or could not answer."""
    body = payload or b""
    return _RESPONSE.pack(10 + len(body), RESPONSE, number, payload is not None), body


def decode_notify(frame: Frame) -> tuple[int, bytes]:
    """(kind, payload)"""
    return _int(frame, 2), frame.data[frame.start + 2 : frame.end]


def decode_request(frame: Frame) -> tuple[int, int, bytes]:
    """(number, kind, payload)"""
    number = _int(frame, 8)
    return number, _int(frame._replace(start=frame.start + 8), 2), frame.data[frame.start + 10 : frame.end]


def decode_response(frame: Frame) -> tuple[int, bytes | None]:
    """(number, payload or None)"""
    number, answered = _int(frame, 8), _int(frame._replace(start=frame.start + 8), 1)
    if answered > 1:
        raise PeerProtocolError(f"a flag of value {answered}")
    return number, frame.data[frame.start + 9 : frame.end] if answered else None


def _int(frame: Frame, size: int) -> int:
    if frame.end - frame.start < size:
        raise PeerProtocolError(f"frame kind {frame.kind} is cut off")
    return int.from_bytes(frame.data[frame.start : frame.start + size], "big")


def encode_snapshot_begin(message: InstallSnapshot, size: int, number: int) -> bytes:
    """number: of this file, so that a second attempt can be told from another snapshot."""
    parts: list[bytes] = []
    encode_message(message, parts)
    return encode_frame(SNAPSHOT_BEGIN, _SNAPSHOT_BEGIN.pack(size, number) + b"".join(parts))


def decode_snapshot_begin(frame: Frame, *, sender: int, to: int) -> tuple[InstallSnapshot, int, int]:
    """(message, size of the data in bytes, number of the file)"""
    if frame.end - frame.start < _SNAPSHOT_BEGIN.size:
        raise PeerProtocolError("a snapshot's beginning is cut off")
    size, number = _SNAPSHOT_BEGIN.unpack_from(frame.data, frame.start)
    at = frame.start + _SNAPSHOT_BEGIN.size
    message = decode_message(frame.data, at, frame.end, sender=sender, to=to)
    if not isinstance(message, InstallSnapshot):
        raise PeerProtocolError(f"{type(message).__name__} where a snapshot begins")
    return message, size, number


def encode_snapshot_resume(offset: int) -> bytes:
    """The receiver has everything below offset already."""
    return encode_frame(SNAPSHOT_RESUME, _SNAPSHOT_RESUME.pack(offset))


def decode_snapshot_resume(frame: Frame) -> int:
    if frame.end - frame.start != 8:
        raise PeerProtocolError("where a snapshot goes on is cut off")
    return _int(frame, 8)


def encode_snapshot_end(crc: int) -> bytes:
    return encode_frame(SNAPSHOT_END, _SNAPSHOT_END.pack(crc))


def decode_snapshot_end(frame: Frame) -> int:
    if frame.end - frame.start != 4:
        raise PeerProtocolError("a snapshot's end is cut off")
    return _int(frame, 4)


def encode_snapshot_result(reason: str) -> bytes:
    """reason "": the snapshot is durable over there."""
    return encode_frame(SNAPSHOT_RESULT, reason.encode()[:1000])


def decode_snapshot_result(frame: Frame) -> str:
    if frame.kind != SNAPSHOT_RESULT:
        raise PeerProtocolError(f"frame kind {frame.kind} where a snapshot's result should be")
    return frame.body.decode("utf-8", "replace")


class Channel(Protocol):
    """What an accepted connection is for, once its handshake is over."""

    frame_bytes_max: int

    def received(self, frames: list[Frame]) -> None:
        """Everything one read completed. Raises PeerProtocolError, which ends the connection."""

    def lost(self) -> None: ...


_told: dict[str, float] = {}


def _is_news(text: str, now: float) -> bool:
    """Whoever is misconfigured tries again every second: that is worth one line a minute."""
    if _told.get(text, float("-inf")) > now - TOLD_AGAIN_S:
        return False
    if len(_told) >= 100:
        _told.clear()
    _told[text] = now
    return True


class _End(asyncio.Protocol):
    """One end of a connection: cuts what arrives into frames, and closes on the first that is malformed."""

    def __init__(self) -> None:
        self.parser = FrameParser()
        self.transport: asyncio.Transport | None = None
        self.meter: PeerMeter | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.meter is not None:
            self.meter.received_bytes += len(data)
        try:
            frames = self.parser.feed(data)
            if frames:
                self.frames_received(frames)
        except PeerProtocolError as error:
            self.malformed(error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def frames_received(self, frames: list[Frame]) -> None:
        raise NotImplementedError

    def malformed(self, error: PeerProtocolError) -> None:
        if self.meter is not None:
            self.meter.received_failures += 1
        address = self.transport.get_extra_info("peername") if self.transport else None
        host = address[0] if isinstance(address, tuple) else ""
        if _is_news(f"{host} {error}", asyncio.get_running_loop().time()):
            log.warn("dropped a peer connection", remote_addr=str(address), error=str(error))

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Acceptor(_End):
    """The end that was dialed. admit() judges the hello, and gives the channel of one it welcomes."""

    def __init__(
        self,
        admit: Callable[[PeerHello, Acceptor], tuple[PeerWelcome, Channel | None]],
        forget: Callable[[Acceptor], None],
    ) -> None:
        super().__init__()
        self.hello: PeerHello | None = None
        self._admit = admit
        self._forget = forget
        self._channel: Channel | None = None
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(HANDSHAKE_TIMEOUT_S, self.abort)

    def frames_received(self, frames: list[Frame]) -> None:
        if self._channel is not None:
            self._channel.received(frames)
            return
        if self.hello is not None or len(frames) != 1:
            raise PeerProtocolError("frames before the welcome")
        assert self.transport is not None, "frames on no connection"
        self.hello = decode_hello(frames[0])
        self._patience.cancel()
        welcome, self._channel = self._admit(self.hello, self)
        self.transport.write(encode_welcome(welcome))
        if self._channel is None:
            self.transport.close()
        else:
            self.parser.limit = self._channel.frame_bytes_max

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._patience.cancel()
        if self._channel is not None:
            self._channel.lost()
        self._forget(self)


class Dialer(_End):
    """The end that dials. `welcome` is the other's answer; on_frames gets what comes after it."""

    def __init__(self, hello: PeerHello, on_frames: Callable[[list[Frame]], None] | None = None) -> None:
        super().__init__()
        self.welcome: asyncio.Future[PeerWelcome] = asyncio.get_running_loop().create_future()
        self._hello = hello
        self._on_frames = on_frames

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None, "made without a connection"
        self.transport.write(encode_hello(self._hello))

    def frames_received(self, frames: list[Frame]) -> None:
        if not self.welcome.done():
            welcome = decode_welcome(frames.pop(0))
            self.parser.limit = FRAME_BYTES_MAX
            self.welcome.set_result(welcome)
        if frames:
            if self._on_frames is None:
                raise PeerProtocolError(f"frame kind {frames[0].kind} where none was asked for")
            self._on_frames(frames)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.welcome.done():
            self.welcome.set_exception(exc or ConnectionResetError("closed before the welcome"))
            self.welcome.exception()  # whoever dialed may have given up already

    def malformed(self, error: PeerProtocolError) -> None:
        super().malformed(error)
        if not self.welcome.done():
            self.welcome.set_exception(error)
            self.welcome.exception()


def parse_url(url: str) -> tuple[str, int, bool]:
    """(host, port, whether it asks for TLS) of http://host:port. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port is None:
        raise ValueError(f"not a peer URL with a port: {url}")
    return parts.hostname, parts.port, parts.scheme == "https"


class Security(Protocol):
    """How https URLs are dialed."""

    async def context(self) -> ssl.SSLContext: ...

    def refusal(self, ssl_object: ssl.SSLObject) -> str:
        """Why this member is not to be spoken to, whatever TLS itself says of it; "" where it is."""


async def dial(url: str, dialer: Callable[[], Dialer], security: Security | None) -> Dialer:
    """Connects and waits for the welcome. Raises OSError, TimeoutError, PeerProtocolError."""
    host, port, tls = parse_url(url)
    if tls and security is None:
        raise PeerProtocolError(NO_TLS)
    loop = asyncio.get_running_loop()
    connection: Dialer | None = None
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            context = await security.context() if tls and security is not None else None
            _, connection = await loop.create_connection(dialer, host, port, ssl=context)
            assert connection.transport is not None, "connected without a transport"
            keep_alive(connection.transport)
            ssl_object = connection.transport.get_extra_info("ssl_object")
            if security is not None and ssl_object is not None:
                reason = security.refusal(ssl_object)
                if reason:
                    raise PeerProtocolError(reason)
            await asyncio.shield(connection.welcome)
    except BaseException:
        if connection is not None:
            connection.abort()
        raise
    return connection


async def probe(url: str, hello: PeerHello, security: Security | None = None) -> PeerWelcome | None:
    """How the member at url would answer this hello; None where nobody answers, which the log tells where somebody
    is there and cannot be understood. channel "members": asks which cluster it belongs to, without knowing it."""
    question = PeerHello()
    question.CopyFrom(hello)
    question.protocol, question.channel = PROTOCOL, hello.channel or "probe"
    try:
        connection = await dial(url, lambda: Dialer(question), security)
    except (OSError, TimeoutError, PeerProtocolError, ValueError) as problem:
        if isinstance(problem, ssl.SSLError | PeerProtocolError):
            log.warn("cannot speak to a peer", url=url, error=str(problem))
        return None
    connection.abort()
    return connection.welcome.result()


def keep_alive(transport: asyncio.Transport) -> None:
    """A peer whose machine is gone says nothing: TCP finds out, with traffic or without."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
