"""kvstore/tls/contexts.py and keeper.py: files into contexts, and again when they change."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from kvstore.tls.contexts import TlsError, load
from kvstore.tls.keeper import Keeper
from kvstore.tls.settings import TlsSettings
from tests.certificates import Authority, Pair


def settings_of(pair: Pair, **more: object) -> TlsSettings:
    fields: dict[str, object] = {"cert_file": str(pair.cert), "key_file": str(pair.key), **more}
    return TlsSettings("client", **fields)  # type: ignore[arg-type]


def serial_of(keeper: Keeper, authority: Authority) -> int:
    """Of the certificate that a handshake would be shown now: shakes hands in memory."""
    client = ssl.create_default_context(cafile=str(authority.cert))
    context = keeper.current().server
    assert context is not None
    pipes = [ssl.MemoryBIO() for _ in range(2)]
    here = context.wrap_bio(pipes[0], pipes[1], server_side=True)
    there = client.wrap_bio(pipes[1], pipes[0], server_hostname="localhost")
    for side in (there, here, there, here):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    shown = there.getpeercert()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cert_file": "/nowhere.pem"}, "open /nowhere.pem: no such file or directory"),
        ({"trusted_ca_file": "/nowhere.pem"}, "open /nowhere.pem: no such file or directory"),
        ({"crl_file": "/nowhere.crl"}, "open /nowhere.crl: no such file or directory"),
        ({"key_file": "{key}"}, "does not match public key"),
        ({"cert_file": "{key}"}, "cannot load certificate"),
        ({"trusted_ca_file": "{key}"}, "cannot load CA"),
        ({"crl_file": "{cert}"}, "cannot read revocation list"),
        ({"key_file": "{locked}"}, "the private key is encrypted"),
        ({"cipher_suites": ("TLS_RSA_WITH_RC4_128_SHA",)}, "is not offered by OpenSSL"),
        (
            {"cipher_suites": ("TLS_AES_128_GCM_SHA256",), "max_version": "TLS1.2"},
            "--cipher-suites has no suite for TLS1.2",
        ),
    ],
)
def test_what_cannot_be_loaded_is_named(
    server: Pair, alice: Pair, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    places = {"{key}": str(alice.key), "{cert}": str(alice.cert), "{locked}": str(locked)}
    filled = {name: places.get(str(value), value) for name, value in fields.items()}
    with pytest.raises(TlsError) as failed:
        load(settings_of(server, **filled))
    assert message in str(failed.value)


def test_ciphers_and_versions(server: Pair) -> None:
    suites = ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")
    context = load(settings_of(server, cipher_suites=suites)).server
    assert context is not None
    below = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert below == ["ECDHE-ECDSA-AES256-GCM-SHA384"]
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    only13 = load(settings_of(server, cipher_suites=("TLS_AES_128_GCM_SHA256",))).server
    assert only13 is not None and only13.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("pem", [False, True])
def test_revocation_lists_of_both_forms(authority: Authority, server: Pair, pem: bool) -> None:
    path = authority.revoke("both", 5, 7, pem=pem)
    assert load(settings_of(server, crl_file=str(path))).revoked == {5, 7}


def test_a_changed_certificate_is_taken_over(authority: Authority, own: Pair) -> None:
    keeper = Keeper(settings_of(own))
    before = keeper.current()
    assert serial_of(keeper, authority) == own.serial
    assert keeper.current() is before, "nothing has changed, so nothing is read"
    newer = authority.issue("newer")
    own.key.write_bytes(newer.key.read_bytes())
    own.cert.write_bytes(newer.cert.read_bytes())
    assert serial_of(keeper, authority) == newer.serial


def test_a_link_turned_elsewhere_is_a_change(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes updates the files of a secret."""
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        pair = authority.issue(name)
        os.rename(pair.cert, folder / "tls.crt")
        os.rename(pair.key, folder / "tls.key")
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "one")
    keeper = Keeper(settings_of(Pair(link / "tls.crt", link / "tls.key", 0)))
    before = serial_of(keeper, authority)
    other = tmp_path / "other"
    other.symlink_to(tmp_path / "two")
    other.rename(link)
    assert serial_of(keeper, authority) != before


def test_a_broken_change_keeps_what_was_and_is_told_once(
    authority: Authority, own: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(settings_of(own))
    good = own.cert.read_bytes()
    with caplog.at_level(logging.INFO, logger="kvstore"):
        own.cert.write_bytes(good[: len(good) // 2])
        assert [serial_of(keeper, authority) for _ in range(3)] == [own.serial] * 3
        own.cert.unlink()
        assert serial_of(keeper, authority) == own.serial
        own.cert.write_bytes(good)
        assert serial_of(keeper, authority) == own.serial
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "cannot use the changed TLS files; going on with those before",
        "cannot use the changed TLS files; going on with those before",
        "took over changed TLS files",
    ]


def test_ca_and_revocations_are_followed(
    authority: Authority, stranger: Authority, server: Pair, tmp_path: Path
) -> None:
    ca, crl = tmp_path / "ca.pem", tmp_path / "list.crl"
    ca.write_bytes(authority.cert.read_bytes())
    crl.write_bytes(authority.revoke("first", 1).read_bytes())
    keeper = Keeper(settings_of(server, trusted_ca_file=str(ca), crl_file=str(crl)))
    assert keeper.current().revoked == {1}
    crl.write_bytes(authority.revoke("second", 1, 2).read_bytes())
    ca.write_bytes(stranger.cert.read_bytes())
    material = keeper.current()
    assert material.revoked == {1, 2}
    assert material.server is not None
    [trusted] = material.server.get_ca_certs()
    assert trusted["subject"] == ((("commonName", "stranger"),),)
