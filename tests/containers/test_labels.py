"""Containers that are announced by their labels: kvctl announce docker, beside a real engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import urllib.request
from collections.abc import AsyncIterator

from kvstore.client import Client
from kvstore.demo.processes import Program, free_ports
from kvstore.readiness.instance import decode, prefix
from tests.containers.engine import Engine
from tests.routing.programs import Bench, until

SERVER = ["kvstore", "python", "-m", "http.server", "--directory=/opt"]
WAIT_S = 30.0


@contextlib.asynccontextmanager
async def following(own: Bench, engine: Engine, *options: str) -> AsyncIterator[Program]:
    announcer = await own.kvctl("announcer", "announce", "docker", f"--engine={engine.url}", *options)
    await announcer.wait_line("the Docker engine runs")
    yield announcer
    assert await announcer.stop() == 0
    assert await announced(own) == {}


async def announced(own: Bench) -> dict[str, str]:
    """State by address."""
    async with Client(own.endpoint) as client:
        found = await client.get(prefix(own.service), prefix=True)
    instances = [decode(kv.key, kv.value) for kv in found.kvs]
    return {instance.address: instance.state.value for instance in instances}


async def until_announced(own: Bench, **states: str) -> None:
    """states: by address, with _ for its colon."""
    expected = {f"127.0.0.1:{name.removeprefix('p')}": state for name, state in states.items()}

    async def holds() -> bool:
        return await announced(own) == expected

    await until(f"the store holds {expected}", holds, WAIT_S)


async def run(engine: Engine, own: Bench, name: str, *options: str, command: list[str]) -> None:
    labels = [f"--label=kvstore.service={own.service}"]
    await asyncio.to_thread(
        engine.docker, "run", "--detach", f"--name={name}", "--no-healthcheck", *labels, *options, *command
    )


async def docker(engine: Engine, *words: str) -> str:
    return await asyncio.to_thread(engine.docker, *words)


def answers(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return bool(answer.status == 200)


async def test_published_ports_and_the_hosts_network(own: Bench, cleared: Engine) -> None:
    outside, inside = free_ports(2)
    await docker(cleared, "network", "create", "front")
    async with following(own, cleared) as announcer:
        published = ["--network=front", f"--publish=127.0.0.1:{outside}:8000", "--label=kvstore.port=8000"]
        await run(cleared, own, "published", *published, "--label=kvstore.check=/", command=SERVER)
        await until_announced(own, **{f"p{outside}": "ready"})
        assert await asyncio.to_thread(answers, outside)

        bad = ["--network=host", "--label=kvstore.port=http"]
        await run(cleared, own, "bad", *bad, command=["kvstore", "sleep", "60"])
        await announcer.wait_line("container bad is not announced: kvstore.port: 'http' is not a number")

        host = ["--network=host", f"--label=kvstore.port={inside}", "--label=kvstore.prot=x"]
        await run(cleared, own, "host", *host, command=[*SERVER, str(inside)])
        await until_announced(own, **{f"p{outside}": "ready", f"p{inside}": "ready"})
        await announcer.wait_line("container host: label kvstore.prot means nothing; kvstore.port?")

        await docker(cleared, "kill", "published")
        await until_announced(own, **{f"p{inside}": "ready"})
        await docker(cleared, "pause", "host")
        await until_announced(own)
        await docker(cleared, "unpause", "host")
        await until_announced(own, **{f"p{inside}": "ready"})


async def test_one_that_is_told_to_stop_is_withdrawn_while_it_still_runs(own: Bench, cleared: Engine) -> None:
    port = free_ports(1)[0]
    script = "trap 'test -e /tmp/go && exit 0' TERM; while :; do sleep 0.05; done"
    async with following(own, cleared):
        options = ["--network=host", f"--label=kvstore.port={port}"]
        await run(cleared, own, "slow", *options, command=["kvstore", "sh", "-c", script])
        await until_announced(own, **{f"p{port}": "ready"})
        await docker(cleared, "kill", "--signal=TERM", "slow")
        await until_announced(own)
        assert await docker(cleared, "inspect", "--format", "{{.State.Running}}", "slow") == "true"


async def test_the_engines_health_check_decides(own: Bench, cleared: Engine) -> None:
    port = free_ports(1)[0]
    options = ["--network=host", f"--label=kvstore.port={port}", f"--label=kvstore.service={own.service}"]
    options += ["--health-cmd=test -e /tmp/ok", "--health-interval=300ms", "--health-retries=1"]
    async with following(own, cleared, "--show-unready"):
        # Not within its grace at first, so that "starting" can be seen.
        options += ["--health-start-period=60s"]
        await docker(cleared, "run", "--detach", "--name=checked", *options, "kvstore", "sleep", "600")
        await until_announced(own, **{f"p{port}": "starting"})
        await docker(cleared, "exec", "checked", "touch", "/tmp/ok")
        await until_announced(own, **{f"p{port}": "ready"})
        await docker(cleared, "exec", "checked", "rm", "/tmp/ok")
        await until_announced(own, **{f"p{port}": "failed"})


async def test_the_engine_is_restarted(own: Bench, cleared: Engine) -> None:
    """What it runs goes on meanwhile and stays announced; what has ended by then is seen when it is back."""
    first, second = free_ports(2)
    async with following(own, cleared) as announcer:
        for name, port in (("one", first), ("two", second)):
            options = ["--network=host", f"--label=kvstore.port={port}"]
            await run(cleared, own, name, *options, command=[*SERVER, str(port)])
        await until_announced(own, **{f"p{first}": "ready", f"p{second}": "ready"})
        pid = int(await docker(cleared, "inspect", "--format", "{{.State.Pid}}", "two"))
        seen = len(announcer.lines)
        await asyncio.to_thread(cleared.stop)
        await announcer.wait_line("the Docker engine cannot be followed: .*; trying again", start=seen)
        assert len(await announced(own)) == 2
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(cleared.start)
        await announcer.wait_line("the Docker engine runs", timeout_s=WAIT_S, start=seen)
        await until_announced(own, **{f"p{first}": "ready"})
        assert await asyncio.to_thread(answers, first)
