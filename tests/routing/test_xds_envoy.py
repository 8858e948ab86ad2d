"""Real Envoy, with nothing but a bootstrap file: what is announced gets traffic, and nothing takes it down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kvstore.demo.processes import free_ports
from tests.certificates import Authority
from tests.routing.programs import Bench, Store, asking, bench, started_store, until
from tests.routing.xds_programs import Envoy, GrpcClient, Stage, asked, staged


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from started_store("kvstore", tmp_path_factory.mktemp("store"))


@pytest.fixture
async def stage(own: Bench, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(own, tmp_path) as made:
        yield made


@pytest.fixture
def envoy(stage: Stage) -> Envoy:
    return Envoy(stage)


def door() -> tuple[str, str]:
    """An address for a listener, and its URL."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    return address, f"http://{address}/"


@pytest.mark.parametrize("variant", ["state of the world", "incremental"])
async def test_announced_gets_traffic_drained_nothing_new_and_killed_none(
    stage: Stage, envoy: Envoy, variant: str
) -> None:
    own = stage.own
    address, url = door()
    route, server = await stage.route(f"--envoy-listener={own.service}={address}")
    await envoy.start(server, "--node-id=e1", *(["--delta"] if variant == "incremental" else []))
    await route.wait_line(f"e1 \\(envoy 1\\..*\\) is connected, {variant}")
    async with asking(url) as answers:
        await answers.failing_with("503 no healthy upstream")
        await own.announce("a")
        await answers.only("a")
        await own.announce("b")
        await answers.only("a", "b")
        answers.failures.clear()
        await (await own.kvctl("drain", "drain", f"{own.service}/b")).wait_line("drains, until")
        await answers.only("a")
        await (await own.kvctl("undo", "drain", f"{own.service}/b", "--undo")).wait_line("traffic again")
        await answers.only("a", "b")
        own.kill_web("a")
        await answers.only("b")
        assert answers.failures == []
        own.kill_web("b")
        await answers.failing_with("503 no healthy upstream")


async def test_weights_and_what_an_instance_has_in_hand_when_it_drains(stage: Stage, envoy: Envoy) -> None:
    address, url = door()
    _, server = await stage.route(f"--envoy-listener={stage.own.service}={address}")
    a = await stage.backend("a", weight=30)
    b = await stage.backend("b", weight=10)
    c = await stage.backend("c", weight=0)
    await envoy.start(server)
    async with asking(url) as answers:
        await answers.only("a", "b", count=24)
    shares = await asked(url, 400)
    assert set(shares) == {"a", "b"}
    assert 290 <= shares["a"] <= 310, shares
    assert c.answered == 0

    async def one() -> str:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return (await answer.text()).strip()

    async def holds_one() -> bool:
        return a.held > 0

    a.is_holding = True
    waiting = [asyncio.ensure_future(one()) for _ in range(8)]
    await until("a has a request in hand", holds_one)
    await stage.drain("a")

    async def drains() -> bool:
        flags = await envoy.flags()
        return "eds" in flags.get(a.port, "") and flags.get(b.port) == "healthy"

    await until("Envoy knows that a drains", drains)
    assert set(await asked(url, 20)) == {"b"}
    a.release()
    assert "a" in await asyncio.gather(*waiting)


