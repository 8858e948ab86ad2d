"""NATS JetStream: three servers, a key-value bucket of three replicas in files, asked at its leader.

A put is a message published to the bucket's stream and acknowledged by it. Before 2.10 a server cannot be told to
sync each write: the rows say so. The protocol is lines, of which the load needs PUB, MSG and HMSG.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

from benchmarks.load import Shape
from benchmarks.peers.frames import Wire
from benchmarks.peers.peer import VALUE, OnDone, Unavailable, drive, last_words
from kvstore.demo.processes import Program, Programs, free_ports

STREAM, SUBJECT = "KV_bench", "$KV.bench.key"
CAN_SYNC = (2, 10)
START_S = 60.0
ASK_S = 5.0  # what is asked before the servers have a leader gets no answer
_INBOX = "_INBOX.bench"
_CONFIG: dict[str, Any] = {
    "name": STREAM,
    "subjects": ["$KV.bench.>"],
    "max_msgs_per_subject": 1,
    "num_replicas": 3,
    "storage": "file",
    "discard": "new",
    "allow_direct": True,
    "allow_rollup_hdrs": True,
    "deny_delete": True,
}
_PUT = SUBJECT.encode()
_GET = f"$JS.API.DIRECT.GET.{STREAM}.{SUBJECT}".encode()


class Talk(Wire):
    """One client; each answer comes to an inbox of its own, by number."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0
        self._waiting: dict[int, tuple[OnDone, bool]] = {}
        self._bodies: dict[int, asyncio.Future[bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        hello = json.dumps({"verbose": False, "pedantic": False, "headers": True, "no_responders": True})
        self.write(f"CONNECT {hello}\r\nSUB {_INBOX}.{id(self)}.* 1\r\nPING\r\n".encode())

    def put(self, done: OnDone) -> None:
        self._publish(_PUT, VALUE, done, False)

    def get(self, done: OnDone) -> None:
        self._publish(_GET, b"", done, True)

    async def ask(self, subject: str, message: dict[str, Any]) -> dict[str, Any]:
        """An answer of the API. Raises Unavailable where it is an error, TimeoutError where there is none."""
        self._bodies[self._next] = found = asyncio.get_running_loop().create_future()
        self._publish(subject.encode(), json.dumps(message).encode(), lambda _: None, False)
        async with asyncio.timeout(ASK_S):
            answer: dict[str, Any] = json.loads(await found)
        if "error" in answer:
            raise Unavailable(f"NATS: {subject}: {answer['error']}")
        return answer

    def _publish(self, subject: bytes, body: bytes, done: OnDone, wants_value: bool) -> None:
        number, self._next = self._next, self._next + 1
        self._waiting[number] = (done, wants_value)
        inbox = f"{_INBOX}.{id(self)}.{number}".encode()
        self.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, inbox, len(body), body))

    def taken(self, data: bytes) -> int:
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            words = data[at:end].split()
            if words[0] in (b"MSG", b"HMSG"):
                size = int(words[-1])
                if len(data) - end - 4 < size:
                    break
                self._message(words[1], data[end + 2 : end + 2 + size])
                at = end + 4 + size
                continue
            if words[0] == b"PING":
                self.write(b"PONG\r\n")
            elif words[0] == b"PONG" and not self.ready.done():
                self.ready.set_result(None)
            elif words[0] == b"-ERR":
                self.lost(data[at:end].decode())
            at = end + 2
        return at

    def _message(self, inbox: bytes, body: bytes) -> None:
        number = int(inbox.rpartition(b".")[2])
        done, wants_value = self._waiting.pop(number)
        if (found := self._bodies.pop(number, None)) is not None:
            found.set_result(body)
        good = body.endswith(VALUE) if wants_value else b'"seq"' in body
        done("" if good else f"NATS answered {body[:200].decode(errors='replace')!r}")

    def lost(self, why: str) -> None:
        waiting, self._waiting = self._waiting, {}
        for done, _ in waiting.values():
            done(why)


class Nats:
    name = "nats"
    gets = "a direct get: what one replica has applied"

    def __init__(self) -> None:
        self.puts = ""
        self._leader = 0

    async def start(self, folder: Path, programs: Programs) -> None:
        program = shutil.which("nats-server")
        if program is None:
            raise Unavailable("NATS is not installed: apt-get install nats-server")
        said = (await _output(program, "--version")).strip()
        version = said.rpartition("v")[2]
        syncs = version_of(said) >= CAN_SYNC
        self.puts = f"{version}: " + (
            "fsync on a majority (sync_interval: always)"
            if syncs
            else "in files of a majority, NOT synced per write (it cannot be told to): not as durable"
        )
        ports = free_ports(6)
        folder.mkdir(parents=True)
        servers = []
        for number in range(3):
            # A ring: where two dial each other, 2.9 may close both as duplicates, again and again.
            route = f"nats-route://127.0.0.1:{ports[3 + (number + 1) % 3]}"
            path = folder / f"n{number}.conf"
            path.write_text(
                f"server_name: n{number}\nlisten: 127.0.0.1:{ports[number]}\n"
                f'jetstream {{ store_dir: "{folder / f"n{number}"}"'
                f"{', sync_interval: always' if syncs else ''} }}\n"
                f"cluster {{ name: bench, listen: 127.0.0.1:{ports[3 + number]}, routes: [{route}] }}\n"
            )
            servers.append(await programs.start(f"nats-{number}", [program, "-c", str(path)]))
        self._leader = await _bucket(ports[:3], servers)

    async def rate(self, operation: str, shape: Shape) -> float:
        return await drive(lambda: Talk.connect(self._leader), operation, shape)


def version_of(said: str) -> tuple[int, int]:
    """Of `nats-server --version`; (0, 0) where it cannot be read."""
    found = re.search(r"v(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


async def _bucket(ports: list[int], servers: list[Program]) -> int:
    """Makes it; the port of the server that leads it. The servers need a moment to find one another first."""
    problem: Exception | None = None
    try:
        async with asyncio.timeout(START_S):
            while not last_words(servers):
                try:
                    return await _try_bucket(ports)
                except (OSError, TimeoutError, Unavailable) as again:
                    problem = again
                    await asyncio.sleep(0.3)
    except TimeoutError:
        pass
    raise Unavailable(f"NATS made no bucket within {START_S:g} s: {problem}; {last_words(servers)}")


async def _try_bucket(ports: list[int]) -> int:
    talk = await Talk.connect(ports[0])
    try:
        await talk.ask(f"$JS.API.STREAM.CREATE.{STREAM}", _CONFIG)
        cluster = (await talk.ask(f"$JS.API.STREAM.INFO.{STREAM}", {}))["cluster"]
        if not cluster.get("leader") or any(not one.get("current") for one in cluster["replicas"]):
            raise Unavailable("the bucket's replicas are not there yet")
        return ports[int(cluster["leader"].removeprefix("n"))]
    finally:
        talk.close()
