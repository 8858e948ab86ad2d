"""deploy/compose.yaml, as it is: three members, two web servers, HAProxy in front of them."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.demo.processes import free_ports
from tests.cluster.harness import need, wait_for
from tests.containers.engine import Engine
from tests.containers.image import ROOT

UP_S = 90.0


class Compose:
    def __init__(self, engine: Engine) -> None:
        self._command = [*_program(), "--project-name=kvtest", f"--file={ROOT / 'deploy' / 'compose.yaml'}"]
        self.web, self.client = free_ports(2)
        ports = {"WEB_PORT": str(self.web), "KVSTORE_PORT": str(self.client)}
        self._environment = {**engine.environment, **ports}

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [*self._command, *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, f"compose {' '.join(words)}: {done.stderr[-3000:]}"
        return done.stdout

    def request(self) -> str:
        """The answer of the next web server; "" where there was none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web}/", timeout=5) as answer:
                return str(answer.read().decode().strip())
        except OSError:
            return ""

    def answering(self) -> set[str]:
        return {self.request() for _ in range(6)}

    def services(self) -> list[dict[str, Any]]:
        told = self("exec", "-T", "n2", "kvctl", "services", "--write-out=json")
        found: list[dict[str, Any]] = json.loads(told)
        return found


def _program() -> list[str]:
    """The plugin, or the program that was there before it."""
    docker = need("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, env=os.environ).returncode == 0:
        return [docker, "compose"]
    return [need("docker-compose")]


@pytest.fixture
def compose(cleared: Engine) -> Iterator[Compose]:
    made = Compose(cleared)
    try:
        made("up", "--detach")
        yield made
    finally:
        made("down", "--volumes", "--timeout=3")


def test_everything_comes_up_and_a_request_is_answered(compose: Compose) -> None:
    both = {"hello from web1", "hello from web2"}
    wait_for(lambda: compose.answering() == both, "both web servers answer through HAProxy", UP_S)
    told = compose.services()
    assert sorted(one["state"] for one in told) == ["ready", "ready"]
    compose("kill", "web1")
    wait_for(lambda: compose.answering() == {"hello from web2"}, "the one that is left answers")
    compose("kill", "n1")
    assert compose.request() == "hello from web2"
    compose("start", "web1")
    wait_for(lambda: compose.answering() == both, "it is back, with one member less", UP_S)
    compose("stop", "--timeout=5", "web2")
    wait_for(lambda: compose.answering() == {"hello from web1"}, "one that is stopped is gone")


def test_the_configuration_is_the_example_but_for_where_it_listens() -> None:
    def content(name: str) -> str:
        text = (Path(ROOT) / "deploy" / name).read_text()
        return text[text.index("global\n") :]

    assert content("compose-haproxy.cfg") == content("haproxy.cfg").replace("127.0.0.1:8080", "*:8080")
