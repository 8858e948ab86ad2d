"""A zone on UDP and TCP (RFC 1035, 7766)."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable

IDLE_S = 10.0  # a TCP connection that asks nothing
CONNECTIONS_MAX = 256
_LENGTH = struct.Struct(">H")

Answer = Callable[[bytes, bool], bytes | None]  # (packet, over TCP)


class DnsServer:
    """Listens on one address, UDP and TCP alike."""

    def __init__(self, answer: Answer, host: str, port: int) -> None:
        self._answer = answer
        self._host = host
        self._port = port
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Raises OSError. Port 0: any, and the same for both."""
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve, self._host, self._port)
        self._port = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._answer), local_addr=(self._host, self._port)
        )

    @property
    def address(self) -> str:
        return f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    async def stop(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for writer in list(self._connections):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                while True:
                    async with asyncio.timeout(IDLE_S):
                        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                        packet = await reader.readexactly(size)
                    reply = self._answer(packet, True)
                    if reply is None:
                        return
                    writer.write(_LENGTH.pack(len(reply)) + reply)
                    async with asyncio.timeout(IDLE_S):
                        await writer.drain()
        finally:
            self._connections.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a datagram endpoint

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._answer(data, False)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)
