"""Who is let in over TLS: the same certificates, the same programs, real etcd and ours, and the same outcome.

Two servers of each kind: one that asks its clients for nothing, one that asks for certificates and has a list of
revoked ones. Every client tries every server; the slow programs only where they add something.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
import pytest

from kvstore.client import Client, Tls
from kvstore.client.errors import Unreachable
from kvstore.demo.processes import free_ports
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.certificates import SERVER_ONLY, Authority, Pair
from tests.conformance.etcd_process import (
    SERVERS,
    Member,
    Server,
    clean_environment,
    etcdctl_path,
    program_path,
    require_program,
)


@dataclass(frozen=True)
class Attempt:
    """One client: how it comes, and at which of the two servers it is let in."""

    name: str
    open: bool
    mutual: bool
    pair: Pair | None = None
    ca: Path | None = None
    scheme: str = "https"
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Matrix:
    ports: dict[tuple[str, str], int]
    attempts: dict[str, Attempt]

    def outcomes(self, program: str, names: Sequence[str]) -> dict[tuple[str, str, str], bool]:
        """(attempt, server, its settings) to whether the client was let in; all side by side."""
        cases = [(name, server, kind) for name in names for server, kind in self.ports]
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda case: self._try(program, *case), cases)
        return dict(zip(cases, found))

    def expected(self, names: Sequence[str]) -> dict[tuple[str, str, str], bool]:
        return {
            (name, server, kind): getattr(self.attempts[name], kind)
            for name in names
            for server, kind in self.ports
        }

    def _try(self, program: str, name: str, server: str, kind: str) -> bool:
        attempt = self.attempts[name]
        address = f"{attempt.host}:{self.ports[server, kind]}"
        run = {"ours": _ours, "grpcio": _grpcio, "curl": _curl}.get(program)
        if run is not None:
            return run(attempt, address)
        return _etcdctl(program, attempt, address, patient=getattr(attempt, kind))


def _ours(attempt: Attempt, address: str) -> bool:
    pair = attempt.pair
    files = (str(pair.cert), str(pair.key)) if pair else ("", "")
    tls = Tls(str(attempt.ca) if attempt.ca else "", *files)

    async def put() -> bool:
        async with Client(
            f"{attempt.scheme}://{address}",
            tls=tls,
            wait_for_endpoints=False,
            timeout_s=20.0,
            dial_timeout_s=20.0,
        ) as client:
            try:
                await client.put("k", "v")
            except Unreachable:
                return False
            return True

    return asyncio.run(put())


def _grpcio(attempt: Attempt, address: str) -> bool:
    if attempt.scheme == "http":
        channel = grpc.insecure_channel(address)
    else:
        files = (attempt.ca, attempt.pair and attempt.pair.key, attempt.pair and attempt.pair.cert)
        roots, key, cert = (path.read_bytes() if path else None for path in files)
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots, key, cert))
    try:
        put = channel.unary_unary(
            "/etcdserverpb.KV/Put", pb.PutRequest.SerializeToString, pb.PutResponse.FromString
        )
        put(pb.PutRequest(key=b"k", value=b"v"), timeout=20)
        return True
    except grpc.RpcError as failure:
        assert failure.code() == grpc.StatusCode.UNAVAILABLE, failure
        return False
    finally:
        channel.close()


def _curl(attempt: Attempt, address: str) -> bool:
    command = [require_program(shutil.which("curl"), "curl"), "-sS", "--max-time", "20"]
    command += ["--cacert", str(attempt.ca)] if attempt.ca else []
    command += ["--cert", str(attempt.pair.cert), "--key", str(attempt.pair.key)] if attempt.pair else []
    done = subprocess.run([*command, f"{attempt.scheme}://{address}/health"], capture_output=True, text=True)
    return done.returncode == 0 and '"true"' in done.stdout


def _etcdctl(program: str, attempt: Attempt, address: str, *, patient: bool) -> bool:
    """It tries again until its time is up, so a refusal is waited for as short as it allows."""
    command = [program, f"--endpoints={attempt.scheme}://{address}"]
    command += [f"--cacert={attempt.ca}"] if attempt.ca else []
    command += [f"--cert={attempt.pair.cert}", f"--key={attempt.pair.key}"] if attempt.pair else []
    command += ["--command-timeout=20s" if patient else "--command-timeout=400ms", "put", "k", "v"]
    environment = {**clean_environment(), "ETCDCTL_API": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.returncode == 0 and done.stdout == "OK\n"


def _attempts(authority: Authority, stranger: Authority, alice: Pair, revoked: Pair) -> list[Attempt]:
    ca = authority.cert
    issue = authority.issue
    return [
        Attempt("plain", False, False, scheme="http"),
        Attempt("no certificate", True, False, ca=ca),
        Attempt("a good one", True, True, alice, ca),
        Attempt("of another ca", True, False, stranger.issue("mallory", cn="alice"), ca),
        Attempt("expired", True, False, issue("expired", expired=True), ca),
        Attempt("revoked", True, False, revoked, ca),
        Attempt("for servers only", True, False, issue("serves", uses=SERVER_ONLY), ca),
        Attempt("trusting another ca", False, False, alice, stranger.cert),
        Attempt("by a name not in it", False, False, alice, ca, host="localhost"),
    ]


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with tempfile.TemporaryDirectory(prefix="kv-tls-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        authority, stranger = Authority(folder / "ca"), Authority(folder / "stranger", "stranger")
        server = authority.issue("server", hosts=("127.0.0.1",))
        for name in ("root", "nobody"):
            authority.issue(name, cn=name, hosts=())
        alice, revoked = authority.issue("alice", cn="alice", hosts=()), authority.issue("revoked")
        crl = authority.revoke("list", revoked.serial)
        settings = {
            "open": server.flags(),
            "mutual": [
                *server.flags(),
                *(f"--trusted-ca-file={authority.cert}", "--client-cert-auth", f"--client-crl-file={crl}"),
            ],
        }
        attempts = {each.name: each for each in _attempts(authority, stranger, alice, revoked)}
        members: list[Member] = []
        ports: dict[tuple[str, str], int] = {}
        for kind in SERVERS:
            for name, flags in settings.items():
                member, port = _member(cast(Server, kind), folder / f"{kind}-{name}", flags)
                members.append(member)
                ports[kind, name] = port
        with contextlib.ExitStack() as stack:
            for member in members:
                stack.callback(member.stop)
                member.start()
            for member in members:
                member.wait_ready()
            yield Matrix(ports, attempts)


def _member(server: Server, folder: Path, flags: Sequence[str]) -> tuple[Member, int]:
    """With an http URL besides, which the flags leave alone, and the https one's port."""
    plain, secure, peer = free_ports(3)
    folder.mkdir()
    urls = f"http://127.0.0.1:{plain},https://127.0.0.1:{secure}"
    command = [
        *(program_path(server), "--name", "m1", "--data-dir", str(folder / "data")),
        *("--listen-client-urls", urls, "--advertise-client-urls", urls),
        *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}"),
        *("--initial-cluster", f"m1=http://127.0.0.1:{peer}", "--log-level", "error", *flags),
    ]
    return Member("m1", f"127.0.0.1:{plain}", command, folder / "log"), secure


