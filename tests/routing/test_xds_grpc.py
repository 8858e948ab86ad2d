"""Real gRPC clients on xds:///SERVICE, without a proxy: they call who is ready, and nothing takes them down."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kvstore.demo.processes import free_ports
from tests.certificates import Authority
from tests.routing.programs import Bench, Store, bench, started_store, until
from tests.routing.xds_programs import GrpcClient, Stage, staged


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from started_store("kvstore", tmp_path_factory.mktemp("store"))


@pytest.fixture
async def stage(own: Bench, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(own, tmp_path) as made:
        yield made


async def test_announced_gets_calls_and_withdrawn_none_in_each_service(stage: Stage) -> None:
    _, server = await stage.route("--service=web", "--service=api")
    bootstrap = await stage.bootstrap("grpc", f"--server={server}")
    web = await GrpcClient.start(stage, "xds:///web", bootstrap)
    api = await GrpcClient.start(stage, "xds:///api", bootstrap)
    await web.program.wait_line("! UNAVAILABLE .*")
    await stage.backend("w1", service="web", protocol="grpc")
    await stage.backend("a1", service="api", protocol="grpc")
    await web.only("w1")
    await api.only("a1")
    await stage.backend("w2", service="web", protocol="grpc", zone="z")
    await web.only("w1", "w2")
    before = len(web.failures)
    await stage.withdraw("w1")
    await web.only("w2")
    await api.only("a1")
    assert len(web.failures) == before
    await stage.withdraw("w2")
    await web.program.wait_line("! UNAVAILABLE .*", start=len(web.program.lines))


async def test_weights_and_what_an_instance_has_in_hand_when_it_drains(stage: Stage) -> None:
    _, server = await stage.route()
    a = await stage.backend("a", protocol="grpc", weight=30)
    await stage.backend("b", protocol="grpc", weight=10)
    c = await stage.backend("c", protocol="grpc", weight=0)
    bootstrap = await stage.bootstrap("grpc", f"--server={server}")
    client = await GrpcClient.start(stage, f"xds:///{stage.own.service}", bootstrap)
    await client.only("a", "b", count=24)
    shares = await client.shares(400)
    assert set(shares) == {"a", "b"}
    assert 240 <= shares["a"] <= 350, shares  # localities are drawn at random
    assert c.answered == 0

    async def holds_one() -> bool:
        return a.held > 0

    a.is_holding = True
    await until("a has a call in hand", holds_one)  # and this client waits for its answer
    other = await GrpcClient.start(stage, f"xds:///{stage.own.service}", bootstrap)
    await stage.drain("a")
    await other.program.wait_line("^b$")
    held = a.held
    await other.only("b")
    a.release()
    await client.only("b")
    assert a.answered >= held
    assert client.failures == []


async def test_a_grpc_client_gets_the_instances_of_its_zone_and_others_when_there_is_none(
    stage: Stage,
) -> None:
    authority = Authority(stage.folder / "ca")
    ours, theirs = authority.issue("server"), authority.issue("client")
    _, server = await stage.route("--prefer-zone", *ours.flags(), f"--client-ca-file={authority.cert}")
    await stage.backend("a", protocol="grpc", zone="za")
    await stage.backend("b", protocol="grpc", zone="zb")
    dead = f"127.0.0.1:{free_ports(1)[0]}"
    flags = [
        f"--server={dead}",
        f"--server={server}",
        "--zone=zb",
        f"--ca-file={authority.cert}",
        *theirs.flags(),
    ]
    bootstrap = await stage.bootstrap("grpc", *flags)
    client = await GrpcClient.start(stage, f"xds:///{stage.own.service}", bootstrap)
    await client.only("b")
    await stage.withdraw("b")
    await client.only("a")
    await stage.announce("b")
    await client.only("b")
    assert client.failures == []


async def test_without_the_store_and_without_us_everything_goes_on(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    store = Store("kvstore", tmp_path / "store")
    try:
        await asyncio.to_thread(store.start)
        async with bench("web", store.endpoint) as own, staged(own, tmp_path) as stage:
            await stage.backend("a", protocol="grpc")
            await stage.backend("b", protocol="grpc")
            route, server = await stage.route(listen=listen)
            bootstrap = await stage.bootstrap("grpc", f"--server={server}", "--node-id=g1")
            client = await GrpcClient.start(stage, "xds:///web", bootstrap)
            await client.only("a", "b")
            await asyncio.to_thread(store.kill)
            await route.kill()
            await client.only("a", "b")
            again, _ = await stage.route(listen=listen)
            await again.wait_line("g1 .* is connected")
            await client.only("a", "b")
            await asyncio.to_thread(store.start)
            await stage.withdraw("a")
            await stage.backend("c", protocol="grpc")
            await client.only("b", "c")
            assert client.failures == []
    finally:
        store.kill()


async def test_an_address_that_is_taken_and_files_that_are_not_there_are_said(stage: Stage) -> None:
    words = ["route", "xds", "--service=web"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        first = await stage.own.kvctl("xds", *words, f"--listen={taken}")
        await first.wait_line(f"^Error: cannot listen on {taken}: Address already in use$")
    flags = ["--listen=127.0.0.1:0", "--cert-file=/no/such.pem", "--key-file=/no/such.key"]
    second = await stage.own.kvctl("xds", *words, *flags)
    await second.wait_line("^Error: /no/such.key: No such file or directory$")
