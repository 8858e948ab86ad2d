"""The smallest web server worth announcing: answers every request with its name.

    python -m kvstore.demo.webserver NAME PORT [START_DELAY_S]

Written on asyncio streams alone, because what it shows is how soon something can be ready.
"""

from __future__ import annotations

import asyncio
import sys


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    body = f"{name}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nX-Instance: {name}\r\n\r\n"
    try:
        while request := await reader.readuntil(b"\r\n\r\n"):
            is_head = request.startswith(b"HEAD ")
            for line in request.split(b"\r\n"):
                field, _, value = line.partition(b":")
                if field.lower() == b"content-length":
                    await reader.readexactly(int(value))
            writer.write(head.encode() + (b"" if is_head else body))
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        pass
    finally:
        writer.close()


async def main(name: str, port: int, start_delay_s: float = 0.0) -> None:
    await asyncio.sleep(start_delay_s)
    server = await asyncio.start_server(lambda r, w: _serve(r, w, name), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:4])))
    except KeyboardInterrupt:
        sys.exit(130)
