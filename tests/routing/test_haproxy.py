"""Real HAProxy, never reloaded: what is announced gets traffic, what dies stops getting it."""

from __future__ import annotations

from pathlib import Path

from kvstore.demo.processes import Program
from kvstore.routing.haproxy import ask
from tests.routing.programs import Bench, Haproxy, asking, until


async def route(own: Bench, haproxy: Haproxy, *options: str) -> Program:
    words = ["route", "haproxy", f"--service={own.service}", f"--socket={haproxy.socket}", "--backend=web"]
    return await own.kvctl("route", *words, *options)


async def test_announced_gets_traffic_and_killed_stops_getting_it(own: Bench, tmp_path: Path) -> None:
    haproxy = Haproxy(tmp_path, own.programs)
    await haproxy.start()
    before = await haproxy.info()
    await route(own, haproxy)
    async with asking(haproxy.url) as answers:
        await answers.failing()
        await own.announce("a")
        await answers.only("a")
        await own.announce("b")
        await answers.only("a", "b")
        answers.failures.clear()
        own.kill_web("a")
        await answers.only("b")
        assert answers.failures == []

    async def tidied() -> bool:
        return len(await haproxy.servers()) == 1

    await until("the dead server is deleted", tidied)
    after = await haproxy.info()
    assert after["Pid"] == before["Pid"]
    assert after["Stopping"] == "0"
    assert int(after["Uptime_sec"]) >= int(before["Uptime_sec"])


async def test_haproxy_that_starts_later_or_again_is_filled_again(own: Bench, tmp_path: Path) -> None:
    haproxy = Haproxy(tmp_path, own.programs)
    router = await route(own, haproxy)
    await router.wait_line(r"warning: .*h\.sock: No such file or directory; trying again")
    await own.announce("a")
    await own.announce("b")
    for _ in range(2):
        running = await haproxy.start()
        async with asking(haproxy.url) as answers:
            await answers.only("a", "b")
        await running.kill()


async def test_a_haproxy_that_is_gone_is_told_once_and_when_it_is_back(own: Bench, tmp_path: Path) -> None:
    haproxy = Haproxy(tmp_path, own.programs, "server-template kv 1-2 0.0.0.0:0 disabled")
    running = await haproxy.start()
    router = await route(own, haproxy)
    await own.announce("a")
    async with asking(haproxy.url) as answers:
        await answers.only("a")
        await running.kill()
        await router.wait_line(r"warning: .*h\.sock: Connection refused; trying again")
        b = await own.announce("b")
        await haproxy.start()
        await router.wait_line("HAProxy answers again after")
        await answers.only("a", "b")
        assert len([line for line in router.lines if "trying again" in line]) == 1
        await router.kill()
        await b.stop()
        await own.announce("c")
        answers.failures.clear()
        await route(own, haproxy)  # takes up from what HAProxy says of its slots
        await answers.only("a", "c")
        assert answers.failures == []


async def test_a_zone_is_routed_to_alone_while_it_has_anybody(own: Bench, tmp_path: Path) -> None:
    haproxy = Haproxy(tmp_path, own.programs)
    await haproxy.start()
    await own.announce("far")
    near = await own.announce("near", "--zone=z1")
    await route(own, haproxy, "--zone=z1")
    async with asking(haproxy.url) as answers:
        await answers.only("near")
        answers.failures.clear()
        await near.stop()
        await answers.only("far")
        assert answers.failures == []


async def test_a_router_that_starts_again_takes_up_from_haproxys_own_state(
    own: Bench, tmp_path: Path
) -> None:
    haproxy = Haproxy(tmp_path, own.programs)
    await haproxy.start()
    await ask(haproxy.socket, ["add server web/by-hand 127.0.0.1:1"])
    router = await route(own, haproxy)
    a = await own.announce("a")
    await own.announce("b")
    async with asking(haproxy.url) as answers:
        await answers.only("a", "b")
        await router.kill()
        assert await a.stop() == 128 + 15
        await route(own, haproxy)
        await answers.only("b")

    async def tidied() -> bool:
        servers = await haproxy.servers()
        return len(servers) == 2 and servers[0] == "by-hand"

    await until("the stale server is deleted and the one made by hand is left alone", tidied)


async def test_an_instance_that_returns_while_its_server_is_not_deleted_yet(
    own: Bench, tmp_path: Path
) -> None:
    haproxy = Haproxy(tmp_path, own.programs)
    await haproxy.start()
    await route(own, haproxy)
    port = int(haproxy.url.rpartition(":")[2].rstrip("/"))
    async with asking(haproxy.url) as answers:
        for _ in range(3):
            first = await own.announce("a", port=port + 1 if port < 65000 else port - 1)
            await answers.only("a")
            await first.stop()


async def test_what_haproxy_refuses_is_said(own: Bench, tmp_path: Path) -> None:
    haproxy = Haproxy(tmp_path, own.programs)
    await haproxy.start()
    words = ["route", "haproxy", f"--service={own.service}", f"--socket={haproxy.socket}"]
    router = await own.kvctl("route", *words, "--backend=nowhere")
    await router.wait_line(r"backend nowhere: HAProxy says: Can't find backend\.; trying again")
    router = await route(own, haproxy, "--server-options=nonsense")
    await own.announce("a")
    await router.wait_line("HAProxy refused 'add server web/kv:127.0.0.1:.*nonsense'")


async def test_an_instance_that_is_to_drain_gets_nothing_new_and_keeps_its_server(
    own: Bench, tmp_path: Path
) -> None:
    haproxy = Haproxy(tmp_path, own.programs)
    await haproxy.start()
    await own.announce("a")
    await own.announce("b")
    await route(own, haproxy)
    async with asking(haproxy.url) as answers:
        await answers.only("a", "b")
        answers.failures.clear()
        await (await own.kvctl("drain", "drain", f"{own.service}/b")).wait_line("drains, until")
        await answers.only("a")
        assert len(await haproxy.servers()) == 2
        await (await own.kvctl("undo", "drain", f"{own.service}/b", "--undo")).wait_line("traffic again")
        await answers.only("a", "b")
        assert answers.failures == []
