"""One CA for all of these tests: making keys is most of their time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Authority, Pair


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="session")
def server(authority: Authority) -> Pair:
    return authority.issue("server", cn="server")


@pytest.fixture(scope="session")
def alice(authority: Authority) -> Pair:
    return authority.issue("alice", cn="alice", hosts=("alice.example.com",))


@pytest.fixture
def own(tmp_path: Path, server: Pair) -> Pair:
    """The server's, copied to where a test may change it."""
    cert, key = tmp_path / "own.pem", tmp_path / "own.key"
    cert.write_bytes(server.cert.read_bytes())
    key.write_bytes(server.key.read_bytes())
    return Pair(cert, key, server.serial)
