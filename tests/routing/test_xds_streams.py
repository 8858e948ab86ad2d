"""Clients that do not behave: the server in this process, and raw streams to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from kvstore.readiness.instance import Instance
from kvstore.routing.xds.catalogue import Catalogue
from kvstore.routing.xds.kinds import Kind
from kvstore.routing.xds.plane import Plane
from kvstore.routing.xds.server import SERVICE, XdsServer

METHODS = ("StreamAggregatedResources", "DeltaAggregatedResources")
PATIENCE_S = 20.0
SETTINGS, PING, GOAWAY = 4, 6, 7  # frames of HTTP/2


def announced(port: int) -> list[Instance]:
    return [Instance(service="web", id="a", address=f"10.0.0.1:{port}")]


@pytest.fixture
def plane() -> Plane:
    made = Plane(Catalogue(["web"]))
    made.put("web", announced(1))
    return made


@pytest.fixture
async def address(plane: Plane) -> AsyncIterator[str]:
    """Of a server."""
    server = XdsServer(plane, "127.0.0.1", 0)
    await server.start()
    yield server.address
    await server.stop()


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as made:
        yield made


def request(kind: str = Kind.ENDPOINTS, **fields: Any) -> bytes:
    message = discovery_pb2.DiscoveryRequest(type_url=kind, resource_names=["web"], **fields)
    message.node.id = "n"
    return message.SerializeToString()  # type: ignore[no-any-return]


async def next_reply(call: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        data = await call.read()
    assert isinstance(data, bytes), f"the stream has ended: {await call.details()}"
    return discovery_pb2.DiscoveryResponse.FromString(data)


def opened(channel: grpc.aio.Channel, method: str = METHODS[0]) -> Any:
    make: Any = channel.stream_stream(f"/{SERVICE}/{method}", bytes, bytes)
    return make()


async def serves(channel: grpc.aio.Channel) -> None:
    call = opened(channel)
    await call.write(request())
    assert (await next_reply(call)).type_url == Kind.ENDPOINTS
    call.cancel()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", [b"\xff\xff", b""], ids=["garbage", "no type"])
async def test_what_is_no_request_ends_its_stream_with_a_reason(
    channel: grpc.aio.Channel, method: str, data: bytes
) -> None:
    call = opened(channel, method)
    await call.write(data)
    async with asyncio.timeout(PATIENCE_S):
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "the request" in await call.details()
    await serves(channel)


async def test_a_kind_there_is_none_of_is_no_reason_to_end(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    call = opened(channel)
    for _ in range(3):
        await call.write(request("type.googleapis.com/nosuch"))
    await call.write(request())
    await next_reply(call)
    said = [one.getMessage() for one in caplog.records if "there is none here" in one.getMessage()]
    assert said == ["n asks for type.googleapis.com/nosuch, and there is none here"]


async def test_too_many_names_end_their_stream(channel: grpc.aio.Channel) -> None:
    call = opened(channel)
    names = [str(number) for number in range(10_001)]
    await call.write(
        discovery_pb2.DiscoveryRequest(type_url=Kind.ROUTE, resource_names=names).SerializeToString()
    )
    async with asyncio.timeout(PATIENCE_S):
        assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await serves(channel)


async def test_many_streams_vanish_and_the_others_are_told(channel: grpc.aio.Channel, plane: Plane) -> None:
    calls = [opened(channel, METHODS[number % 2]) for number in range(60)]
    for number, call in enumerate(calls):
        if number % 2 == 0:
            await call.write(request())
            await next_reply(call)
    staying = calls[:20:2]
    for call in calls:
        if call not in staying:
            call.cancel()
    plane.put("web", announced(2))
    assert {(await next_reply(call)).nonce for call in staying} == {"2"}


async def test_a_client_that_reads_nothing_is_told_of_the_latest_only(
    channel: grpc.aio.Channel, plane: Plane
) -> None:
    call = opened(channel)
    await call.write(request())
    await next_reply(call)
    for port in range(2, 1000):
        plane.put("web", announced(port))  # all in one turn of the loop
    reply = await next_reply(call)
    assert reply.nonce == "2"
    assert b"10.0.0.1" in reply.resources[0].value
    plane.put("web", announced(999))  # nothing new, and nothing said
    plane.put("web", announced(1000))
    await asyncio.sleep(0)
    assert (await next_reply(call)).nonce == "3"


async def test_clients_may_ping_while_nothing_is_sent(address: str) -> None:
    """In frames of HTTP/2, of which gRPC's own client sends no pings this soon after one another."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))
    acknowledged, kind = 0, PING
    try:
        async with asyncio.timeout(PATIENCE_S):
            while acknowledged < 6:  # three too many are enough for gRPC to end a connection
                if kind == PING:
                    await asyncio.sleep(0.25)  # Envoys wait 10 s
                    writer.write(frame(PING, bytes(8)))
                head = await reader.readexactly(9)
                kind = head[3]
                await reader.readexactly(int.from_bytes(head[:3]))
                assert kind != GOAWAY
                acknowledged += kind == PING
    finally:
        writer.close()


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Of no stream, without flags."""
    return len(payload).to_bytes(3) + bytes((kind, 0, 0, 0, 0, 0)) + payload


async def test_a_refusal_is_said_once_for_all_that_refuse_the_same(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        call = opened(channel)
        await call.write(request())
        reply = await next_reply(call)
        refusal = discovery_pb2.DiscoveryRequest(
            type_url=Kind.ENDPOINTS, resource_names=["web"], response_nonce=reply.nonce
        )
        refusal.error_detail.message = "no good"
        await call.write(refusal.SerializeToString())
        await call.write(request(Kind.ROUTE))
        await next_reply(call)  # what was before it has been read
    said = [one.getMessage() for one in caplog.records if "refused" in one.getMessage()]
    expected = (
        "n refused endpoints web: no good; it goes on with what it had, and gets the next version in 1 s"
    )
    assert said == [f"{expected} at the earliest"]
