"""What kvctl announce --traefik stores, and for how long, on our store and on etcd."""

from __future__ import annotations

import os
import signal

import pytest

from kvstore.client import Client
from kvstore.demo.processes import free_ports
from tests.routing.programs import Bench, until

ROOT = "traefik/http"


async def keys(own: Bench) -> dict[str, tuple[str, bool]]:
    """What is stored for Traefik of the test's service, and whether it hangs on a lease."""
    found = {}
    async with Client(own.endpoint) as client:
        for part in ("routers", "services"):
            prefix = f"{ROOT}/{part}/{own.service}/"
            for kv in (await client.get(prefix, prefix=True)).kvs:
                found[kv.key.decode().removeprefix(f"{ROOT}/")] = (kv.value.decode(), bool(kv.lease))
    return found


def shared(service: str, rule: str, *entrypoints: str) -> dict[str, tuple[str, bool]]:
    router = f"routers/{service}"
    made = {
        f"services/{service}/loadbalancer/passhostheader": ("true", False),
        f"{router}/rule": (rule, False),
        f"{router}/service": (service, False),
    }
    return made | {f"{router}/entrypoints/{n}": (name, False) for n, name in enumerate(entrypoints)}


def server(own: Bench, name: str, address: str, weight: int = 100) -> dict[str, tuple[str, bool]]:
    at = f"services/{own.service}/loadbalancer/servers/{name}"
    return {f"{at}/url": (f"http://{address}", True), f"{at}/weight": (str(weight), True)}


async def until_keys(own: Bench, expected: dict[str, tuple[str, bool]]) -> None:
    async def holds() -> bool:
        return await keys(own) == expected

    await until(f"the keys for Traefik are {expected}", holds)


async def test_the_keys_of_an_instance_come_and_go_with_it(own: Bench) -> None:
    first, second = free_ports(2)
    all_of_them = shared(own.service, "Host(`w`)")
    quick = ["--traefik=Host(`w`)", "--fall=1", "--timeout=200ms"]
    a = await own.announce("a", *quick, port=first)
    await until_keys(own, all_of_them | server(own, "a", f"127.0.0.1:{first}"))
    await own.announce("b", "--traefik=Host(`w`)", "--weight=7", port=second)
    of_b = server(own, "b", f"127.0.0.1:{second}", 7)
    await until_keys(own, all_of_them | server(own, "a", f"127.0.0.1:{first}") | of_b)
    os.kill(own.webs["a"], signal.SIGSTOP)  # it is not ready any more
    await until_keys(own, all_of_them | of_b)
    os.kill(own.webs["a"], signal.SIGCONT)
    await until_keys(own, all_of_them | server(own, "a", f"127.0.0.1:{first}") | of_b)
    await a.stop()
    assert await keys(own) == all_of_them | of_b, "gone when it is withdrawn, not later"
    own.kill_web("b")
    await until_keys(own, all_of_them)


async def test_a_lost_lease_and_a_killed_announcer(own: Bench) -> None:
    port = free_ports(1)[0]
    expected = shared(own.service, "Host(`w`)") | server(own, "a", f"127.0.0.1:{port}")
    announcer = await own.announce("a", "--traefik=Host(`w`)", "--ttl=1s", "--grace=300ms", port=port)
    await until_keys(own, expected)
    async with Client(own.endpoint) as client:
        at = f"{ROOT}/services/{own.service}/loadbalancer/servers/a/url"
        await client.lease_revoke((await client.get(at)).kvs[0].lease)
    await announcer.wait_line("the lease is lost; announcing again")
    await until_keys(own, expected)
    await announcer.kill()
    await until_keys(own, shared(own.service, "Host(`w`)"))


async def test_the_latest_rule_counts_and_strangers_keys_stay(own: Bench) -> None:
    port = free_ports(1)[0]
    middleware = f"routers/{own.service}/middlewares/0"
    async with Client(own.endpoint) as client:
        await client.put(f"{ROOT}/{middleware}", "compress")
    stays = {middleware: ("compress", False)}
    both = ["--traefik-entrypoint=web", "--traefik-entrypoint=other"]
    a = await own.announce("a", "--traefik=Host(`old`)", *both, port=port)
    of_a = server(own, "a", f"127.0.0.1:{port}")
    await until_keys(own, stays | of_a | shared(own.service, "Host(`old`)", "web", "other"))
    await a.stop()
    await own.announce("a", "--traefik=Host(`new`)", "--traefik-entrypoint=other", port=port)
    await until_keys(own, stays | of_a | shared(own.service, "Host(`new`)", "other"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--traefik=Host(`w`)", "--protocol=tcp"],
            "--traefik is for --protocol http, https, h2c, not for 'tcp'",
        ),
        (["--traefik-entrypoint=web"], "--traefik-entrypoint goes with --traefik RULE"),
        (["--traefik=Host(`w`)", "--traefik-entrypoint=a/b"], "traefik-entrypoint: 'a/b' is not a name"),
    ],
)
async def test_bad_words_are_refused_at_once(own: Bench, words: list[str], told: str) -> None:
    announcer = await own.kvctl("a", "announce", own.service, "--address=:1", "--check=none", *words)
    await announcer.wait_line(told)
    assert await announcer.ended() != 0
