"""What a member does not load: each of these would be in its memory for as long as it lives."""

from __future__ import annotations

import subprocess
import sys

NEVER = {"grpc", "click", "rich", "prometheus_client", "kvstore.client", "kvstore.cli", "kvstore.routing"}
ONLY_WHEN_ASKED = {"aiohttp", "bcrypt", "jwt", "cryptography", "shutil", "google.protobuf.descriptor_pb2"}


def test_a_member_starts_with_what_every_member_needs() -> None:
    loaded = modules("import kvstore.__main__, kvstore.member") - modules("")
    assert "kvstore.state.machine" in loaded
    assert not (NEVER | ONLY_WHEN_ASKED) & loaded


def modules(program: str) -> set[str]:
    command = [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
