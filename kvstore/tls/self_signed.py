"""--auto-tls and --peer-auto-tls: a certificate of the member's own, kept where etcd keeps it. Blocking.

    DATA_DIR/fixtures/client/{cert,key}.pem    DATA_DIR/fixtures/peer/{cert,key}.pem

Nobody has signed it but itself, so it keeps eavesdroppers out and tells nobody who the member is; a client that
is given cert.pem as its CA does know. One that has run out is replaced at the next start.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import replace

from kvstore import log
from kvstore.tls.contexts import TlsError
from kvstore.tls.settings import TlsSettings


def settle(settings: TlsSettings, data_dir: str, hosts: Sequence[str]) -> TlsSettings:
    """The settings with the certificate that --auto-tls promises, made if there is none. hosts: what is listened
    on, for the certificate's names. Raises TlsError."""
    if not settings.auto:
        return settings
    if settings.serves:
        log.warn(f"ignoring {settings.side} auto TLS since certs given")
        return settings
    folder = os.path.join(os.path.abspath(data_dir), "fixtures", settings.side)
    cert_file, key_file = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    try:
        if not _is_valid(cert_file, key_file):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            _make(cert_file, key_file, hosts, settings.validity_years)
    except OSError as problem:
        raise TlsError(f"cannot make a certificate in {folder}: {problem.strerror}") from None
    return replace(settings, cert_file=cert_file, key_file=key_file, self_signed=True)


def _is_valid(cert_file: str, key_file: str) -> bool:
    from cryptography import x509

    if not (os.path.exists(cert_file) and os.path.exists(key_file)):
        return False
    with open(cert_file, "rb") as file:
        data = file.read()
    try:
        ends = x509.load_pem_x509_certificate(data).not_valid_after_utc
    except ValueError:
        raise TlsError(
            f"{cert_file} is no certificate: delete it, and the next start makes a new one"
        ) from None
    if ends > datetime.datetime.now(datetime.UTC):
        return True
    log.warn("the self-signed certificate has run out and is replaced", path=cert_file, not_after=str(ends))
    return False


def _make(cert_file: str, key_file: str, hosts: Sequence[str], years: int) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "kvstore")])
    begins = datetime.datetime.now(datetime.UTC)
    ends = begins + datetime.timedelta(days=365 * years)
    log.warn("automatically generate certificates", certificate_validity_bound_not_after=str(ends))
    usage = x509.KeyUsage(True, False, True, False, False, False, False, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(
            x509.SubjectAlternativeName([_name(host) for host in _distinct(hosts)]), critical=False
        )
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(key_file, pem, mode=0o600)
    _write(cert_file, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    log.info("created cert file", path=cert_file)
    log.info("created key file", path=key_file)


def _distinct(hosts: Sequence[str]) -> list[str]:
    """A wildcard address is nobody's name; localhost and its addresses belong together."""
    found = dict.fromkeys(host for host in hosts if host not in ("", "0.0.0.0", "::"))
    if not found or "localhost" in found or "127.0.0.1" in found:
        found |= dict.fromkeys(("localhost", "127.0.0.1", "::1"))
    return list(found)


def _name(host: str):  # type: ignore[no-untyped-def]  # its type is only there once the library is loaded
    from cryptography import x509

    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def _write(path: str, data: bytes, *, mode: int) -> None:
    """Whole or not at all, and never readable by others in between."""
    temporary = path + ".tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
