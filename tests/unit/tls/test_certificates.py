"""kvstore/tls/certificates.py: Go's rules for names, on what Python's ssl says of a certificate."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.tls.certificates import (
    address_refusal,
    common_name,
    name_refusal,
    refusal,
    revocation,
    speaks_for,
)
from kvstore.tls.settings import TlsSettings


def certificate(*hosts: tuple[str, str], cn: str = "") -> dict[str, Any]:
    subject = ((("commonName", "first"),), (("commonName", cn),)) if cn else ()
    return {"subject": subject, "subjectAltName": hosts}


DNS = certificate(("DNS", "node.example.com"), ("DNS", "*.Pool.example.com"))
IP = certificate(("IP Address", "10.0.0.1"), ("IP Address", "FE80:0:0:0:0:0:0:1"))


def test_common_name_is_the_last() -> None:
    assert common_name(certificate(cn="alice")) == "alice"
    assert common_name(certificate()) == common_name({}) == ""


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("node.example.com", True),
        ("NODE.example.com.", True),
        ("a.pool.example.com", True),
        ("a.b.pool.example.com", False),
        ("pool.example.com", False),
        (".pool.example.com", False),
        ("example.com", False),
        ("", False),
        ("10.0.0.1", False),
    ],
)
def test_dns_names(host: str, expected: bool) -> None:
    assert speaks_for(DNS, host) is expected


def test_addresses_are_compared_as_addresses() -> None:
    assert speaks_for(IP, "10.0.0.1") and speaks_for(IP, "fe80::1") and speaks_for(IP, "[fe80::1]")
    assert not speaks_for(IP, "10.0.0.2") and not speaks_for(IP, "node")


def test_a_cn_is_no_host_name() -> None:
    assert not speaks_for(certificate(cn="node.example.com"), "node.example.com")


def test_allowed_cns() -> None:
    settings = TlsSettings("peer", allowed_cns=("m1", "m2"))
    assert refusal(settings, certificate(cn="m2")) == ""
    assert refusal(settings, certificate(cn="m3")).startswith("client certificate authentication failed")
    assert refusal(settings, certificate(("DNS", "m1"))) != ""


def test_allowed_hostnames_need_one_match() -> None:
    settings = TlsSettings("client", allowed_hostnames=("other", "node.example.com"))
    assert refusal(settings, DNS) == ""
    assert "10.0.0.1" in refusal(settings, IP)
    assert refusal(TlsSettings("client", allowed_hostnames=("10.0.0.1",)), IP) == ""


def test_revocation_names_the_serial() -> None:
    assert revocation(frozenset({255}), [1, 255]) == "transport: certificate serial ff revoked"
    assert revocation(frozenset({255}), [1, 2]) == ""


def test_where_a_certificate_may_be_shown_from() -> None:
    assert address_refusal(certificate(), "10.0.0.9") == ""
    assert address_refusal(IP, "10.0.0.1") == ""
    assert address_refusal(IP, "10.0.0.2") == (
        "x509: certificate is valid for 10.0.0.1, fe80::1, not 10.0.0.2"
    )
    assert address_refusal(DNS, "10.0.0.1") is None, "only DNS can tell"


@pytest.mark.parametrize(
    ("backward", "forward", "let_in"),
    [
        (["node.example.com."], {}, True),
        (["x.pool.example.com"], {}, False),  # as in Go, the wildcard's case counts here
        (["x.Pool.example.com"], {}, True),
        ([], {"node.example.com": ["10.0.0.8", "10.0.0.9"]}, True),
        (["else.example.com"], {"node.example.com": ["10.0.0.8"]}, False),
        (None, {}, False),
    ],
)
async def test_names_are_asked_for_backwards_and_forwards(
    backward: list[str] | None, forward: dict[str, list[str]], let_in: bool
) -> None:
    async def names_of(address: str) -> list[str]:
        if backward is None:
            raise OSError("no DNS")
        return backward

    async def addresses_of(name: str) -> list[str]:
        return forward.get(name, [])

    reason = await name_refusal(DNS, "10.0.0.9", names_of=names_of, addresses_of=addresses_of)
    assert (reason == "") is let_in
    if not let_in:
        assert "does not match any of DNSNames" in reason
