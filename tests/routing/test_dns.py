"""dig asks for what is announced, over UDP and over TCP."""

from __future__ import annotations

import asyncio

from tests.routing.programs import Bench, required, until


class Dig:
    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._command = [
            required("dig", "bind9-dnsutils"),
            f"@{host}",
            "-p",
            port,
            "+short",
            "+tries=1",
            "+time=2",
        ]

    async def __call__(self, *words: str) -> list[str]:
        process = await asyncio.create_subprocess_exec(
            *self._command, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        return sorted(out.decode().splitlines())


async def test_dig_is_told_who_is_ready(own: Bench) -> None:
    zone = ["--zone=kv.internal", "--listen=127.0.0.1:0", f"--service={own.service}"]
    route = await own.kvctl("route", "route", "dns", *zone)
    dig = Dig((await route.wait_line("listening on (.*)"))[1])
    name = f"{own.service}.kv.internal"
    assert await dig(name, "A") == []
    await own.announce("a")

    async def told(expected: list[str]) -> None:
        async def holds() -> bool:
            return await dig(name, "A") == expected

        await until(f"dig is told {expected}", holds)

    await told(["127.0.0.1"])
    assert await dig("+tcp", name, "A") == ["127.0.0.1"]
    (located,) = await dig(f"_{own.service}._tcp.kv.internal", "SRV")
    priority, weight, _, target = located.split()
    assert (priority, weight, target) == ("0", "100", f"127-0-0-1.{name}.")
    assert await dig(target, "A") == ["127.0.0.1"]
    own.kill_web("a")
    await told([])
