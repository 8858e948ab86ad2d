"""What a member does not load: each of these would be in its memory for as long as it lives. And what a client
does not: whoever types a command waits for each of these."""

from __future__ import annotations

import subprocess
import sys

NEVER = {"grpc", "click", "rich", "prometheus_client", "kvstore.client", "kvstore.cli", "kvstore.routing"}
ONLY_WHEN_ASKED = {"aiohttp", "bcrypt", "jwt", "cryptography", "shutil", "google.protobuf.descriptor_pb2"}


def test_a_member_starts_with_what_every_member_needs() -> None:
    loaded = modules("import kvstore.__main__, kvstore.member") - modules("")
    assert "kvstore.state.machine" in loaded
    assert not (NEVER | ONLY_WHEN_ASKED) & loaded


def test_a_client_starts_without_grpcio() -> None:
    loaded = modules("import kvstore.client") - modules("")
    assert "kvstore.client.http2" in loaded
    assert not {"grpc", "kvstore.log", "kvstore.wire.connection", "logging.handlers"} & loaded


def test_kvctl_loads_grpcio_for_nothing_but_what_serves_or_asks_it() -> None:
    """Every command, as `kvctl COMMAND --help` loads it, and one that asks a server; xDS and the check grpc: load it
    when they run."""
    loaded = modules(
        "import click\n"
        "from kvstore.cli.main import root\n"
        "def walk(command, context):\n"
        "    if isinstance(command, click.Group):\n"
        "        for name in command.list_commands(context):\n"
        "            found = command.get_command(context, name)\n"
        "            walk(found, click.Context(found, parent=context))\n"
        "walk(root, click.Context(root))\n"
        "from kvstore.cli.main import main\n"
        "assert main(['--endpoints=127.0.0.1:1', 'get', 'a']) == 1"
    )
    assert {"kvstore.cli.announce", "kvstore.cli.routes.haproxy", "kvstore.client.http2"} <= loaded
    assert "grpc" not in loaded


def modules(program: str) -> set[str]:
    command = [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