def own_listener(address: str, service: str) -> dict[str, Any]:
    """What somebody writes who wants more of a listener than kvctl's have."""
    host, _, port = address.partition(":")
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "own",
        "rds": {"route_config_name": service, "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    return {
        "name": "own",
        "address": {"socket_address": {"address": host, "port_value": int(port)}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


async def test_several_services_host_names_plain_tcp_and_a_listener_of_its_own(
    stage: Stage, envoy: Envoy
) -> None:
    (web, web_url), (api, api_url), (raw, raw_url), (own, own_url) = door(), door(), door(), door()
    doors = [
        f"--envoy-listener=web={web}",
        f"--envoy-listener=api={api}",
        f"--envoy-listener=raw=tcp://{raw}",
    ]
    services = ["--service=web", "--service=api", "--service=raw"]
    _, server = await stage.route(*services, *doors)
    await stage.backend("w", service="web", host="localhost")
    await stage.backend("i", service="api")
    await stage.backend("r", service="raw")
    await envoy.start(server, listener=own_listener(own, "api"))
    for url, name in ((web_url, "w"), (api_url, "i"), (raw_url, "r"), (own_url, "i")):
        async with asking(url) as answers:
            await answers.only(name)


async def test_grpc_behind_envoy_is_spoken_to_in_http2(stage: Stage, envoy: Envoy) -> None:
    address, _ = door()
    _, server = await stage.route(f"--envoy-listener={stage.own.service}={address}")
    await stage.backend("a", protocol="grpc")
    await envoy.start(server)
    calls = await GrpcClient.start(stage, f"ipv4:{address}")
    await calls.only("a")


async def test_an_envoy_gets_the_instances_of_its_zone_and_others_when_there_is_none(
    stage: Stage, envoy: Envoy
) -> None:
    address, url = door()
    _, server = await stage.route("--prefer-zone", f"--envoy-listener={stage.own.service}={address}")
    await stage.backend("a", zone="za")
    await stage.backend("b", zone="zb")
    await envoy.start(server, "--zone=zb")
    async with asking(url) as answers:
        await answers.only("b")
        answers.failures.clear()
        await stage.withdraw("b")
        await answers.only("a")
        await stage.announce("b")
        await answers.only("b")
        assert answers.failures == []


async def test_what_envoy_refuses_is_said_and_takes_nothing_down(stage: Stage, envoy: Envoy) -> None:
    service = stage.own.service
    address, url = door()
    nowhere = "192.0.2.1:10000"  # of documentation: nobody has it
    doors = [f"--envoy-listener={service}={each}" for each in (address, nowhere)]
    route, server = await stage.route(*doors)
    await stage.backend("a")
    await envoy.start(server, "--node-id=e1")
    refusal = (
        rf"warning: e1 refused listener .*{service}@{nowhere}.*: .*cannot bind '{nowhere}'.*; it goes on"
    )
    await route.wait_line(refusal)
    async with asking(url) as answers:
        await answers.only("a")
        answers.failures.clear()
        await stage.backend("b")
        await answers.only("a", "b")
        await stage.withdraw("a")
        await answers.only("b")
        assert answers.failures == []
    assert await envoy.counter("listener_manager.lds.update_rejected") == 1
    assert sum("refused" in line for line in route.lines) == 1
    assert await route.stop() == 0


async def test_one_of_two_control_planes_is_enough(stage: Stage, envoy: Envoy) -> None:
    address, url = door()
    planes = [await stage.route(f"--envoy-listener={stage.own.service}={address}") for _ in range(2)]
    await stage.backend("a")
    await envoy.start(planes[0][1], f"--server={planes[1][1]}", "--node-id=e1")
    async with asking(url) as answers:
        await answers.only("a")
        answers.failures.clear()
        serving = next(plane for plane, _ in planes if any("is connected" in line for line in plane.lines))
        await serving.kill()
        await stage.backend("b")
        await answers.only("a", "b")
        assert answers.failures == []


async def test_over_tls_with_certificates_on_both_sides(stage: Stage, envoy: Envoy, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    ours, theirs = authority.issue("server"), authority.issue("envoy")
    address, url = door()
    door_flag = f"--envoy-listener={stage.own.service}={address}"
    _, server = await stage.route(door_flag, *ours.flags(), f"--client-ca-file={authority.cert}")
    await stage.backend("a")
    await envoy.start(server, f"--ca-file={authority.cert}", *theirs.flags())
    async with asking(url) as answers:
        await answers.only("a")


async def test_without_the_store_and_without_us_everything_goes_on(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    address, url = door()
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    store = Store("kvstore", tmp_path / "store")
    try:
        await asyncio.to_thread(store.start)
        async with bench("web", store.endpoint) as own, staged(own, tmp_path) as stage:
            await stage.backend("a")
            await stage.backend("b")
            flags = ["--service=web", f"--envoy-listener=web={address}"]
            route, server = await stage.route(*flags, listen=listen)
            envoy = Envoy(stage)
            await envoy.start(
                server, "--node-id=e1", "--delta"
            )  # state of the world: gRPC's test of that name
            async with asking(url) as answers:
                await answers.only("a", "b")
                answers.failures.clear()
                await asyncio.to_thread(store.kill)
                await answers.only("a", "b")
                await route.kill()
                await answers.only("a", "b")
                again, _ = await stage.route(*flags, listen=listen)
                await again.wait_line("nothing is known of web yet")
                await again.wait_line("e1 .* is connected")
                await answers.only("a", "b")
                await asyncio.to_thread(store.start)
                await stage.withdraw("a")
                await stage.backend("c")
                await answers.only("b", "c")
                assert answers.failures == []
    finally:
        store.kill()
