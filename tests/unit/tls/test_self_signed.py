"""kvstore/tls/self_signed.py: --auto-tls and --peer-auto-tls."""

from __future__ import annotations

import logging
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from kvstore.config import load, parse_url
from kvstore.tls.contexts import TlsError
from kvstore.tls.keeper import open_side
from tests.certificates import Authority, Pair

URLS = [parse_url("https://127.0.0.1:2379"), parse_url("https://node.example.com:2379")]


def cert_of(folder: Path, side: str = "client") -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "fixtures" / side / "cert.pem").read_bytes())


def test_it_is_made_once_where_etcd_keeps_it(tmp_path: Path) -> None:
    settings = load(["--auto-tls", "--self-signed-cert-validity=2"], {}).client_tls
    keeper = open_side(settings, str(tmp_path), URLS)
    assert keeper is not None and keeper.settings.self_signed and keeper.current().server is not None
    made = cert_of(tmp_path)
    lifetime = made.not_valid_after_utc - made.not_valid_before_utc
    assert lifetime.days == 730
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node.example.com", "localhost"]
    key = tmp_path / "fixtures" / "client" / "key.pem"
    assert key.stat().st_mode & 0o077 == 0
    open_side(settings, str(tmp_path), URLS)
    assert cert_of(tmp_path).serial_number == made.serial_number


def test_one_that_ran_out_is_replaced(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "fixtures" / "peer"
    folder.mkdir(parents=True)
    old = authority.issue("ran-out", expired=True)
    (folder / "cert.pem").write_bytes(old.cert.read_bytes())
    (folder / "key.pem").write_bytes(old.key.read_bytes())
    settings = load(["--peer-auto-tls"], {}).peer_tls
    keeper = open_side(settings, str(tmp_path), URLS)
    assert cert_of(tmp_path, "peer").serial_number != old.serial
    assert keeper is not None
    client = keeper.current().client
    assert client is not None and client.verify_mode == ssl.CERT_NONE, "nobody could verify it"


def test_given_certificates_win(tmp_path: Path, server: Pair, caplog: pytest.LogCaptureFixture) -> None:
    settings = load(["--auto-tls", *server.flags()], {}).client_tls
    with caplog.at_level(logging.WARNING, logger="kvstore"):
        keeper = open_side(settings, str(tmp_path), URLS)
    assert keeper is not None and keeper.settings.cert_file == str(server.cert)
    assert not (tmp_path / "fixtures").exists()
    assert caplog.messages == ["ignoring client auto TLS since certs given"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "fixtures").write_text("a file in its place")
    with pytest.raises(TlsError, match="cannot make a certificate"):
        open_side(load(["--auto-tls"], {}).client_tls, str(tmp_path), URLS)


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    folder = tmp_path / "fixtures" / "client"
    folder.mkdir(parents=True)
    (folder / "cert.pem").write_text("nonsense")
    (folder / "key.pem").write_text("nonsense")
    with pytest.raises(TlsError, match=r"cert.pem is no certificate: delete it"):
        open_side(load(["--auto-tls"], {}).client_tls, str(tmp_path), URLS)


def test_certificates_beside_a_plain_url_are_told_of(
    tmp_path: Path, server: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load([*server.flags(), "--client-cert-auth"], {}).client_tls
    with caplog.at_level(logging.WARNING, logger="kvstore"):
        open_side(settings, str(tmp_path), [parse_url("http://127.0.0.1:2379")])
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "scheme is HTTP while key and cert files are present",
        "scheme is HTTP while --client-cert-auth is enabled",
    ]


def test_without_tls_nothing_of_it_is_loaded() -> None:
    """A member without it pays neither memory nor time."""
    check = "import sys, kvstore.tls.door, kvstore.tls.dialing; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
