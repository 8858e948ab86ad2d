"""The server in the container: answers HTTP with its name, and says READY=1 and STOPPING=1 when it is told to.

    python -m benchmarks.routed.container NAME PORT CONTROL [--later]

CONTROL is the path of a Unix socket. Lines on it, each with an answer of one line:

    ready, stopping   says so on NOTIFY_SOCKET; when, taken just before
    last              "WHEN COUNT": the latest request, and how many there were
    listen, close     takes connections from now on, and no more; when

Times are nanoseconds of the monotonic clock, which is one for all processes of a machine. With --later it does not
listen by itself: it stands in for a container that was killed, at the same address, and sees who still asks it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from typing import cast


class Server:
    def __init__(self, name: str, port: int) -> None:
        self._port = port
        body = f"{name}\n".encode()
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        self._listening: asyncio.Server | None = None
        self._connections: set[asyncio.Transport] = set()
        self.last_ns = 0
        self.count = 0
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def listen(self) -> None:
        # Its stand-in has the address too.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", self._port))
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(lambda: Http(self), sock=sock, backlog=1024)

    def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for transport in list(self._connections):
            transport.abort()

    def say(self, word: str) -> int:
        at = time.monotonic_ns()
        self._notify.sendto(word.encode(), os.environ["NOTIFY_SOCKET"])
        return at

    async def obey(self, word: str) -> str:
        match word:
            case "ready":
                return str(self.say("READY=1"))
            case "stopping":
                return str(self.say("STOPPING=1"))
            case "last":
                return f"{self.last_ns} {self.count}"
            case "listen":
                await self.listen()
            case "close":
                self.close()
        return str(time.monotonic_ns())

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write((await self.obey(line.decode().strip())).encode() + b"\n")
        writer.close()


class Http(asyncio.Protocol):
    """Requests without bodies; each is answered as it comes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server._connections.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._server._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        server = self._server
        data = self._rest + data
        count = data.count(b"\r\n\r\n")
        self._rest = data.rpartition(b"\r\n\r\n")[2]
        if count:
            server.last_ns = time.monotonic_ns()
            server.count += count
            self._transport.write(server._answer * count)


async def main(server: Server, control: str, *, later: bool) -> None:
    if not later:
        await server.listen()
    async with await asyncio.start_unix_server(server.control, control) as controlled:
        await controlled.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Server(sys.argv[1], int(sys.argv[2])), sys.argv[3], later="--later" in sys.argv))
