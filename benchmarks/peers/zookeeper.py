"""ZooKeeper: three servers, setData and getData at the leader.

Its protocol (zookeeper.jute): length u32, then a request of xid i32 and type i32, or an answer of xid i32, zxid i64
and error i32; strings and buffers with a length before them. Answers come in the order of the requests.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from pathlib import Path
from struct import Struct

from benchmarks.load import Shape
from benchmarks.peers.frames import Wire
from benchmarks.peers.peer import VALUE, OnDone, Unavailable, drive, last_words
from kvstore.demo.processes import Program, Programs, free_ports

JARS = Path("/usr/share/java")
CREATE, GET_DATA, SET_DATA = 1, 4, 5
NODE_EXISTS = -110
PATH = b"/bench"
START_S = 60.0
_HEAD, _ANSWER, _I32 = Struct(">ii"), Struct(">iqi"), Struct(">i")
_CONNECT = Struct(">iqiqi16s")
SESSION_MS = 60_000


def _sized(data: bytes) -> bytes:
    return _I32.pack(len(data)) + data


_ANYBODY = _I32.pack(1) + _I32.pack(31) + _sized(b"world") + _sized(b"anyone")
_SET = _sized(PATH) + _sized(VALUE) + _I32.pack(-1)
_GET = _sized(PATH) + b"\0"
_MAKE = _sized(PATH) + _sized(VALUE) + _ANYBODY + _I32.pack(0)


class Session(Wire):
    def __init__(self) -> None:
        super().__init__()
        self._xid = 0
        self._waiting: deque[tuple[OnDone, int]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write(_sized(_CONNECT.pack(0, 0, SESSION_MS, 0, 16, b"")))

    def put(self, done: OnDone) -> None:
        self._ask(SET_DATA, _SET, done)

    def get(self, done: OnDone) -> None:
        self._ask(GET_DATA, _GET, done, len(VALUE))

    def make(self, done: OnDone) -> None:
        self._ask(CREATE, _MAKE, done)

    def _ask(self, kind: int, body: bytes, done: OnDone, at_least: int = 0) -> None:
        """at_least: so many bytes the answer has."""
        self._xid += 1
        self._waiting.append((done, at_least))
        self.write(_sized(_HEAD.pack(self._xid, kind) + body))

    def taken(self, data: bytes) -> int:
        at = 0
        while len(data) - at >= 4:
            (size,) = _I32.unpack_from(data, at)
            if len(data) - at - 4 < size:
                break
            at += 4
            if not self.ready.done():
                self.ready.set_result(None)
            else:
                self._answered(data, at, size)
            at += size
        return at

    def _answered(self, data: bytes, at: int, size: int) -> None:
        _, _, error = _ANSWER.unpack_from(data, at)
        done, at_least = self._waiting.popleft()
        if error:
            done(f"ZooKeeper's error {error}")
        else:
            done("" if size - _ANSWER.size >= at_least else "an answer without the value")

    def lost(self, why: str) -> None:
        while self._waiting:
            self._waiting.popleft()[0](why)


class ZooKeeper:
    name = "zookeeper"
    puts = "fsync on a majority (forceSync=yes); setData"
    gets = "what this server has applied; getData"

    def __init__(self) -> None:
        self._leader = 0

    async def start(self, folder: Path, programs: Programs) -> None:
        java, jar = shutil.which("java"), JARS / "zookeeper.jar"
        if java is None or not jar.exists():
            raise Unavailable("ZooKeeper is not installed: apt-get install zookeeper")
        ports = free_ports(9)
        clients = ports[:3]
        servers = "\n".join(
            f"server.{n}=127.0.0.1:{ports[2 + n]}:{ports[5 + n]};127.0.0.1:{clients[n - 1]}"
            for n in (1, 2, 3)
        )
        started = []
        for number in (1, 2, 3):
            home = folder / f"{number}"
            home.mkdir(parents=True)
            (home / "myid").write_text(f"{number}\n")
            settings = (
                "tickTime=2000\ninitLimit=10\nsyncLimit=5\nadmin.enableServer=false\n"
                f"4lw.commands.whitelist=srvr\ndataDir={home}\n{servers}\n"
            )
            (folder / f"{number}.cfg").write_text(settings)
            command = [
                *(java, "-Xms64m", "-Xmx512m", "-Dzookeeper.forceSync=yes"),
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                *("-cp", f"{jar}:{JARS / 'slf4j-simple.jar'}"),
                *("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(folder / f"{number}.cfg")),
            ]
            started.append(await programs.start(f"zookeeper-{number}", command))
        self._leader = await _leader(clients, started)
        await self._make()

    async def _make(self) -> None:
        session = await Session.connect(self._leader)
        made: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        session.make(made.set_result)
        async with asyncio.timeout(START_S):
            problem = await made
        session.close()
        if problem and str(NODE_EXISTS) not in problem:
            raise Unavailable(f"ZooKeeper would not make {PATH.decode()}: {problem}")

    async def rate(self, operation: str, shape: Shape) -> float:
        return await drive(lambda: Session.connect(self._leader), operation, shape)


async def _leader(ports: list[int], started: list[Program]) -> int:
    """Its client port, once one leads and the others follow."""
    try:
        async with asyncio.timeout(START_S):
            while not last_words(started):
                modes = [await _mode(port) for port in ports]
                if sorted(modes) == ["follower", "follower", "leader"]:
                    return ports[modes.index("leader")]
                await asyncio.sleep(0.2)
    except TimeoutError:
        pass
    raise Unavailable(f"ZooKeeper had no leader within {START_S:g} s; {last_words(started)}")


async def _mode(port: int) -> str:
    """What the four-letter word `srvr` says; "" where it says nothing."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"srvr")
        said = (await reader.read()).decode()
        writer.close()
    except OSError:
        return ""
    return next((line.split(": ")[1] for line in said.splitlines() if line.startswith("Mode: ")), "")
