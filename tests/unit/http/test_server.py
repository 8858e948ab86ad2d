"""The HTTP side behind the client port: loaded late, and nothing lost while it loads."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest

from kvstore.api.context import Context
from kvstore.http.pages import Page, Query, Route
from kvstore.http.server import EARLY_BYTES_MAX, HttpServer
from kvstore.meters import HealthMeter
from kvstore.pb.etcdserverpb_pb2 import PutRequest, PutResponse
from kvstore.rpc import Methods, UnaryMethod
from kvstore.version import ETCD_VERSION
from kvstore.wire.server import serve

LATE = ("aiohttp", "google.protobuf.json_format", "kvstore.http.gateway", "kvstore.http.openapi")


def test_a_member_that_serves_grpc_alone_loads_none_of_it() -> None:
    code = f"import sys, kvstore.member; print([name for name in {LATE} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


METHODS: Methods = {
    "/etcdserverpb.KV/Put": UnaryMethod(
        lambda call, data: call.reply(
            PutResponse(prev_kv={"version": len(PutRequest.FromString(data).value)}).SerializeToString()
        )
    )
}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    """On a port of its own, which is in server.port."""
    machine = SimpleNamespace(alarms=[], applied_index=5, range=lambda request: (1, b""))
    node = SimpleNamespace(term=2, commit=6, leader_id=9)
    driver = SimpleNamespace(node=node, leader_id=9)
    config = SimpleNamespace(
        max_request_bytes=3 << 19, enable_grpc_gateway=True, cors=("*",), host_whitelist=("*",)
    )
    context = SimpleNamespace(
        config=config,
        driver=driver,
        machine=machine,
        member_id=9,
        certificates=False,
        health=HealthMeter(),
    )
    made = HttpServer(cast(Context, context), METHODS)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    listening = await serve(sock, {}, http1_factory=made.protocol)
    made.port = sock.getsockname()[1]  # type: ignore[attr-defined]
    yield made
    await made.close()
    await listening.close(0.1)


async def exchange(server: HttpServer, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request on a connection of its own, written as it stands."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)  # type: ignore[attr-defined]
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    writer.write(f"{head} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{length}\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), rest


async def test_the_first_request_may_be_larger_than_what_is_held_while_loading(server: HttpServer) -> None:
    body = json.dumps({"value": "eHh4" * 200_000}).encode()
    assert len(body) > 10 * EARLY_BYTES_MAX
    status, reply = await exchange(server, "POST /v3/kv/put", body)
    assert (status, json.loads(reply)) == (200, {"prev_kv": {"version": "600000"}})


async def test_pages(server: HttpServer) -> None:
    async def metrics(query: Query) -> Page:
        return Page("up 1\n")

    server.routes.append(Route("/metrics", metrics))
    assert await exchange(server, "GET /metrics") == (200, b"up 1\n")
    status, body = await exchange(server, "GET /version")
    assert status == 200 and json.loads(body)["etcdserver"] == ETCD_VERSION
    status, body = await exchange(server, "GET /debug/vars")
    assert json.loads(body)["raft.status"] == {"id": "9", "term": 2, "commit": 6, "applied": 5, "lead": "9"}
    status, body = await exchange(server, "GET /openapi.json")
    assert status == 200 and json.loads(body)["openapi"].startswith("3.")
    assert (await exchange(server, "GET /docs"))[1].startswith(b"<!doctype html>")
    assert await exchange(server, "GET /livez") == (200, b"ok\n")
    assert (await exchange(server, "HEAD /version")) == (200, b"")


async def test_several_connections_while_it_loads(server: HttpServer) -> None:
    answers = await asyncio.gather(*(exchange(server, "GET /livez") for _ in range(5)))
    assert answers == [(200, b"ok\n")] * 5


async def test_a_client_that_goes_while_it_loads_is_no_trouble(server: HttpServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)  # type: ignore[attr-defined]
    writer.write(b"GET /livez HTTP/1.1\r\n")
    writer.transport.abort()
    assert await exchange(server, "GET /livez") == (200, b"ok\n")
