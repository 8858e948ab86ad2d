"""Probes against real servers on loopback, and what a check's text may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from kvstore.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from kvstore.readiness.probes import Answer, InvalidCheck, make_probe
from kvstore.readiness.process import Children

ADDRESS = "127.0.0.1:1"


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    async with Children() as made:
        yield made


async def ask(children: Children, check: str, address: str = ADDRESS, timeout_s: float = 5.0) -> Answer:
    probe = make_probe(check, address, timeout_s, children)
    try:
        return await probe.ask()
    finally:
        probe.close()


class HealthServer:
    """grpc.health.v1: SERVING for the server, and for what is in `services` what it says; `hang` answers nobody."""

    def __init__(self) -> None:
        self.services = {"": HealthCheckResponse.SERVING, "sick": HealthCheckResponse.NOT_SERVING}

    async def check(
        self,
        request: HealthCheckRequest,
        context: grpc.aio.ServicerContext[HealthCheckRequest, HealthCheckResponse],
    ) -> HealthCheckResponse:
        if request.service == "hang":
            await asyncio.sleep(60)
        if request.service not in self.services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=self.services[request.service])


@pytest.fixture
async def grpc_port() -> AsyncIterator[int]:
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        HealthServer().check,
        request_deserializer=HealthCheckRequest.FromString,
        response_serializer=HealthCheckResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


async def test_grpc_health(children: Children, grpc_port: int) -> None:
    address = f"127.0.0.1:{grpc_port}"
    assert await ask(children, "grpc", address) == Answer(True)
    assert await ask(children, f"grpc:{address}") == Answer(True)
    assert await ask(children, "grpc:/sick", address) == Answer(False, "gRPC health is NOT_SERVING")
    assert await ask(children, f"grpc:{address}/other") == Answer(
        False, "the health service does not know 'other'"
    )
    assert await ask(children, "grpc:/hang", address, timeout_s=0.2) == Answer(
        False, "no answer within 0.2 s"
    )
    assert await ask(children, "grpc") == Answer(False, "no connection")


async def test_a_file(children: Children, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    assert await ask(children, f"file:{path}") == Answer(False, f"{path} is not there")
    path.touch()
    assert await ask(children, f"file:{path}") == Answer(True)


async def test_a_command_that_hangs_is_cut_with_all_that_it_started(
    children: Children, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    check = f"cmd:sleep 60 & echo $! > {told}; wait"
    assert await ask(children, check, timeout_s=1.0) == Answer(False, "no answer within 1 s")
    async with asyncio.timeout(10):
        while _runs(int(told.read_text())):  # noqa: ASYNC110 - another process cannot set an event
            await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    """Not gone, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_who_accepts_and_says_nothing_is_cut(children: Children) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for check in ("/", "grpc"):
            assert await ask(children, check, address, 0.3) == Answer(False, "no answer within 0.3 s")
        assert await ask(children, "tcp", address) == Answer(True)


@pytest.mark.parametrize(
    "check",
    [
        "",
        "TCP",
        "tcp:host",
        "tcp:0.0.0.0:80",
        "grpc:host",
        "grpc:h:x/s",
        "file:",
        "cmd:",
        "cmd: ",
        "http://",
        "ftp://h",
    ],
)
async def test_a_text_that_is_no_check(check: str, children: Children) -> None:
    with pytest.raises(InvalidCheck, match="check "):
        make_probe(check, ADDRESS, 1.0, children)
