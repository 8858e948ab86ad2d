"""A process with many announcers, or many routers, on the raw client (benchmarks/raw_client.py).

    python -m benchmarks.routed.crowd_side '{"role": "announce", "server": "kvstore", "endpoints": […], "count": …}'

Lines on stdin: begin (announce, or watch, all of them), churn PER_S SECONDS (withdraw one and announce a new one, so
many a second), report (how old every event was). One line of JSON for each. It ends when stdin does.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from typing import Any, Protocol

import uvloop

from benchmarks.figures import OURS
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT
from benchmarks.watch import WATCH
from kvstore.client.methods import ANNOUNCE, LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE
from kvstore.pb.etcdserverpb_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    PutRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from kvstore.pb.readiness_pb2 import Announcement, AnnounceRequest, AnnounceResponse, KeepAlive, Withdraw
from kvstore.readiness.instance import Instance, encode, prefix

SERVICE = "crowd"
STREAMS_OF_A_CONNECTION = 100
AT_ONCE = 32
TURN_S = 0.05
_AT = re.compile(rb'"tags":\["at-(\d+)"\]')


class Side(Protocol):
    async def obey(self, word: str, *given: str) -> dict[str, Any]: ...


class Watchers:
    def __init__(self, endpoints: list[str], count: int) -> None:
        self._endpoints = endpoints
        self._count = count
        self._created = 0
        self._all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ages_ms: list[float] = []

    async def obey(self, word: str, *given: str) -> dict[str, Any]:
        if word == "report":
            return {"ages_ms": self._ages_ms}
        start = prefix(SERVICE)
        create = WatchCreateRequest(key=start, range_end=start[:-1] + b"0")
        request = WatchRequest(create_request=create).SerializeToString()
        for number in range(self._count):
            # A connection each, as routers have.
            connection = await RawConnection.connect(self._endpoints[number % len(self._endpoints)])
            connection.open(WATCH, self._hear, _ended, request)
        await self._all
        return {}

    def _hear(self, message: bytes) -> None:
        now = time.monotonic_ns()
        response = WatchResponse.FromString(message)
        if response.created:
            self._created += 1
            if self._created == self._count:
                self._all.set_result(None)
        for event in response.events:
            if found := _AT.search(event.kv.value):
                self._ages_ms.append(round((now - int(found[1])) / 1e6, 3))


class ByCall:
    """A stream each, which keeps its instance alive."""

    def __init__(self, connection: RawConnection, instance: Instance, ttl_s: int) -> None:
        self._connection = connection
        self._instance = instance
        self._ttl_ms = ttl_s * 1000
        self._answer: asyncio.Future[None] | None = None
        self._is_there = False
        self._stream = connection.open(ANNOUNCE.path, self._hear, self._ended)

    async def announce(self) -> None:
        said = Announcement(
            key=self._instance.key,
            value=encode(self._instance),
            lease_id=random.getrandbits(62) | 1,
            ttl_ms=self._ttl_ms,
        )
        await self._ask(AnnounceRequest(announce=said))
        self._is_there = True

    async def withdraw(self) -> None:
        self._is_there = False
        await self._ask(AnnounceRequest(withdraw=Withdraw()))
        self._connection.reset(self._stream)

    def keep_alive(self) -> None:
        if self._is_there:
            self._connection.send(self._stream, KEEP_ALIVE)

    async def _ask(self, request: AnnounceRequest) -> None:
        self._answer = asyncio.get_running_loop().create_future()
        self._connection.send(self._stream, request.SerializeToString())
        await self._answer
        self._answer = None

    def _hear(self, message: bytes) -> None:
        if self._answer is None or self._answer.done():
            return
        if AnnounceResponse.FromString(message).kind != AnnounceResponse.RENEWED:  # that was asked for before
            self._answer.set_result(None)

    def _ended(self, status: str) -> None:
        _ended(status)


class ByLease:
    """A lease each, kept alive on one stream of their connection."""

    _streams: dict[RawConnection, int] = {}  # noqa: RUF012 - one for all

    def __init__(self, connection: RawConnection, instance: Instance, ttl_s: int) -> None:
        self._connection = connection
        self._instance = instance
        self._ttl_s = ttl_s
        self._lease_id = 0

    async def announce(self) -> None:
        grant = LeaseGrantRequest(TTL=self._ttl_s).SerializeToString()
        self._lease_id = LeaseGrantResponse.FromString(await self._connection.ask(LEASE_GRANT.path, grant)).ID
        put = PutRequest(key=self._instance.key, value=encode(self._instance), lease=self._lease_id)
        await self._connection.ask(PUT, put.SerializeToString())

    async def withdraw(self) -> None:
        lease_id, self._lease_id = self._lease_id, 0
        revoke = LeaseRevokeRequest(ID=lease_id).SerializeToString()
        await self._connection.ask(LEASE_REVOKE.path, revoke)

    def keep_alive(self) -> None:
        if not self._lease_id:
            return
        stream = self._streams.get(self._connection)
        if stream is None:
            stream = self._connection.open(LEASE_KEEP_ALIVE.path, None, _ended)
            self._streams[self._connection] = stream
        self._connection.send(stream, LeaseKeepAliveRequest(ID=self._lease_id).SerializeToString())


KEEP_ALIVE = AnnounceRequest(keep_alive=KeepAlive()).SerializeToString()


class Announcers:
    """number: of this process, so that names differ."""

    def __init__(self, server: str, endpoints: list[str], count: int, number: int, ttl_s: int) -> None:
        self._way = ByCall if server == OURS else ByLease
        self._endpoints = endpoints
        self._count = count
        self._number = number
        self._ttl_s = ttl_s
        self._connections: list[RawConnection] = []
        self._there: list[ByCall | ByLease] = []
        self._made = 0
        self._renewing: asyncio.Task[None] | None = None

    async def obey(self, word: str, *given: str) -> dict[str, Any]:
        if word == "churn":
            return {"replaced": await self._churn(float(given[0]), float(given[1]))}
        for number in range(-(-self._count // STREAMS_OF_A_CONNECTION)):
            endpoint = self._endpoints[number % len(self._endpoints)]
            self._connections.append(await RawConnection.connect(endpoint))
        self._renewing = asyncio.ensure_future(self._renew())
        for first in range(0, self._count, AT_ONCE):
            some = range(min(AT_ONCE, self._count - first))
            self._there += await asyncio.gather(*(self._announce() for _ in some))
        return {}

    async def _announce(self, *tags: str) -> ByCall | ByLease:
        at = self._made % len(self._connections)
        name = f"{self._number}-{self._made}"
        self._made += 1
        instance = Instance(service=SERVICE, id=name, address=f"10.{self._number}.0.1:8080", tags=tags)
        one = self._way(self._connections[at], instance, self._ttl_s)
        await one.announce()
        return one

    async def _churn(self, per_s: float, for_s: float) -> int:
        loop = asyncio.get_running_loop()
        started, done = loop.time(), 0
        while (due := started + (done + random.random()) / per_s) < started + for_s:
            await asyncio.sleep(max(0.0, due - loop.time()))
            at = random.randrange(self._count)
            await self._there[at].withdraw()
            # In its place: when an instance is renewed hangs on where it stands.
            self._there[at] = await self._announce(f"at-{time.monotonic_ns()}")
            done += 1
        return done

    async def _renew(self) -> None:
        """Each a third of its TTL after the last time, spread evenly over it."""
        turns = max(1, round(self._ttl_s / 3 / TURN_S))
        turn = 0
        while True:
            for one in self._there[turn::turns]:
                one.keep_alive()
            turn = (turn + 1) % turns
            await asyncio.sleep(TURN_S)


def _ended(status: str) -> None:
    if status and not _is_over:
        print(f"a stream ended: {status}", file=sys.stderr, flush=True)


_is_over = False


async def main(config: dict[str, Any]) -> None:
    global _is_over
    role, server = config.pop("role"), config.pop("server")
    side: Side = Watchers(**config) if role == "watch" else Announcers(server, **config)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async for line in reader:
        word, *given = line.decode().split()
        print(json.dumps(await side.obey(word, *given)), flush=True)
    _is_over = True


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
