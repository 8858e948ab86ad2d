"""Announce → event: from the call to the event at a watcher on another member.

Ours is one message on a stream that is open; etcd's is what every tool does there: a lease is granted, and the key put
under it. Both from the raw client (benchmarks/raw_client.py), which costs the same for both, in this process; the
announcer and the watcher talk to two different followers. Between rounds it is withdrawn: a message here, a revocation
there. Rounds of the two take turns.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

from benchmarks.bench import Bench
from benchmarks.figures import OURS
from benchmarks.raw_client import RawConnection
from benchmarks.routed.rows import Row, timed
from benchmarks.routed.stage import Stage
from benchmarks.unary import PUT
from benchmarks.watch import WATCH
from kvstore.client.methods import ANNOUNCE, LEASE_GRANT, LEASE_REVOKE
from kvstore.pb.etcdserverpb_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    PutRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from kvstore.pb.readiness_pb2 import Announcement, AnnounceRequest, Withdraw
from kvstore.readiness.instance import Instance, encode, prefix

SERVICE = "announcing"
RATIO_LIMIT = 0.6
TTL_S = 30
LIMIT_S = 10.0
WARM_UP = 5
PAUSE_S = 0.01
INSTANCE = Instance(service=SERVICE, id="one", address="127.0.0.1:9")


class Announcing(Protocol):
    async def announce(self) -> None: ...

    async def withdraw(self) -> None: ...


class ByCall:
    """A stream of ours; each request is answered by one message."""

    def __init__(self, connection: RawConnection) -> None:
        self._connection = connection
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = connection.open(ANNOUNCE.path, self._hear, self._ended)
        lease_id = random.SystemRandom().getrandbits(62) | 1
        said = Announcement(key=INSTANCE.key, value=encode(INSTANCE), lease_id=lease_id, ttl_ms=TTL_S * 1000)
        self._announce = AnnounceRequest(announce=said).SerializeToString()
        self._withdraw = AnnounceRequest(withdraw=Withdraw()).SerializeToString()

    async def announce(self) -> None:
        await self._ask(self._announce)

    async def withdraw(self) -> None:
        await self._ask(self._withdraw)

    async def _ask(self, message: bytes) -> None:
        self._answer = asyncio.get_running_loop().create_future()
        self._connection.send(self._stream, message)
        await self._answer

    def _hear(self, _: bytes) -> None:
        self._answer.set_result(None)

    def _ended(self, status: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectionError(status))


class ByLease:
    def __init__(self, connection: RawConnection) -> None:
        self._connection = connection
        self._lease_id = 0

    async def announce(self) -> None:
        grant = LeaseGrantRequest(TTL=TTL_S).SerializeToString()
        self._lease_id = LeaseGrantResponse.FromString(await self._connection.ask(LEASE_GRANT.path, grant)).ID
        put = PutRequest(key=INSTANCE.key, value=encode(INSTANCE), lease=self._lease_id)
        await self._connection.ask(PUT, put.SerializeToString())

    async def withdraw(self) -> None:
        revoke = LeaseRevokeRequest(ID=self._lease_id).SerializeToString()
        await self._connection.ask(LEASE_REVOKE.path, revoke)


class Watching:
    """A watch of the service; each event is heard once."""

    def __init__(self, connection: RawConnection) -> None:
        loop = asyncio.get_running_loop()
        self.created: asyncio.Future[None] = loop.create_future()
        self._event: asyncio.Future[float] = loop.create_future()
        start = prefix(SERVICE)
        create = WatchCreateRequest(key=start, range_end=start[:-1] + b"0")
        connection.open(WATCH, self._hear, None, WatchRequest(create_request=create).SerializeToString())

    def expect(self) -> asyncio.Future[float]:
        self._event = asyncio.get_running_loop().create_future()
        return self._event

    def _hear(self, message: bytes) -> None:
        at = time.perf_counter()
        response = WatchResponse.FromString(message)
        if response.created:
            self.created.set_result(None)
        if response.events and not self._event.done():
            self._event.set_result(at)


async def measure(bench: Bench, tick: Callable[[], None], rounds: int) -> list[Row]:
    sides: dict[str, tuple[Announcing, Watching]] = {}
    connections: list[RawConnection] = []
    for server in bench.clusters:
        stage = Stage.of(bench, server)
        announcer = await RawConnection.connect(stage.announcing)
        watcher = await RawConnection.connect(stage.routing)
        connections += [announcer, watcher]
        watching = Watching(watcher)
        await watching.created
        sides[server] = (ByCall(announcer) if server == OURS else ByLease(announcer), watching)
    acknowledged: dict[str, list[float]] = {server: [] for server in sides}
    heard: dict[str, list[float]] = {server: [] for server in sides}
    for number in range(rounds + WARM_UP):
        for server in sides if number % 2 == 0 else reversed(sides):
            async with asyncio.timeout(LIMIT_S):
                took = await one_round(*sides[server])
            if number >= WARM_UP:
                acknowledged[server].append(took[0])
                heard[server].append(took[1])
            tick()
    for connection in connections:
        connection.close()
    group = "announce → event"
    return [
        timed(group, "announce (etcd: grant, put) → acknowledged", acknowledged, is_detail=True),
        timed(group, "announce (etcd: grant, put) → event on another member", heard, ratio_limit=RATIO_LIMIT),
    ]


async def one_round(announcing: Announcing, watching: Watching) -> tuple[float, float]:
    """Milliseconds to (acknowledged, heard)."""
    event = watching.expect()
    started = time.perf_counter()
    await announcing.announce()
    acknowledged = time.perf_counter()
    heard = await event
    gone = watching.expect()
    await announcing.withdraw()
    await gone
    await asyncio.sleep(PAUSE_S)  # each round finds everybody at rest
    return 1e3 * (acknowledged - started), 1e3 * (heard - started)
