"""Instances that fail, and the end of the proxy itself: what its clients notice of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import aiohttp
import pytest
from aiohttp import web

from kvstore.routing.balance import Order
from kvstore.routing.builtin import Options
from kvstore.routing.ejection import Policy
from kvstore.routing.retry import Budget, Fault
from kvstore.routing.status import Status
from tests.routing.instances import Local, accepts_and_closes, head, named, proxying, raw_serving, serving
from tests.routing.programs import until

DEAD = "127.0.0.1:1"  # nobody listens there
LONG = Policy(after=3, first_s=60.0, longest_s=600.0)


async def ask(client: aiohttp.ClientSession, url: str, count: int, method: str = "GET") -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(count):
        async with client.request(method, url) as answer:
            text = (await answer.text()).strip()
            found[text if answer.status == 200 else str(answer.status)] += 1
    return found


def faults(local: Local, name: str) -> dict[Fault, int]:
    return local.proxy.upstreams.of(local.instances[name]).counts.faults


async def test_one_that_accepts_and_closes_at_once_is_noticed_by_nobody_and_ejected() -> None:
    async with (
        serving(named("a")) as good,
        raw_serving(accepts_and_closes) as bad,
        proxying(Options(ejection=LONG)) as local,
        aiohttp.ClientSession() as client,
    ):
        local.announce("a", good)
        local.announce("b", bad)
        assert await ask(client, local.url, 20) == {"a": 20}
        assert faults(local, "b")[Fault.BROKEN_OFF] == 3  # and then no more
        local.withdraw("b")
        local.announce("b", bad, since_ms=1)  # announced again: it starts afresh
        assert await ask(client, local.url, 20) == {"a": 20}
        assert faults(local, "b")[Fault.BROKEN_OFF] == 3


async def test_what_may_have_been_carried_out_is_not_sent_twice() -> None:
    async with (
        serving(named("a")) as good,
        raw_serving(accepts_and_closes) as bad,
        proxying(Options(ejection=LONG)) as local,
        aiohttp.ClientSession() as client,
    ):
        local.announce("a", good)
        local.announce("b", bad)
        assert await ask(client, local.url, 20, "POST") == {"a": 17, "502": 3}


async def test_one_that_takes_no_connection_is_asked_once_whatever_the_method() -> None:
    async with (
        serving(named("a")) as good,
        proxying(Options(ejection=LONG)) as local,
        aiohttp.ClientSession() as client,
    ):
        for name in "bcd":
            local.announce(name, DEAD)
        local.announce("a", good)
        assert await ask(client, local.url, 20, "POST") == {"a": 20}
        assert [faults(local, name)[Fault.NOT_CONNECTED] for name in "bcd"] == [1, 1, 1]
        local.withdraw("a")  # nobody is left that is well: all are asked, and say so themselves
        assert await ask(client, local.url, 1) == {"503": 1}
        assert [faults(local, name)[Fault.NOT_CONNECTED] for name in "bcd"] == [2, 2, 2]


async def test_gateway_errors_in_a_row_eject_up_to_the_share_and_it_comes_back_by_itself() -> None:
    is_well = False

    async def sick(_: web.BaseRequest) -> web.Response:
        return web.Response(text="b") if is_well else web.Response(status=503)

    policy = Policy(after=3, first_s=0.3, longest_s=0.3)
    async with (
        serving(named("a")) as good,
        serving(sick) as bad,
        proxying(Options(ejection=policy)) as local,
        aiohttp.ClientSession() as client,
    ):
        local.announce("b", bad)
        assert await ask(client, local.url, 5) == {"503": 5}  # it is the only one: asked all the same
        local.announce("a", good)
        found = await ask(client, local.url, 1)
        assert set(found) <= {"a", "503"}

        async def ejected() -> bool:
            await ask(client, local.url, 1)
            return local.proxy.balance.ejected_for("b", time.monotonic()) > 0

        await until("b is ejected", ejected)
        is_well = True

        async def back() -> bool:
            return await ask(client, local.url, 2) == {"a": 1, "b": 1}

        await until("b is back", back)


async def test_without_budget_a_fault_is_the_clients() -> None:
    options = Options(ejection=Policy(after=0), budget=Budget(share=0.0, per_s=0.2))
    async with (
        serving(named("a")) as good,
        raw_serving(accepts_and_closes) as bad,
        proxying(options) as local,
        aiohttp.ClientSession() as client,
    ):
        local.announce("a", good)
        local.announce("b", bad)
        assert await ask(client, local.url, 20) == {"a": 12, "502": 8}  # two of ten faults were made good
        assert (local.proxy.budget.spent_count, local.proxy.budget.refused_count) == (2, 8)


async def test_an_answer_that_breaks_off_in_the_middle_is_never_taken_for_a_whole_one() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)  # so that the head is there before the end

    async with raw_serving(half) as address, proxying() as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        async with client.get(local.url) as answer:
            with pytest.raises(aiohttp.ClientError):
                await answer.read()


async def test_least_requests_keeps_away_from_the_slow() -> None:
    may_end = asyncio.Event()

    async def slow(_: web.BaseRequest) -> web.Response:
        await may_end.wait()
        return web.Response(text="slow")

    async with (
        serving(slow) as first,
        serving(named("b")) as second,
        proxying(Options(order=Order.LEAST_REQUESTS)) as local,
        aiohttp.ClientSession() as client,
    ):
        local.announce("a", first)
        waiting = asyncio.ensure_future(ask(client, local.url, 1))

        async def busy() -> bool:
            return len(local.proxy.busy) == 1

        await until("one request is with the slow one", busy)
        local.announce("b", second)
        assert await ask(client, local.url, 10) == {"b": 10}
        may_end.set()
        assert await waiting == {"slow": 1}


async def test_one_that_drains_finishes_what_it_has() -> None:
    may_end = asyncio.Event()

    async def slow(_: web.BaseRequest) -> web.Response:
        await may_end.wait()
        return web.Response(text="slow")

    async with serving(slow) as address, proxying() as local, aiohttp.ClientSession() as client:
        local.announce("a", address)
        waiting = asyncio.ensure_future(ask(client, local.url, 1))

        async def busy() -> bool:
            return len(local.proxy.busy) == 1

        await until("the request is there", busy)
        local.drain("a")
        assert await ask(client, local.url, 1) == {"503": 1}
        local.withdraw("a")
        may_end.set()
        assert await waiting == {"slow": 1}


async def test_a_stop_finishes_what_is_on_its_way_and_closes_what_is_idle() -> None:
    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path != "/slow":
            return web.Response(text="fast")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun, ")
        await response.write(await request.read())
        return response

    async with serving(slow) as address, proxying(stop_timeout_s=30.0, linger_s=1.0) as local:
        local.announce("a", address)
        idle, idle_writer = await local.connect()
        last, last_writer = await local.connect()
        busy, busy_writer = await local.connect()
        busy_writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        await head(busy)
        for reader, writer in ((idle, idle_writer), (last, last_writer)):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"Connection: close" not in await head(reader)
            assert await reader.readexactly(4) == b"fast"
        stopping = asyncio.ensure_future(local.listener.stop())

        async def stops() -> bool:
            return local.proxy.is_stopping

        await until("it stops", stops)
        last_writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # one more was on its way already
        assert b"Connection: close" in await head(last)
        assert await last.read() == b"fast"
        assert await idle.read() == b""
        with pytest.raises(OSError):
            await local.connect()
        assert not stopping.done()
        busy_writer.write(b"4\r\ndone\r\n0\r\n\r\n")
        assert (await asyncio.wait_for(busy.read(), 10)).endswith(b"begun, \r\n4\r\ndone\r\n0\r\n\r\n")
        await asyncio.wait_for(stopping, 10)
        for writer in (idle_writer, last_writer, busy_writer):
            writer.close()


async def test_at_the_limit_of_a_stop_what_is_left_is_cut() -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun, ")
        await asyncio.Event().wait()
        return response

    async with serving(endless) as address, proxying(stop_timeout_s=0.3) as local:
        local.announce("a", address)
        reader, writer = await local.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await head(reader)
        await asyncio.wait_for(local.listener.stop(), 10)
        assert not (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()


async def test_the_status_page() -> None:
    async with (
        serving(named("a")) as good,
        proxying(Options(ejection=LONG)) as local,
        aiohttp.ClientSession() as client,
    ):
        status = Status(local.proxy, "127.0.0.1", 0)
        await status.start()
        try:
            url = f"http://{status.address}"
            async with client.get(f"{url}/ready") as answer:
                assert answer.status == 503
            local.announce("a", good, zone="eu-1")
            local.announce("b", DEAD)
            await ask(client, local.url, 4)
            async with client.get(f"{url}/ready") as answer:
                assert answer.status == 200
            async with client.get(f"{url}/") as answer:
                shown = await answer.json()
            a, b = shown.pop("instances")
            assert shown == {
                "service": "web",
                "stopping": False,
                "requests": 4,
                "in_flight": 0,
                "retries": {"made": 1, "refused": 0},
            }
            assert 0 < b.pop("ejected_s") <= 60
            common = {"state": "ready", "weight": 100, "in_flight": 0, "websockets": 0}
            assert a == {
                **common,
                "instance": "a",
                "address": good,
                "zone": "eu-1",
                "ejected_s": 0,
                "answers": {"2xx": 4},
                "faults": {},
            }
            assert b == {
                **common,
                "instance": "b",
                "address": DEAD,
                "zone": "",
                "answers": {},
                "faults": {"not connected": 1},
            }
            async with client.get(f"{url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            assert 'kvstore_route_answers_total{class="2xx",instance="a",service="web"} 4.0' in lines
            assert 'kvstore_route_faults_total{fault="not connected",instance="b",service="web"} 1.0' in lines
            assert 'kvstore_route_ejected{instance="b",service="web"} 1.0' in lines
            assert 'kvstore_route_retries_total{service="web"} 1.0' in lines
        finally:
            await status.stop()
