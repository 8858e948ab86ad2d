"""Compare-and-swap: clients that all want to move one key on, each reading it and swapping what it read."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.raw_client import RawConnection
from benchmarks.unary import PUT, RANGE, TXN
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

CLIENTS = (1, 8, 32)
KEY = b"counter"


async def measure(bench: Bench) -> list[Figure]:
    figures = []
    for clients in CLIENTS:
        values: dict[str, list[float]] = {server: [] for server in bench.clusters}
        for server in bench.in_turns():
            endpoint = bench.leaders[server].endpoint
            values[server].append(await swaps_per_s(endpoint, clients, bench.size(2.0, 0.5)))
        name = f"compare-and-swap of one key that succeeded, {clients} clients"
        figures.append(Figure("txn", name, "/s", values, float(clients)))
    return figures


async def swaps_per_s(endpoint: str, clients: int, seconds: float) -> float:
    connections = [await RawConnection.connect(endpoint) for _ in range(clients)]
    await connections[0].ask(PUT, PutRequest(key=KEY, value=b"0").SerializeToString())
    started = time.perf_counter()
    done = await asyncio.gather(*(swap(one, started + seconds) for one in connections))
    took = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return sum(done) / took


async def swap(connection: RawConnection, until: float) -> int:
    """How many of its swaps succeeded."""
    read, done = RangeRequest(key=KEY).SerializeToString(), 0
    while time.perf_counter() < until:
        (kv,) = RangeResponse.FromString(await connection.ask(RANGE, read)).kvs
        same = Compare(key=KEY, target=Compare.MOD, result=Compare.EQUAL, mod_revision=kv.mod_revision)
        put = RequestOp(request_put=PutRequest(key=KEY, value=b"%d" % (int(kv.value) + 1)))
        request = TxnRequest(compare=[same], success=[put]).SerializeToString()
        done += TxnResponse.FromString(await connection.ask(TXN, request)).succeeded
    return done
