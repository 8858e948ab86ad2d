"""The benchmarks' own client keeps HTTP/2's rules, however long it runs."""

from __future__ import annotations

from typing import Any, cast

import pytest

from benchmarks import raw_client
from benchmarks.raw_client import RawConnection
from kvstore.wire import frames as h2


class Transport:
    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def test_a_window_is_given_back_what_data_took_of_it_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else comes takes nothing of it: given back too, it grew past its greatest size in some millions of calls,
    and a server that counts ends the connection."""
    monkeypatch.setattr(raw_client, "WINDOW_AGAIN", 1000)
    connection, transport = RawConnection("a"), Transport()
    connection.connection_made(cast(Any, transport))
    transport.written = b""
    data = h2.frame(h2.DATA, 0, 1, b"d" * 90)
    for _ in range(20):
        connection.data_received(h2.frame(h2.PING, h2.ACK, 0, b"12345678") + data[:50])
        connection.data_received(data[50:])
    assert transport.written == h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(12 * 90))
