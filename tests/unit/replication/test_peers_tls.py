"""Connections between members over TLS: the same transport, its urls https."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kvstore.pb.internal_pb2 import PeerHello
from kvstore.replication.peers import probe
from kvstore.tls import self_signed
from kvstore.tls.dialing import Dialing
from kvstore.tls.door import Door
from kvstore.tls.keeper import Keeper
from kvstore.tls.settings import TlsSettings
from tests.certificates import SERVER_ONLY, Authority, Pair
from tests.unit.replication.test_peers import Member, connected, heartbeat, running
from tests.unit.replication.test_snapshot_transfer import HELLO as HELLO_SNAPSHOT
from tests.unit.replication.test_snapshot_transfer import MESSAGE, Receiving, sender, snapshot

HELLO = PeerHello(cluster_id=0xC1, from_id=7, to_id=2, data_id=7)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("member", cn="member")


def peer(self_id: int, pair: Pair | None, ca: Authority | None, **more: object) -> Member:
    """One that listens with TLS where it has a certificate, and else trusts the CA alone."""
    member = Member(self_id)
    fields: dict[str, object] = {"trusted_ca_file": str(ca.cert) if ca else "", **more}
    if pair is not None:
        fields |= {"cert_file": str(pair.cert), "key_file": str(pair.key)}
        member.url = member.url.replace("http:", "https:")
    if pair is not None or ca is not None:
        keeper = Keeper(TlsSettings("peer", checks_address=True, **fields))  # type: ignore[arg-type]
        member.transport._guard = Door(keeper).guard if pair is not None else None
        member.transport.security = Dialing(keeper)
    return member


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    return [each["error"] for each in fields if "error" in each]


async def test_messages_and_requests_both_ways(authority: Authority, pair: Pair) -> None:
    one, two = (
        peer(1, pair, authority, client_cert_auth=True),
        peer(2, pair, authority, client_cert_auth=True),
    )
    async with running(one, two):
        await connected(one, two)
        one.transport.send([heartbeat(n) for n in range(100)])
        await two.until(lambda: len(two.messages) == 100)
        answers: list[bytes | None] = []
        two.transport.request(1, 1, b"x" * 100_000, 5.0, lambda answer, error: answers.append(answer))
        await two.until(lambda: bool(answers))
        assert answers == [b"2 asked: " + b"x" * 100_000]


async def test_a_probe_says_what_it_is_told(authority: Authority, pair: Pair) -> None:
    two = peer(2, pair, authority)
    async with running(two):
        welcome = await probe(two.url, HELLO, two.transport.security)
        assert welcome is not None and not welcome.code


async def test_another_ca_is_told_of_once(
    authority: Authority, pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path, "stranger")
    one, two = peer(1, stranger.issue("one"), stranger), peer(2, pair, authority)
    with caplog.at_level(logging.WARNING, logger="kvstore"):
        async with running(one, two):
            await one.until(lambda: len(reasons(caplog)) >= 2)
            one.transport._links[2].nudge.set()  # try again at once
            one.transport._links[2].nudge.set()
            assert not one.transport.connected(2) and not two.transport.connected(1)
    told = [text for text in reasons(caplog) if "certificate verify failed" in text]
    assert 1 <= len(told) <= 2, "once for each of the two members"


async def test_a_name_that_is_not_in_the_certificate(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = authority.issue("elsewhere", hosts=("10.9.8.7",))
    two = peer(2, elsewhere, authority)
    with caplog.at_level(logging.WARNING, logger="kvstore"):
        async with running(two):
            assert await probe(two.url, HELLO, two.transport.security) is None
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in reasons(caplog)[0]


async def test_plain_and_tls_members_tell_one_clear_line(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    plain, secure = peer(1, None, None), peer(2, pair, authority)
    with caplog.at_level(logging.WARNING, logger="kvstore"):
        async with running(plain, secure):
            await plain.until(lambda: len(reasons(caplog)) >= 1)
            wrong = secure.url.replace("https:", "http:")
            assert await probe(wrong, HELLO) is None
            wrong = plain.url.replace("http:", "https:")
            assert await probe(wrong, HELLO, secure.transport.security) is None
    told = " / ".join(reasons(caplog))
    assert "its URL is https, and this member has no TLS for peers" in told
    assert "TLS where plain frames should be: one end's URL is https, not both" in told


async def test_allowed_names_hold_for_whoever_is_dialed_too(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    strict = peer(1, pair, authority, allowed_cns=("member",))
    other = peer(2, authority.issue("other", cn="other"), authority)
    with caplog.at_level(logging.WARNING, logger="kvstore"):
        async with running(strict, other):
            await strict.until(lambda: len(reasons(caplog)) >= 2)
            assert not strict.transport.connected(2) and not other.transport.connected(1)
    assert 'client certificate authentication failed: its CN is "other"' in reasons(caplog)


async def test_a_certificate_for_serving_alone_dials_with_another(authority: Authority) -> None:
    """--peer-client-cert-file: CAs that issue no certificate for both."""
    serving = authority.issue("serving", uses=SERVER_ONLY)
    dialing = authority.issue("dialing")
    fields = {"client_cert_file": str(dialing.cert), "client_key_file": str(dialing.key)}
    one, two = peer(1, serving, authority, **fields), peer(2, serving, authority, **fields)
    bad = peer(3, serving, authority)
    async with running(one, two, bad):
        await connected(one, two)
        assert await probe(one.url, HELLO, bad.transport.security) is None


async def test_certificates_of_their_own(tmp_path: Path) -> None:
    """--peer-auto-tls: nobody can verify the other, and nobody in between can listen."""
    settings = [
        self_signed.settle(TlsSettings("peer", auto=True), str(tmp_path / name), ["127.0.0.1"])
        for name in ("one", "two")
    ]
    one, two = (
        peer(number, Pair(Path(each.cert_file), Path(each.key_file), 0), None, self_signed=True)
        for number, each in enumerate(settings, start=1)
    )
    async with running(one, two):
        await connected(one, two)
        one.transport.send([heartbeat(1)])
        await two.until(lambda: len(two.messages) == 1)


async def test_a_restarted_members_old_connection_gives_way(authority: Authority, pair: Pair) -> None:
    one, two = peer(1, pair, authority), peer(2, pair, authority)
    async with running(one, two):
        await connected(one, two)
        [spoken] = [end for end in two.transport._accepted if end.hello is not None]
        assert spoken.transport is not None
        spoken.transport.abort()
        await one.until(lambda: 2 in one.unreachable)
        await connected(one, two)
        one.transport.send([heartbeat(7)])
        await two.until(lambda: len(two.messages) == 1)


async def test_a_snapshot_arrives_whole(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    keeper = Keeper(TlsSettings("peer", str(pair.cert), str(pair.key), trusted_ca_file=str(authority.cert)))
    (tmp_path / "receiving").mkdir()
    receiving = Receiving(tmp_path / "receiving")
    receiving.transport._guard = Door(keeper).guard
    await receiving.transport.start(["https://127.0.0.1:0"])
    url = f"https://127.0.0.1:{receiving.transport.ports[0]}"
    path = snapshot(tmp_path, 30 << 20)  # more than is held before it is written: reading pauses meanwhile
    sending = sender(tmp_path)
    sending._security = Dialing(keeper)
    await sending.send(url, HELLO_SNAPSHOT, MESSAGE, str(path))
    [(_, _, found)] = receiving.arrived
    assert Path(found).read_bytes() == path.read_bytes()
    await receiving.transfers.close()
    await receiving.transport.close()
