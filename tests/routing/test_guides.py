"""The guides of docs/: their files are used and their commands are run as they stand, but for ports and folders."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kvstore.demo.processes import Program, free_ports
from tests.routing.programs import Bench, Store, bench, required, started_store, until

DOCS = Path(__file__).parent.parent.parent / "docs"
BLOCKS = re.compile(r"```(\w+)\n(.*?)```\n", re.DOTALL)
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from started_store("kvstore", tmp_path_factory.mktemp("store"))


class Guide:
    """A page, in a folder of its own. What it says of ports and folders is replaced, in files and commands alike."""

    def __init__(self, page: str, own: Bench, folder: Path) -> None:
        self.folder = folder
        self._own = own
        proxy, web, admin = free_ports(3)
        self.url = f"http://127.0.0.1:{proxy}/"
        self.replaced = {
            "127.0.0.1:8080": f"127.0.0.1:{proxy}",
            "127.0.0.1:9000": f"127.0.0.1:{web}",
            "http.server 9000": f"http.server {web}",
            "127.0.0.1:2019": f"127.0.0.1:{admin}",
            "127.0.0.1:2379": own.endpoint,
            "/run/haproxy": str(folder),
            "/etc/nginx/kvstore": str(folder),
        }
        blocks = BLOCKS.findall((DOCS / page).read_text())
        self.commands = [line for language, text in blocks if language == "sh" for line in text.splitlines()]
        self.files = {language: text for language, text in blocks if language != "sh"}
        assert self.commands

    def own(self, text: str) -> str:
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text

    def write(self, language: str, name: str) -> None:
        (self.folder / name).write_text(self.own(self.files.pop(language)))

    async def run(self) -> dict[str, Program]:
        """Every command; those in the background run on. Another is tried until it succeeds, as a reader would."""
        assert not self.files, f"files of the guide that nobody uses: {self.files.keys()}"
        started: dict[str, Program] = {}
        for number, command in enumerate(map(self.own, self.commands)):
            if command.endswith(" &"):
                started[command] = await self._start(str(number), f"exec {command[:-2]}")
            else:
                await self._until_it_succeeds(command)
        return started

    async def _start(self, name: str, command: str) -> Program:
        environment = {
            "KVCTL_ENDPOINTS": self._own.endpoint,
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}:/usr/sbin",
            "HOME": str(self.folder),
            "XDG_DATA_HOME": str(self.folder),
        }
        words = ["bash", "-c", f"cd {self.folder} && {command}"]
        return await self._own.programs.start(name, words, environment)

    async def _until_it_succeeds(self, command: str) -> None:
        last: list[str] = []

        async def succeeds() -> bool:
            program = await self._start(command, command)
            status = await program.ended()
            last[:] = program.lines
            return status == 0

        try:
            await until("it succeeds", succeeds, timeout_s=20.0)
        except pytest.fail.Exception:
            pytest.fail(f"{command}\n" + "\n".join(last), pytrace=False)


@pytest.fixture
async def own(one_store: Store) -> AsyncIterator[Bench]:
    async with bench("web", one_store.endpoint) as made:
        yield made


async def test_haproxy(own: Bench, tmp_path: Path) -> None:
    required("haproxy", "haproxy")
    guide = Guide("route-haproxy.md", own, tmp_path)
    example = (
        (DOCS.parent / "deploy" / "haproxy.cfg").read_text().replace("# server-template", "server-template")
    )
    without_comments = re.sub(r"(?m)^ *#.*\n", "", example).lstrip()
    assert guide.files["haproxy"] == without_comments
    guide.write("haproxy", "haproxy.cfg")
    await guide.run()


async def test_caddy(own: Bench, tmp_path: Path) -> None:
    required("caddy", "caddy")
    guide = Guide("route-caddy.md", own, tmp_path)
    example = DOCS.parent / "deploy" / "caddy.json"
    assert guide.files["json"] == example.read_text()
    guide.write("json", "caddy.json")
    (tmp_path / "Caddyfile").write_text(":8081\nreverse_proxy 127.0.0.1:1\n")
    await guide.run()


async def test_traefik(own: Bench, tmp_path: Path) -> None:
    if shutil.which("traefik", path=f"{BIN}:{os.environ['PATH']}") is None:
        required("traefik", "traefik")
    await Guide("route-traefik.md", own, tmp_path).run()


async def test_nginx(own: Bench, tmp_path: Path) -> None:
    """Packaged nginx is configured where it was built for: a program of that name beside says where to look."""
    program = required("nginx", "nginx")
    guide = Guide("route-nginx.md", own, tmp_path)
    guide.write("jinja", "web.conf.j2")
    guide.write("nginx", "nginx.conf")
    temporary = " ".join(f"{name}_temp_path {tmp_path};" for name in ("client_body", "proxy", "fastcgi"))
    temporary += f" uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path}; access_log off;"
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"pid {tmp_path}/nginx.pid;\n" + config.read_text().replace("http {", f"http {{ {temporary}")
    )
    wrapper = tmp_path / "nginx"
    wrapper.write_text(f'#!/bin/sh\nexec {program} -c {config} -e {tmp_path}/error.log "$@"\n')
    wrapper.chmod(0o755)
    guide.commands = [line.replace("nginx -", f"{wrapper} -") for line in guide.commands]
    guide.commands = [f"{wrapper}" if line == "nginx" else line for line in guide.commands]
    try:
        await guide.run()
    finally:
        pid = tmp_path / "nginx.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), 15)
