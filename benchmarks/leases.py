"""Leases: many that are kept alive, and many that end together while a lone client puts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from benchmarks.bench import Bench
from benchmarks.figures import Figure, percentile
from benchmarks.load import LoadFailed
from benchmarks.raw_client import RawConnection
from benchmarks.unary import RANGE, TXN, pipeline
from benchmarks.upkeep import putting
from kvstore.pb.etcdserverpb_pb2 import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)

GRANT = "/etcdserverpb.Lease/LeaseGrant"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
TTL_S = 8
PUTS_OF_A_TXN = 100
RENEWALS_IN_FLIGHT = 1_000  # what a stream's smallest window takes; the client keeps no stream's
FEW, MANY, MANY_TTL_S = 10_000, 100_000, 60
LIMIT_S = 120.0
MANY_LIMIT_S = 400.0  # etcd ends at most 1,000 a second


async def measure(bench: Bench) -> list[Figure]:
    turns = 1 if bench.quick else 2
    figures = await ends(bench, bench.size(FEW, 2_000), TTL_S, turns, wanted=(0.3, 0.1))
    return figures + await ends(bench, bench.size(MANY, 5_000), bench.size(MANY_TTL_S, TTL_S), turns=1)


def first_id() -> int:
    """Of leases that nobody has yet."""
    return 1 + (time.time_ns() & 0xFFFF_FFFF_FFFF)


async def granted(connections: list[RawConnection], first: int, count: int, ttl_s: int) -> None:
    """Leases with these ids."""
    grants = (LeaseGrantRequest(ID=first + n, TTL=ttl_s).SerializeToString() for n in range(count))
    await pipeline(connections, GRANT, grants, 64)


def keyed(prefix: bytes, first: int, count: int) -> Iterator[PutRequest]:
    """A key under each lease."""
    return (PutRequest(key=b"%b%d" % (prefix, n), value=b"v", lease=first + n) for n in range(count))


def together(puts: Iterator[PutRequest]) -> Iterator[bytes]:
    """The same in fewer requests, a hundred in each."""
    while some := list(islice(puts, PUTS_OF_A_TXN)):
        yield TxnRequest(success=[RequestOp(request_put=put) for put in some]).SerializeToString()


async def left(connection: RawConnection, prefix: bytes) -> int:
    """How many keys there are."""
    end = prefix[:-1] + bytes((prefix[-1] + 1,))
    request = RangeRequest(key=prefix, range_end=end, count_only=True)
    return RangeResponse.FromString(await connection.ask(RANGE, request.SerializeToString())).count


async def renewed(connection: RawConnection, first: int, count: int) -> float:
    """Each once on one stream; the seconds it took. Raises LoadFailed where one was gone."""
    sent, answered, gone = 0, 0, 0
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send() -> None:
        nonlocal sent
        if sent < count:
            connection.send(stream, LeaseKeepAliveRequest(ID=first + sent).SerializeToString())
            sent += 1

    def hear(message: bytes) -> None:
        nonlocal answered, gone
        answered += 1
        gone += LeaseKeepAliveResponse.FromString(message).TTL <= 0
        send()
        if answered == count:
            done.set_result(None)

    def end(status: str) -> None:
        if not done.done():
            done.set_exception(LoadFailed(f"the stream of renewals ended: {status}"))

    started = time.perf_counter()
    stream = connection.open(KEEP_ALIVE, hear, end)
    for _ in range(RENEWALS_IN_FLIGHT):
        send()
    async with asyncio.timeout(LIMIT_S):
        await done
    took = time.perf_counter() - started
    connection.reset(stream)
    if gone:
        raise LoadFailed(
            f"{gone} of {count:,} leases had ended before they were renewed: this machine is too slow"
        )
    return took


@dataclass(slots=True)
class Ending:
    """What one server needed, one value for each turn."""

    renewals: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    slowest_ms: list[float] = field(default_factory=list)


async def ends(
    bench: Bench, count: int, ttl_s: int, turns: int, wanted: tuple[float, float] | None = None
) -> list[Figure]:
    """Leases with a key each that are renewed within less than their time, so that they end together."""
    found = {server: Ending() for server in bench.clusters}
    for server in bench.in_turns(turns):
        bench.say(f"{count:,} leases of {server}, for {ttl_s} s")
        await ending(bench.leaders[server].endpoint, count, ttl_s, found[server])
    name = f"{count:,} leases"
    at_least, aim = wanted or (None, None)
    return [
        Figure(
            "leases", f"renewals of {name} on one stream", "/s", {s: f.renewals for s, f in found.items()}
        ),
        Figure(
            "leases",
            f"{name} that end together, first key gone → last",
            "s",
            {s: f.took_s for s, f in found.items()},
        ),
        Figure("upkeep", f"put p99 while {name} end", "ms", {s: f.p99_ms for s, f in found.items()}),
        Figure(
            "upkeep",
            f"slowest put while {name} end",
            "ms",
            {s: f.slowest_ms for s, f in found.items()},
            at_least=at_least,
            aim=aim,
        ),
    ]


async def ending(endpoint: str, count: int, ttl_s: int, found: Ending) -> None:
    """The puts that are counted are those from the first key gone to the last."""
    connections = [await RawConnection.connect(endpoint) for _ in range(4)]
    prefix, first = b"ending/", first_id()
    await granted(connections, first, count, ttl_s)
    await pipeline(connections, TXN, together(keyed(prefix, first, count)), 4)
    found.renewals.append(count / await renewed(connections[0], first, count))
    async with asyncio.timeout(ttl_s + MANY_LIMIT_S), putting(endpoint) as took:
        while await left(connections[0], prefix) == count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        began, before = time.perf_counter(), len(took)
        while await left(connections[0], prefix):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        found.took_s.append(time.perf_counter() - began)
        meanwhile = took[before:] or took[-1:]
    found.p99_ms.append(1e3 * percentile(meanwhile, 0.99))
    found.slowest_ms.append(1e3 * max(meanwhile))
    for connection in connections:
        connection.close()
