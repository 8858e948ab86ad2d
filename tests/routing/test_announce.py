"""kvctl announce with a real store: what is in the store, and when."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from kvstore.client import Client
from kvstore.demo.processes import free_ports
from kvstore.readiness.instance import Instance, decode, prefix
from tests.routing.programs import Bench, Store, until


async def stored(own: Bench) -> dict[str, Instance]:
    async with Client(own.endpoint) as client:
        found = await client.get(prefix(own.service), prefix=True)
    instances = [decode(kv.key, kv.value) for kv in found.kvs]
    return {instance.id: instance for instance in instances}


async def until_stored(own: Bench, *names: str, timeout_s: float = 10.0) -> None:
    async def holds() -> bool:
        return set(await stored(own)) == set(names)

    await until(f"the store holds {names}", holds, timeout_s)


async def test_what_is_stored_is_what_was_said(own: Bench) -> None:
    port = free_ports(1)[0]
    options = ["--weight=7", "--zone=z1", "--tag=blue", "--tag=fast", "--protocol=h2c", "--check=none"]
    announcer = await own.kvctl("a", "announce", own.service, f"--address=:{port}", *options)
    await announcer.wait_line("announced ")
    (found,) = (await stored(own)).values()
    assert found.id == found.address == f"127.0.0.1:{port}"  # the store is reached over loopback
    assert (found.weight, found.zone, found.tags, found.protocol) == (7, "z1", ("blue", "fast"), "h2c")
    assert found.since_ms > 1_700_000_000_000
    assert await announcer.stop() == 0
    assert await stored(own) == {}


async def test_a_failing_check_withdraws_and_a_good_one_announces_again(own: Bench) -> None:
    await own.announce("a", "--fall=2", "--timeout=200ms")
    os.kill(own.webs["a"], signal.SIGSTOP)  # accepts connections still, answers nobody
    await until_stored(own)
    os.kill(own.webs["a"], signal.SIGCONT)
    await until_stored(own, "a")


async def test_the_exit_status_is_passed_on_and_the_instance_gone_by_then(own: Bench) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(0.1); raise SystemExit(7)"]
    words = ["announce", own.service, "--address=:1", "--check=none", "--", *command]
    announcer = await own.kvctl("a", *words)
    assert await announcer.ended() == 7
    assert await stored(own) == {}


async def test_a_signal_withdraws_before_the_command_is_stopped(own: Bench) -> None:
    script = "trap 'echo stopping; exit 3' TERM; echo running; while :; do sleep 0.01; done"
    words = ["announce", own.service, "--address=:1", "--check=none", "--", "sh", "-c", script]
    announcer = await own.kvctl("a", *words)
    await announcer.wait_line("announced ")
    announcer.signal(signal.SIGTERM)
    assert await announcer.ended() == 3
    told = [line for line in announcer.lines if line.endswith("withdrawn") or line == "stopping"]
    assert told[0].endswith("withdrawn")
    assert told[1] == "stopping"


async def test_other_signals_are_passed_on(own: Bench) -> None:
    script = "trap 'echo got HUP; exit 0' HUP; echo running; while :; do sleep 0.01; done"
    announcer = await own.kvctl("a", "announce", own.service, "--address=:1", "--", "sh", "-c", script)
    await announcer.wait_line("^running")
    announcer.signal(signal.SIGHUP)
    await announcer.wait_line("^got HUP")
    assert await announcer.ended() == 0


async def test_an_announcer_that_is_killed_is_forgotten(own: Bench, store: Store) -> None:
    """By our own store after its grace; etcd has no such call, and there it takes the TTL."""
    announcer = await own.announce("a", "--ttl=60s" if store.is_ours else "--ttl=1s", "--grace=300ms")
    await announcer.kill()
    await until_stored(own, timeout_s=8.0)


async def test_a_lost_lease_is_replaced_and_the_instance_announced_again(own: Bench) -> None:
    announcer = await own.announce("a", "--ttl=1s")
    async with Client(own.endpoint) as client:
        (kv,) = (await client.get(prefix(own.service), prefix=True)).kvs
        await client.lease_revoke(kv.lease)
    await until_stored(own, "a")
    await announcer.wait_line("the lease is lost; announcing again")


NOTIFIER = """
import os, socket, sys, time
def say(text, *descriptors):
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect(os.environ["NOTIFY_SOCKET"])
    socket.send_fds(sender, [text.encode()], descriptors)
print(os.environ["WATCHDOG_USEC"], flush=True)
say("STATUS=warming up")
for line in open(sys.argv[1]):
    if line.strip() == "BARRIER=1":
        mine, theirs = os.pipe()
        say(line, theirs)
        os.close(theirs)
        print("barrier passed" if os.read(mine, 1) == b"" else "?", flush=True)
    else:
        say(line)
"""


async def test_a_command_that_notifies_is_ready_when_it_says_so(own: Bench, tmp_path: Path) -> None:
    path = tmp_path / "orders"
    os.mkfifo(path)
    orders = os.open(path, os.O_RDWR)

    def order(text: str) -> None:
        os.write(orders, f"{text}\n".encode())

    words = ["announce", own.service, "--address=:1", "--id=a", "--check=notify", "--watchdog=1s", "--"]
    announcer = await own.kvctl("a", *words, sys.executable, "-c", NOTIFIER, str(path))
    await announcer.wait_line("^1000000$")
    await announcer.wait_line("status: warming up")
    assert await stored(own) == {}
    order("READY=1")
    await until_stored(own, "a")
    order("STOPPING=1")
    await announcer.wait_line("the command said STOPPING=1: withdrawing")
    await until_stored(own)
    order("READY=1")
    await announcer.wait_line("no WATCHDOG=1 for 1 s: withdrawing")
    await until_stored(own)
    order("WATCHDOG=1")
    await until_stored(own, "a")
    order("BARRIER=1")
    await announcer.wait_line("barrier passed")
    assert await announcer.stop() == 128 + 15
    os.close(orders)


async def test_notify_is_for_a_command(own: Bench) -> None:
    announcer = await own.kvctl("a", "announce", own.service, "--address=:1", "--check=notify")
    await announcer.wait_line("check 'notify' is for a command that is given after --")
    assert await announcer.ended() != 0