@pytest.mark.parametrize("program", ["ours", "grpcio", "curl"])
def test_every_client_at_every_server(matrix: Matrix, program: str) -> None:
    names = list(matrix.attempts)
    assert matrix.outcomes(program, names) == matrix.expected(names)


@pytest.mark.parametrize("release", ["3.5", "3.4"])
def test_etcdctl(matrix: Matrix, release: str) -> None:
    older = None if release == "3.5" else require_program(shutil.which("etcdctl"), "etcdctl 3.4")
    program = older or etcdctl_path()
    names = (
        ["a good one", "no certificate"] if older else ["a good one", "no certificate", "revoked", "plain"]
    )
    assert matrix.outcomes(program, names) == matrix.expected(names)


def test_a_common_name_is_the_user(matrix: Matrix) -> None:
    """Over gRPC; through the gateway it is refused rather than overlooked."""
    told = {server: _as_users(matrix, server) for server, kind in matrix.ports if kind == "mutual"}
    expected = [
        ("put k v", 0, "OK"),
        ("put other v", 1, "etcdserver: permission denied"),
        ("put k v as nobody", 1, "etcdserver: permission denied"),
        ("through the gateway", 400, "CommonName of client sending a request against gateway"),
    ]
    for server, answers in told.items():
        shown = [
            (what, status, text in output) for (what, status, output), (_, _, text) in zip(answers, expected)
        ]
        assert shown == [(what, status, True) for what, status, _ in expected], (server, answers)


def _as_users(matrix: Matrix, server: str) -> list[tuple[str, int, str]]:
    port = matrix.ports[server, "mutual"]
    names = matrix.attempts["a good one"]
    assert names.ca is not None and names.pair is not None
    folder = names.ca.parent

    def run(who: str, *words: str) -> tuple[int, str]:
        flags = [f"--endpoints=https://127.0.0.1:{port}", f"--cacert={names.ca}"]
        flags += [f"--cert={folder / who}.pem", f"--key={folder / who}.key"]
        command = [etcdctl_path(), *flags, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=20)
        return done.returncode, done.stdout + done.stderr

    for line in (
        "user add root --no-password",
        "user grant-role root root",
        "user add alice --no-password",
        "role add some",
        "role grant-permission some readwrite k",
        "user grant-role alice some",
        "auth enable",
    ):
        status, output = run("root", *line.split())
        assert status == 0, (server, line, output)
    try:
        url = f"https://127.0.0.1:{port}/v3/kv/range"
        command = ["curl", "-sS", "--cacert", str(names.ca), "-w", "%{http_code}", "-d", "{}", url]
        command += ["--cert", str(names.pair.cert), "--key", str(names.pair.key)]
        through = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
        return [
            ("put k v", *run("alice", "put", "k", "v")),
            ("put other v", *run("alice", "put", "other", "v")),
            ("put k v as nobody", *run("nobody", "put", "k", "v")),
            ("through the gateway", int(through[-3:]), through[:-3]),
        ]
    finally:
        run("root", "auth", "disable")


def test_without_alpn_too(matrix: Matrix) -> None:
    attempt = matrix.attempts["a good one"]
    for (server, kind), port in matrix.ports.items():
        if server != "kvstore":
            continue  # Go's HTTP server speaks HTTP/2 to nobody who did not ask for it
        command = ["curl", "-sS", "--no-alpn", "--http2-prior-knowledge", "--cacert", str(attempt.ca)]
        assert attempt.pair is not None
        command += ["--cert", str(attempt.pair.cert), "--key", str(attempt.pair.key), "-o", os.devnull]
        command += ["-w", "%{http_version}", "-H", "content-type: application/grpc", "-d", ""]
        url = f"https://127.0.0.1:{port}/etcdserverpb.KV/Put"
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=20)
        assert done.stdout == "2", (kind, done.stderr)
