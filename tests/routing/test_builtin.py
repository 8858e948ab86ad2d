"""The whole path with the builtin proxy: announced, routed, killed, replaced, and the store gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.routing.programs import Bench, Store, asking, bench, started_store


@pytest.fixture(params=["kvstore", "etcd"])
def store_of_one_test(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from started_store(request.param, tmp_path)


async def test_announced_is_routed_to_and_killed_is_not(own: Bench) -> None:
    async with asking(await own.builtin()) as answers:
        await answers.failing_with(f"503 kvstore: no instance of {own.service} is ready")
        await own.announce("a")
        await answers.only("a")
        await own.announce("b")
        await answers.only("a", "b")
        answers.failures.clear()
        own.kill_web("a")
        await answers.only("b")
        assert answers.failures == []
        own.kill_web("b")  # the last one: nothing is kept that is known to be gone
        await answers.failing_with(f"503 kvstore: no instance of {own.service} is ready")


async def test_a_rolling_replacement_fails_no_request(own: Bench) -> None:
    running = [await own.announce("a0"), await own.announce("b0")]
    async with asking(await own.builtin()) as answers:
        await answers.only("a0", "b0")
        for number, old in enumerate(running):
            name = "ab"[number] + "1"
            await own.announce(name)
            assert await old.stop() == 128 + 15
        await answers.only("a1", "b1")
        assert answers.failures == []


async def test_without_the_store_everything_goes_on_and_then_is_brought_up_to_date(
    store_of_one_test: Store,
) -> None:
    store = store_of_one_test
    async with bench("web", store.endpoint) as own:
        await own.announce("a")
        await own.announce("b")
        async with asking(await own.builtin()) as answers:
            await answers.only("a", "b")
            await asyncio.to_thread(store.kill)
            count = len(answers.names)
            c = await own.start_announce("c")
            await c.wait_line("the store cannot be reached: .*; trying again until it does")
            own.kill_web("a")  # nobody can be told: the proxy finds out by itself
            await answers.only("b")
            assert len(answers.names) > count
            await asyncio.to_thread(store.start)
            await answers.only("b", "c")
            assert answers.failures == []


async def test_an_instance_that_is_to_drain_gets_nothing_new_until_that_is_taken_back(own: Bench) -> None:
    await own.announce("a")
    await own.announce("b")
    name = f"{own.service}/b"
    async with asking(await own.builtin()) as answers:
        await answers.only("a", "b")
        drain = await own.kvctl("drain", "drain", name)
        await drain.wait_line(f"{name}: drains, until: kvctl drain {name} --undo")
        await answers.only("a")
        services = await own.kvctl("services", "services", "list", own.service, "-w", "json")
        listed = json.loads((await services.wait_line(r"(\[.*)"))[1])
        assert [(one["instance"], one["state"]) for one in listed] == [("a", "ready"), ("b", "draining")]
        undo = await own.kvctl("undo", "drain", name, "--undo")
        await undo.wait_line(f"{name}: traffic again")
        await answers.only("a", "b")
        assert answers.failures == []
