"""A client's connection at the floor: just enough HTTP/2 for one that means well and only calls Put."""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import cast

from hpack import Decoder

from benchmarks.floor.members import TERM, Leader
from kvstore.pb.etcdserverpb_pb2 import PutResponse, ResponseHeader
from kvstore.wire.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    FRAME_BYTES,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    U32,
    WINDOW_UPDATE,
    frame,
)

PREFIX = Struct(">BI")
HEAD = b"\x88\x0f\x10\x10application/grpc"  # :status 200, content-type
TRAILERS = b"\x00\x0bgrpc-status\x010"
WINDOW = 0x3FFF_0000


class Client(asyncio.Protocol):
    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._buffer = b""
        self._greeted = False
        self._decoder = Decoder()
        self._seen: set[bytes] = set()
        self._answers: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(frame(SETTINGS, 0, 0) + frame(WINDOW_UPDATE, 0, 0, U32.pack(WINDOW)))

    def data_received(self, data: bytes) -> None:
        data, at, received = self._buffer + data, 0, 0
        if not self._greeted and len(data) >= len(PREFACE):
            at, self._greeted = len(PREFACE), True
        while self._greeted and len(data) - at >= FRAME_BYTES:
            high, low, kind, flags, stream = FRAME.unpack_from(data, at)
            end = at + FRAME_BYTES + (high << 8 | low)
            if end > len(data):
                break
            payload = data[at + FRAME_BYTES : end]
            at = end
            if kind == DATA:
                received += len(payload)
                if flags & END_STREAM:
                    self._leader.propose(self, stream, payload[PREFIX.size :])
            elif kind == HEADERS:
                self._head(payload)
            elif kind == SETTINGS and not flags & ACK:
                self._transport.write(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self._transport.write(frame(PING, ACK, 0, payload))
        self._buffer = data[at:]
        if received:
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, U32.pack(received)))

    def _head(self, block: bytes) -> None:
        """What it says is known; it is decoded while that may change what later ones mean."""
        if block in self._seen:
            return
        table = self._decoder.header_table.dynamic_entries
        before = len(table)
        self._decoder.decode(block)
        if len(table) == before:
            self._seen.add(block)
        else:
            self._seen.clear()

    def answer(self, stream: int, revision: int) -> None:
        header = ResponseHeader(cluster_id=1, member_id=1, revision=revision, raft_term=TERM)
        body = PutResponse(header=header).SerializeToString()
        self._answers += (
            frame(HEADERS, END_HEADERS, stream, HEAD),
            frame(DATA, 0, stream, PREFIX.pack(0, len(body)) + body),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS),
        )

    def flush(self) -> None:
        answers, self._answers = self._answers, []
        self._transport.write(b"".join(answers))
