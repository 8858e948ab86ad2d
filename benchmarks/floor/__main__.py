"""One member of the floor, until a signal ends it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from benchmarks.floor.client import Client
from benchmarks.floor.members import Follower, Leader

READY = "serving"


async def serve(role: str, port: int, folder: Path, followers: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    protocol: Callable[[], asyncio.Protocol]
    if role == "leader":
        leader = Leader(folder)
        await leader.connect(followers)

        def protocol() -> asyncio.Protocol:
            return Client(leader)
    else:

        def protocol() -> asyncio.Protocol:
            return Follower(folder)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", port)
    print(READY, flush=True)
    await server.serve_forever()


def main(words: list[str]) -> int:
    if len(words) not in (3, 4) or words[0] not in ("leader", "follower"):
        print("python -m benchmarks.floor leader|follower PORT FOLDER [PORT,PORT]", file=sys.stderr)
        return 2
    followers = [int(port) for port in words[3].split(",")] if len(words) == 4 else []
    uvloop.run(serve(words[0], int(words[1]), Path(words[2]), followers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
