"""kvctl announce as the first process of a container."""

from __future__ import annotations

import asyncio

from kvstore.demo.processes import free_ports
from tests.containers.engine import Engine
from tests.containers.test_labels import docker, until_announced
from tests.routing.programs import Bench, until

# Leaves an orphan behind that soon ends, and says when it is told to stop.
COMMAND = "trap 'echo stopping; exit 3' TERM; (sleep 0.2 &); echo running; while :; do sleep 0.05; done"


async def start(own: Bench, engine: Engine, port: int, *options: str) -> None:
    words = ["run", "--detach", "--name=wrapped", "--network=host", f"--env=KVCTL_ENDPOINTS={own.endpoint}"]
    words += ["kvstore", "kvctl", "announce", own.service, f"--address=:{port}", "--check=none", *options]
    await docker(engine, *words, "--", "sh", "-c", COMMAND)
    await until_announced(own, **{f"p{port}": "ready"})


async def test_it_is_withdrawn_and_then_stopped_and_its_status_is_the_commands(
    own: Bench, cleared: Engine
) -> None:
    port = free_ports(1)[0]
    await start(own, cleared, port)

    async def no_zombies() -> bool:
        processes = await docker(cleared, "exec", "wrapped", "sh", "-c", "cat /proc/[0-9]*/stat")
        return " Z " not in processes

    assert await docker(cleared, "exec", "wrapped", "cat", "/proc/1/comm") == "kvctl"
    await until("orphans are reaped", no_zombies)
    await docker(cleared, "stop", "wrapped")
    await until_announced(own)
    assert await docker(cleared, "inspect", "--format", "{{.State.ExitCode}}", "wrapped") == "3"
    done = await asyncio.to_thread(cleared.tried, "logs", "wrapped")
    assert done.stdout.split() == ["running", "stopping"]
    assert "SIGTERM received: withdrawing" in done.stderr
    assert "withdrawn" in done.stderr


async def test_a_container_that_is_killed_is_withdrawn_without_waiting_for_its_ttl(
    own: Bench, cleared: Engine
) -> None:
    port = free_ports(1)[0]
    await start(own, cleared, port, "--ttl=600s", "--grace=200ms")
    await docker(cleared, "kill", "wrapped")
    await until_announced(own)
    assert await docker(cleared, "inspect", "--format", "{{.State.ExitCode}}", "wrapped") == "137"
