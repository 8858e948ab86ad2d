"""Real HAProxy with traffic on it, while everything behind it is replaced: slots and added servers alike."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.client.compare import Op
from kvstore.readiness.instance import encode
from tests.routing.programs import Bench, Haproxy, Store, bench, started_store, until
from tests.routing.webs import Web, fleet, many_asking


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Ours own: what is tested here is HAProxy."""
    yield from started_store("kvstore", tmp_path_factory.mktemp("kvstore"))


async def start_route(own: Bench, folder: Path, slots: int) -> Haproxy:
    servers = f"server-template kv 1-{slots} 0.0.0.0:0 disabled" if slots else ""
    haproxy = Haproxy(folder, own.programs, servers)
    await haproxy.start()
    words = ["route", "haproxy", f"--service={own.service}", f"--socket={haproxy.socket}", "--backend=web"]
    await own.kvctl("route", *words)
    return haproxy


async def switch(client: Client, old: Web | None, new: Web) -> None:
    """In one revision."""
    gone = [Op.delete(old.instance.key)] if old is not None else []
    await client.txn((), [Op.put(new.instance.key, encode(new.instance)), *gone])


@pytest.mark.parametrize("slots", [0, 2])
async def test_after_a_switch_no_client_hears_from_the_old_instance(
    own: Bench, tmp_path: Path, slots: int
) -> None:
    """The old instances run on and would answer: only HAProxy keeps their answers away."""
    haproxy = await start_route(own, tmp_path, slots)
    webs = [await Web(own.service, f"w{number}").start() for number in range(4)]
    try:
        async with Client(own.endpoint) as client, many_asking(haproxy.url, 6) as clients:
            old = None
            for number in range(12):
                new = webs[number % len(webs)]
                await switch(client, old, new)
                for one in clients:
                    await one.only(new.instance.id)
                    one.names.clear()
                    one.failures.clear()
                for one in clients:
                    await one.only(new.instance.id, count=6)
                heard = {name for one in clients for name in one.names}
                assert heard == {new.instance.id}, f"switch {number}: {heard}"
                assert [one.failures for one in clients if one.failures] == []
                old = new
            await client.delete(new.instance.key)
    finally:
        await asyncio.gather(*(web.stop() for web in webs))
    used = {name for name in await haproxy.servers() if not name.startswith("kv:")}
    assert len(used) == slots


@pytest.mark.parametrize("slots", [0, 22])
async def test_twenty_instances_are_replaced_and_the_store_dies_and_no_request_fails(
    tmp_path: Path, slots: int
) -> None:
    with contextmanager(started_store)("kvstore", tmp_path) as store:
        async with bench("web", store.endpoint) as own:
            haproxy = await start_route(own, tmp_path, slots)
            async with fleet(own.service, store.endpoint) as running, many_asking(haproxy.url, 4) as clients:
                for number in range(20):
                    await running.announce(f"a{number}")
                await clients[0].only(*running.running, count=80)
                for one in clients:
                    one.failures.clear()
                for number in range(20):
                    await running.announce(f"b{number}")
                    await running.replace(f"a{number}")
                for one in clients:
                    await one.only(*running.running, count=80)
                await asyncio.to_thread(store.kill)
                count = min(len(one.names) for one in clients)

                async def goes_on() -> bool:
                    return min(len(one.names) for one in clients) > count + 100

                await until("requests are answered without a store", goes_on)
                await asyncio.to_thread(store.start)
                await running.announce("c")
                await running.replace("b0")
                for one in clients:
                    await one.only(*running.running, count=80)
                assert [one.failures for one in clients if one.failures] == []


async def test_the_slots_run_out_and_come_back(own: Bench, tmp_path: Path) -> None:
    haproxy = await start_route(own, tmp_path, slots=2)
    async with fleet(own.service, own.endpoint) as running, many_asking(haproxy.url, 1) as clients:
        for name in "abc":
            await running.announce(name)
            await clients[0].only(*running.running)
        (added,) = [name for name in await haproxy.servers() if name.startswith("kv:")]
        assert added == f"kv:{running.running['c'].web.instance.address}"
        await running.replace("a")
        await clients[0].only(*"bc")
        await running.announce("d")
        await clients[0].only(*"bcd")
        assert set(await haproxy.servers()) == {"kv1", "kv2", added}
        await running.replace("c")

        async def deleted() -> bool:
            return set(await haproxy.servers()) == {"kv1", "kv2"}

        await until("what was added is deleted", deleted)


async def test_a_slot_that_takes_no_address_is_told_and_a_server_added(own: Bench, tmp_path: Path) -> None:
    haproxy = Haproxy(tmp_path, own.programs, f"server slot1 unix@{tmp_path}/nobody disabled")
    await haproxy.start()
    words = [f"--service={own.service}", f"--socket={haproxy.socket}", "--backend=web", "--slots=slot"]
    router = await own.kvctl("route", "route", "haproxy", *words)
    async with fleet(own.service, own.endpoint) as running, many_asking(haproxy.url, 1) as clients:
        await running.announce("a")
        await clients[0].only("a")
    await router.wait_line("HAProxy refused 'set server web/slot1 addr .*address family is only supported")
