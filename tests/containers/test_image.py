"""The image: a member or kvctl, for an ordinary user, healthy when it is."""

from __future__ import annotations

import os
import signal

from kvstore.demo.processes import free_ports
from tests.cluster.harness import wait_for
from tests.containers.engine import Engine

HOST = "--network=host"


def health(engine: Engine, name: str) -> str:
    return engine.docker("inspect", "--format", "{{.State.Health.Status}}", name)


def test_a_member_is_healthy_and_keeps_what_it_was_given(cleared: Engine) -> None:
    client, peer = free_ports(2)
    url = f"http://127.0.0.1:{client}"
    options = [
        HOST,
        "--health-interval=1s",
        "--health-timeout=2s",
        "--health-retries=1",
        "--volume=data:/data",
        f"--env=KVSTORE_LISTEN_CLIENT_URLS={url}",
    ]
    options += [f"--env=KVSTORE_HEALTH_URL={url}/livez"]
    flags = [f"--listen-peer-urls=http://127.0.0.1:{peer}"]
    cleared.docker("run", "--detach", "--name=first", *options, "kvstore", *flags)
    wait_for(lambda: health(cleared, "first") == "healthy", "the member is healthy")
    there = ["exec", "first", "kvctl", f"--endpoints=127.0.0.1:{client}"]
    assert cleared.docker(*there, "put", "greeting", "hello") == "OK"
    assert cleared.docker("exec", "first", "id", "-un") == "kvstore"
    cleared.docker("stop", "first")
    assert cleared.docker("inspect", "--format", "{{.State.ExitCode}}", "first") == "0"
    cleared.docker("run", "--detach", "--name=second", *options, "kvstore", *flags)
    wait_for(lambda: health(cleared, "second") == "healthy", "the next one is healthy")
    there[1] = "second"
    assert cleared.docker(*there, "get", "greeting") == "greeting\nhello"
    os.kill(int(cleared.docker("inspect", "--format", "{{.State.Pid}}", "second")), signal.SIGSTOP)
    wait_for(lambda: health(cleared, "second") == "unhealthy", "one that hangs is not", 60.0)


def test_kvctl_and_its_extras_are_there_and_need_no_member_to_be_healthy(cleared: Engine) -> None:
    assert cleared.docker("run", HOST, "kvstore", "kvctl", "version").startswith("kvctl version: ")
    for words in ("announce docker", "route dns", "route template"):
        assert "Usage" in cleared.docker("run", HOST, "kvstore", "kvctl", *words.split(), "--help")
    imports = "import aiodocker, dns, jinja2"
    cleared.docker("run", HOST, "kvstore", "python", "-c", imports)
    cleared.docker("run", "--detach", "--name=other", "--health-interval=1s", HOST, "kvstore", "sleep", "60")
    wait_for(lambda: health(cleared, "other") == "healthy", "where no member runs nothing is wrong")


def test_the_image_holds_nothing_that_it_is_not_made_of(cleared: Engine) -> None:
    found = cleared.docker("run", HOST, "kvstore", "sh", "-c", "ls -A /data /src /opt/kvstore 2>&1 || true")
    assert "tests" not in found
    assert "/src'" in found  # is not there
