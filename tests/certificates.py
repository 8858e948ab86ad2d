"""Certificates for tests, made in a folder of the test's own by a CA of its own."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)
PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path
    serial: int

    def flags(self, prefix: str = "") -> list[str]:
        return [f"--{prefix}cert-file={self.cert}", f"--{prefix}key-file={self.key}"]


class Authority:
    """A CA; issue() writes NAME.pem and NAME.key, revoke() NAME.crl (DER, which every etcd reads)."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name)
        self.cert = folder / f"{name}.pem"
        made = (
            _builder(self._name, self._name, self._key.public_key(), _now() - DAY, _now() + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.cert.write_bytes(made.public_bytes(PEM))

    def issue(
        self,
        name: str,
        *,
        cn: str = "",
        hosts: Sequence[str] = ("127.0.0.1", "localhost"),
        uses: Sequence[x509.ObjectIdentifier] = BOTH,
        expired: bool = False,
    ) -> Pair:
        """hosts: the SAN; expired: it ran out yesterday."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = _now() - DAY if expired else _now() + DAY
        builder = _builder(_subject(cn), self._name, key.public_key(), _now() - 3 * DAY, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key", made.serial_number)
        pair.key.write_bytes(
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        pair.cert.write_bytes(made.public_bytes(PEM))
        return pair

    def revoke(self, name: str, *serials: int, pem: bool = False) -> Path:
        builder = x509.CertificateRevocationListBuilder(self._name, _now() - DAY, _now() + DAY)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_now() - DAY)
            builder = builder.add_revoked_certificate(entry.build())
        made = builder.sign(self._key, hashes.SHA256())
        path = self.folder / f"{name}.crl"
        path.write_bytes(made.public_bytes(PEM if pem else serialization.Encoding.DER))
        return path


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _subject(cn: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else [])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, False, not signs, False, False, signs, signs, False, False)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
