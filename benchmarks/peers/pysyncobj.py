"""PySyncObj: Raft as a Python library, a replicated dictionary in three processes.

It is no server: a put is a call in the member's own process, so the load runs there, in the leader's, and pays for
no client and no connection of one. The processes are this module, run as a program.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import socketserver
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.load import LoadFailed, Shape
from benchmarks.peers.peer import LIMIT_S, VALUE, Unavailable
from kvstore.demo.processes import Programs, free_ports

ROOT = Path(__file__).parent.parent.parent
START_S = 60.0
MOST_S = 5.0


class PySyncObj:
    name = "pysyncobj"
    gets = ""  # a look into a dictionary of one's own process

    def __init__(self) -> None:
        self.puts = ""
        self._leader = 0

    async def start(self, folder: Path, programs: Programs) -> None:
        if importlib.util.find_spec("pysyncobj") is None:
            raise Unavailable("PySyncObj is not installed: pip install 'kvstore[bench]'")
        version = importlib.metadata.version("pysyncobj")
        self.puts = (
            f"{version}, appendEntriesUseBatch=False: in a majority's journals (memory-mapped files), NOT synced (it "
            "has no setting for it): not as durable; the load runs in the leader's process"
        )
        folder.mkdir(parents=True)
        ports = free_ports(6)
        for number in range(3):
            own = ports[number]
            others = ",".join(str(port) for port in ports[:3] if port != own)
            words = [
                *(sys.executable, "-m", "benchmarks.peers.pysyncobj"),
                *(str(own), others, str(ports[3 + number]), str(folder / f"{number}.journal")),
            ]
            await programs.start(f"pysyncobj-{number}", words, {"PYTHONPATH": str(ROOT)})
        self._leader = await _leader(ports[3:])

    async def rate(self, operation: str, shape: Shape) -> float:
        said = await _ask(self._leader, {"calls": shape.calls, "in_flight": shape.in_flight})
        if "problem" in said:
            raise LoadFailed(f"PySyncObj: {said['problem']}")
        return float(said["per_s"])


async def _leader(ports: list[int]) -> int:
    try:
        async with asyncio.timeout(START_S):
            while True:
                for port in ports:
                    try:
                        if (await _ask(port, {}))["leads"]:
                            return port
                    except OSError:
                        continue
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise Unavailable(f"PySyncObj had no leader within {START_S:g} s") from None


async def _ask(port: int, question: dict[str, int]) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(json.dumps(question).encode() + b"\n")
    async with asyncio.timeout(LIMIT_S + 10):
        answer: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    return answer


# In the member's process


def puts(values: Any, calls: int, in_flight: int) -> dict[str, Any]:
    """So many puts into the replicated dictionary, or for MOST_S, from this thread; callbacks run on the library's."""
    room, problems = threading.Semaphore(in_flight), list[str]()

    def done(_: object, failure: int) -> None:
        if failure:
            problems.append(f"put failed with {failure}")
        room.release()

    began, made = time.perf_counter(), 0
    while made < calls and time.perf_counter() < began + MOST_S:
        if not room.acquire(timeout=LIMIT_S):
            return {"problem": "a put was not answered"}
        values.set("k" * 8, VALUE, callback=done)
        made += 1
    for _ in range(in_flight):
        if not room.acquire(timeout=LIMIT_S):
            return {"problem": "a put was not answered"}
    return {"problem": problems[0]} if problems else {"per_s": made / (time.perf_counter() - began)}


def main(own: str, others: str, control: str, journal: str) -> None:
    from pysyncobj import SyncObj, SyncObjConf
    from pysyncobj.batteries import ReplDict

    values = ReplDict()
    node = SyncObj(
        f"127.0.0.1:{own}",
        [f"127.0.0.1:{port}" for port in others.split(",")],
        # Batches wait for the next heartbeat, 100 ms: ten puts a second from one client.
        conf=SyncObjConf(journalFile=journal, appendEntriesUseBatch=False),
        consumers=[values],
    )

    class Control(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            question = json.loads(self.rfile.readline())
            answer = (
                puts(values, question["calls"], question["in_flight"])
                if question
                else {"leads": node._isLeader() and node.isReady()}
            )
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    with socketserver.TCPServer(("127.0.0.1", int(control)), Control) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
