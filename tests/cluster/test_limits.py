"""Limits of a connection that flags set, on a real member."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.harness import MemberHandle, running

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY, ACK, MAX_CONCURRENT_STREAMS = 4, 6, 7, 1, 3


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, 0)) + bytes(4) + payload


def frames(file: socket.SocketIO) -> Iterator[tuple[int, int, bytes]]:
    """(kind, flags, payload) until the other end hangs up."""
    while len(head := file.read(9) or b"") == 9:
        size = int.from_bytes(head[:3], "big")
        payload = b""
        while len(payload) < size:
            payload += file.read(size - len(payload)) or b""
        yield head[3], head[4], payload


def pinged(member: MemberHandle, count: int) -> tuple[int, int, str]:
    """(streams it allows, pings it answered, what it said when it sent us away) of so many pings at once."""
    with socket.create_connection(("127.0.0.1", member.client_port), timeout=20) as sock:
        sock.sendall(PREFACE + frame(SETTINGS) + frame(PING, b"12345678") * count)
        streams = answered = 0
        for kind, flags, payload in frames(sock.makefile("rb", buffering=0)):
            if kind == SETTINGS and not flags & ACK:
                found = dict(struct.iter_unpack(">HI", payload))
                streams = found[MAX_CONCURRENT_STREAMS]
            elif kind == PING and flags & ACK:
                answered += 1
            elif kind == GOAWAY:
                return streams, answered, payload[8:].decode()
            if answered == count:
                break
        return streams, answered, ""


def test_a_client_that_pings_too_often_is_sent_away_unless_a_flag_allows_it(tmp_path: Path) -> None:
    with running(tmp_path, size=1) as cluster:
        (member,) = cluster.members
        streams, answered, told = pinged(member, 10)
        assert (streams, told) == (10_000, "too_many_pings") and answered < 10
        member.stop()
        member.start("--grpc-keepalive-min-time=0s", "--max-concurrent-streams=7")
        cluster.wait_ready()
        assert pinged(member, 10) == (7, 10, "")
        assert not any("keepalive" in line["msg"] for line in member.log_lines() if line["level"] == "warn")
