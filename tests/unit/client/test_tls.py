"""kvstore/client/tls.py and dial.py: which endpoints are TLS, and what is told of one that cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from kvstore.client import Client, Tls
from kvstore.client.endpoints import parse_endpoints
from kvstore.client.errors import ClientError, Unreachable
from kvstore.client.methods import STATUS
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc import UnaryCall, UnaryMethod
from kvstore.tls.door import Door
from kvstore.tls.keeper import Keeper
from kvstore.tls.settings import TlsSettings
from kvstore.wire.server import Guard, serve
from tests.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> TlsSettings:
    pair = authority.issue("server")
    return TlsSettings("client", cert_file=str(pair.cert), key_file=str(pair.key))


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Pair:
    return authority.issue("alice", cn="alice", hosts=())


def who(call: UnaryCall, data: bytes) -> None:
    """Answers whom it takes the caller for, as the version."""
    call.reply(pb.StatusResponse(version=f"<{call.common_name}>").SerializeToString())


@contextlib.asynccontextmanager
async def serving(settings: TlsSettings | None) -> AsyncIterator[int]:
    sock = socket.create_server(("127.0.0.1", 0))
    door = Door(Keeper(settings)) if settings is not None else None
    guard: Guard | None = door.guard if door is not None else None
    running = await serve(sock, {STATUS.path: UnaryMethod(who)}, guard=guard)
    try:
        yield sock.getsockname()[1]
    finally:
        await running.close(0.1)
        if door is not None:
            await door.close()


async def ask(endpoint: str, tls: Tls | None = None) -> str:
    async with Client(endpoint, tls=tls, wait_for_endpoints=False, timeout_s=10, dial_timeout_s=5) as client:
        [target] = client.caller.choice.endpoints
        answer = await client.caller.at(target, STATUS, pb.StatusRequest())
        return answer.version


async def why(endpoint: str, tls: Tls | None = None) -> str:
    with pytest.raises(ClientError) as failed:
        await ask(endpoint, tls)
    assert isinstance(failed.value, Unreachable)
    assert failed.value.by_tls or "refused" in failed.value.message
    return failed.value.reasons.get(endpoint, failed.value.message)


@pytest.mark.parametrize(
    ("endpoint", "secure"), [("h:1", None), ("http://h:1", False), ("https://h:1", True), ("[::1]:1", None)]
)
def test_the_scheme_decides(endpoint: str, secure: bool | None) -> None:
    assert parse_endpoints(endpoint)[0].secure is secure


async def test_it_connects(server: TlsSettings, authority: Authority, alice: Pair) -> None:
    trusting = Tls(str(authority.cert))
    named = replace(trusting, cert_file=str(alice.cert), key_file=str(alice.key))
    mutual = replace(server, trusted_ca_file=str(authority.cert), client_cert_auth=True)
    async with serving(server) as port:
        assert await ask(f"https://127.0.0.1:{port}", trusting) == "<>"
        assert await ask(f"127.0.0.1:{port}", trusting) == "<>", "without a scheme the settings decide"
        assert await ask(f"https://127.0.0.1:{port}", Tls(insecure_skip_verify=True)) == "<>"
    async with serving(mutual) as port:
        assert await ask(f"https://localhost:{port}", named) == "<alice>"
        skipping = replace(named, ca_file="", insecure_skip_verify=True)
        assert await ask(f"https://127.0.0.1:{port}", skipping) == "<alice>"
    async with serving(None) as port:
        assert await ask(f"http://127.0.0.1:{port}", trusting) == "<>", "http:// stays plain"


async def test_what_is_wrong_is_told(
    server: TlsSettings, authority: Authority, alice: Pair, tmp_path: Path
) -> None:
    trusting = Tls(str(authority.cert))
    stranger = Authority(tmp_path, "stranger")
    other = stranger.issue("other")
    elsewhere = authority.issue("elsewhere", hosts=("10.9.8.7",))
    async with serving(server) as port:
        url = f"https://127.0.0.1:{port}"
        assert "its certificate is not accepted" in await why(url)
        assert "its certificate is not accepted" in await why(url, Tls(str(stranger.cert)))
        assert await why(f"127.0.0.1:{port}") == "it speaks TLS: give the endpoint as https://"
    async with serving(replace(server, trusted_ca_file=str(authority.cert))) as port:
        url = f"https://127.0.0.1:{port}"
        assert await why(url, trusting) == "it demands a certificate of the client (--cert, --key)"
        shown = replace(trusting, cert_file=str(other.cert), key_file=str(other.key))
        assert await why(url, shown) == "it does not accept this client: unknown ca"
    revoking = replace(
        server, trusted_ca_file=str(authority.cert), crl_file=str(authority.revoke("r", alice.serial))
    )
    async with serving(revoking) as port:
        named = replace(trusting, cert_file=str(alice.cert), key_file=str(alice.key))
        assert "may not allow the certificate" in await why(f"https://127.0.0.1:{port}", named)
    async with serving(replace(server, cert_file=str(elsewhere.cert), key_file=str(elsewhere.key))) as port:
        assert "not valid for '127.0.0.1'" in await why(f"https://127.0.0.1:{port}", trusting)
    async with serving(None) as port:
        assert "does it speak TLS?" in await why(f"https://127.0.0.1:{port}", trusting)
    assert "refused" in await why(f"https://127.0.0.1:{port}", trusting)


def test_on_uvloop_as_well(server: TlsSettings, authority: Authority, alice: Pair, tmp_path: Path) -> None:
    async def run() -> None:
        await test_it_connects(server, authority, alice)
        await test_what_is_wrong_is_told(server, authority, alice, tmp_path)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ca_file": "/nowhere"}, "open /nowhere: no such file or directory"),
        ({"cert_file": "{cert}"}, "KeyFile and CertFile must both be present"),
        ({"cert_file": "{cert}", "key_file": "{ca}"}, "cannot use"),
        ({"ca_file": "{key}"}, "it has no certificate in PEM"),
    ],
)
def test_files_are_checked_first(
    authority: Authority, alice: Pair, fields: dict[str, str], message: str
) -> None:
    places = {"{cert}": str(alice.cert), "{key}": str(alice.key), "{ca}": str(authority.cert)}
    with pytest.raises(ValueError, match=message):
        Client("https://127.0.0.1:1", tls=Tls(**{name: places.get(v, v) for name, v in fields.items()}))  # type: ignore[arg-type]


def test_skipping_verification_is_what_it_says() -> None:
    context = Tls(insecure_skip_verify=True).context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
