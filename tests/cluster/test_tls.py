"""Real members over TLS: among themselves, and while their files change."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from kvstore.client import Client, Tls
from kvstore.demo.processes import free_ports
from tests.certificates import Authority
from tests.cluster.harness import MemberHandle, running, wait_for

QUICK = ("--heartbeat-interval=50", "--election-timeout=500")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def shown(port: int) -> int:
    """The serial number of the certificate that a handshake is answered with now."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_three_members_trust_one_another_and_survive_a_kill(authority: Authority, tmp_path: Path) -> None:
    peers = authority.issue("peers", cn="peer")
    flags = [*peers.flags("peer-"), f"--peer-trusted-ca-file={authority.cert}", "--peer-client-cert-auth"]
    flags += ["--peer-cert-allowed-cn=peer", *QUICK]
    with running(tmp_path, extra=flags, peer_scheme="https") as cluster:
        leader = cluster.leader()
        leader.calls.put(b"before", b"1")
        leader.kill()
        rest = [member for member in cluster.members if member is not leader]
        for number in range(60):
            rest[number % 2].calls.put(b"during", b"%d" % number)
        leader.start()
        cluster.wait_ready()
        cluster.wait_equal()
        assert leader.calls.range(b"during", serializable=True).kvs[0].value == b"59"
        assert len({member.calls.hash_kv().hash for member in cluster.members}) == 1
        plain = rest[0].log_lines()
        refused = [line for line in plain if line["msg"].startswith("rejected")]
        assert not refused, "members are no strangers to one another"
        with socket.create_connection(("127.0.0.1", leader.peer_port)) as stranger:
            stranger.sendall(b"not a member" * 20)
            wait_for(lambda: leader.has_logged("rejected connection on peer endpoint"), "a line about it")
        leader.calls.put(b"after", b"1")


async def test_files_change_under_a_watch(authority: Authority, tmp_path: Path) -> None:
    first, second = authority.issue("first"), authority.issue("second")
    alice = authority.issue("alice", cn="alice", hosts=())
    cert, key, ca = (tmp_path / name for name in ("s.pem", "s.key", "ca.pem"))
    ca.write_bytes(authority.cert.read_bytes())
    cert.write_bytes(first.cert.read_bytes())
    key.write_bytes(first.key.read_bytes())
    [plain, secure, peer] = free_ports(3)
    flags = [f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={ca}", "--client-cert-auth"]
    flags += [f"--listen-client-urls=http://127.0.0.1:{plain},https://127.0.0.1:{secure}"]
    member = MemberHandle("n1", tmp_path, (plain, peer), f"n1=http://127.0.0.1:{peer}", flags)
    named = Tls(str(authority.cert), str(alice.cert), str(alice.key))
    member.start()
    try:
        await asyncio.to_thread(wait_for, lambda: member.status(), "it serves")
        async with (
            Client(f"https://127.0.0.1:{secure}", tls=named) as client,
            client.watch("k", start_revision=1) as watch,
            asyncio.timeout(30),
        ):
            await client.put("k", "under the first")
            assert (await anext(watch)).events[0].kv.value == b"under the first"
            assert await asyncio.to_thread(shown, secure) == first.serial
            key.write_bytes(second.key.read_bytes())  # for a moment the two do not fit
            assert await asyncio.to_thread(shown, secure) == first.serial
            cert.write_bytes(second.cert.read_bytes())
            assert await asyncio.to_thread(shown, secure) == second.serial
            stranger = Authority(tmp_path / "stranger", "stranger")
            ca.write_bytes(stranger.cert.read_bytes())
            async with Client(f"https://127.0.0.1:{secure}", tls=named, timeout_s=0.2) as other:
                with pytest.raises(Exception, match="does not accept this client"):
                    await other.get("k")
            await client.put("k", "still there")
            assert (await anext(watch)).events[0].kv.value == b"still there"
        told = [line for line in member.log_lines() if "TLS files" in line["msg"]]
        assert [line["level"] for line in told] == ["error", "info", "info"]
        assert "does not match public key" in told[0]["error"]
    finally:
        if member.process is not None:
            member.kill()
        member.calls.close()


async def test_auto_tls(tmp_path: Path) -> None:
    [plain, secure, peer] = free_ports(3)
    flags = [
        "--auto-tls",
        "--peer-auto-tls",
        f"--listen-client-urls=http://127.0.0.1:{plain},https://127.0.0.1:{secure}",
    ]
    cluster = f"n1=https://127.0.0.1:{peer}"
    member = MemberHandle("n1", tmp_path, (plain, peer), cluster, flags, peer_scheme="https")
    pinned = Tls(str(member.data_dir / "fixtures" / "client" / "cert.pem"))
    member.start()
    try:
        await asyncio.to_thread(wait_for, lambda: member.status(), "it serves")
        async with Client(f"https://localhost:{secure}", tls=pinned) as client:
            await client.put("k", "v")
        serials = shown(secure), shown(peer)
        member.stop()
        member.start()
        await asyncio.to_thread(wait_for, lambda: member.status(), "it serves again")
        assert (shown(secure), shown(peer)) == serials, "kept over a restart"
    finally:
        if member.process is not None:
            member.kill()
        member.calls.close()
