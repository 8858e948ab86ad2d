"""Settings into contexts: the one place that reads certificates, keys, CAs and revocation lists. Blocking."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from kvstore.tls import ciphers
from kvstore.tls.settings import TlsSettings

# OpenSSL takes the server's first that the client has, too. Programs that offer both speak HTTP; gRPC's offer
# nothing but h2.
ALPN = ("http/1.1", "h2")
_VERSIONS = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}


class TlsError(Exception):
    """One line: what is wrong with which file."""


@dataclass(frozen=True)
class Material:
    """All that the files said at one moment. server: where there is a certificate to listen with; client: for
    the peers' side, which dials too."""

    server: ssl.SSLContext | None
    client: ssl.SSLContext | None
    revoked: frozenset[int]


def load(settings: TlsSettings) -> Material:
    """Raises TlsError."""
    server = client = None
    if settings.serves:
        server = _server(settings)
    if settings.side == "peer":
        client = _client(settings)
    return Material(server, client, _revoked(settings.crl_file) if settings.crl_file else frozenset())


def _server(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_versions(context, settings)
    # A connection lives for hours: resuming saves nothing, and every handshake is judged by the files of today.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(ALPN)
    _load_pair(context, settings.cert_file, settings.key_file)
    if settings.demands_certificates:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, settings.trusted_ca_file, ssl.Purpose.CLIENT_AUTH)
    return context


def _client(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _set_versions(context, settings)
    context.hostname_checks_common_name = False
    if settings.client_cert_file:
        _load_pair(context, settings.client_cert_file, settings.client_key_file)
    elif settings.serves:
        _load_pair(context, settings.cert_file, settings.key_file)
    if settings.self_signed:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, settings.trusted_ca_file, ssl.Purpose.SERVER_AUTH)
    return context


def _set_versions(context: ssl.SSLContext, settings: TlsSettings) -> None:
    context.minimum_version = _VERSIONS[settings.min_version]
    if settings.max_version:
        context.maximum_version = _VERSIONS[settings.max_version]
    if not settings.cipher_suites:
        return
    wanted = ciphers.tls12_names(settings.cipher_suites)
    if not wanted:  # only suites of TLS 1.3: there is nothing left to speak 1.2 with
        if settings.max_version == "TLS1.2":
            raise TlsError(
                "--cipher-suites has no suite for TLS1.2, and --tls-max-version allows nothing else"
            )
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    try:
        context.set_ciphers(":".join(wanted))
    except ssl.SSLError:
        offered: set[str] = set()
    else:
        offered = {cipher["name"] for cipher in context.get_ciphers()}
    for name in settings.cipher_suites:
        if name not in ciphers.TLS13 and ciphers.OPENSSL_NAMES[name] not in offered:
            raise TlsError(f"cipher suite {name} is not offered by {ssl.OPENSSL_VERSION}")


def _load_pair(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    for path in (cert_file, key_file):
        _check_readable(path)

    def no_password() -> str:
        raise TlsError(
            f"{key_file}: the private key is encrypted, and there is nobody to ask for its password"
        )

    try:
        context.load_cert_chain(cert_file, key_file, password=no_password)
    except ssl.SSLError as problem:
        if "KEY_VALUES_MISMATCH" in str(problem):
            raise TlsError(f"tls: private key {key_file} does not match public key {cert_file}") from None
        text = problem.reason or "no PEM data that can be used"
        raise TlsError(f"cannot load certificate {cert_file} with key {key_file}: {_plain(text)}") from None


def _trust(context: ssl.SSLContext, ca_file: str, purpose: ssl.Purpose) -> None:
    """As in Go, whatever the file has is trusted, a CA below a root and a single certificate too."""
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_TRUSTED_FIRST
    if not ca_file:
        context.load_default_certs(purpose)
        return
    _check_readable(ca_file)
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError as problem:
        text = problem.reason or "no PEM data that can be used"
        raise TlsError(f"cannot load CA {ca_file}: {_plain(text)}") from None


def _check_readable(path: str) -> None:
    """OpenSSL's own words for a file that is not there do not name it."""
    try:
        with open(path, "rb"):
            pass
    except OSError as problem:
        raise TlsError(f"open {path}: {(problem.strerror or str(problem)).lower()}") from None


def _plain(reason: str) -> str:
    return reason.replace("_", " ").lower()


def _revoked(path: str) -> frozenset[int]:
    """Serial numbers of a revocation list, which is neither asked who signed it nor until when it holds: as in
    etcd, whoever may write the file is believed."""
    from cryptography import x509  # some 11 MB, for those who have such a list

    _check_readable(path)
    with open(path, "rb") as file:
        data = file.read()
    try:
        if b"-----BEGIN" not in data:
            lists = [x509.load_der_x509_crl(data)]
        else:
            marker = b"-----BEGIN X509 CRL-----"
            lists = [x509.load_pem_x509_crl(marker + part) for part in data.split(marker)[1:]]
            if not lists:
                raise ValueError("no X509 CRL in it")
        return frozenset(entry.serial_number for each in lists for entry in each)
    except ValueError as problem:
        first = str(problem).partition("\n")[0]
        raise TlsError(f"cannot read revocation list {path}: {first}") from None


def serials(ssl_object: ssl.SSLObject) -> Iterator[int]:
    """Of the verified chain: the certificate, and the CAs above it."""
    from cryptography import x509

    below_313 = getattr(ssl_object, "_sslobj", None)
    chain = getattr(ssl_object, "get_verified_chain", None) or getattr(below_313, "get_verified_chain", None)
    found = chain() if chain is not None else None
    if not found:
        der = ssl_object.getpeercert(binary_form=True)
        found = [der] if der else []
    for certificate in found:
        der = certificate if isinstance(certificate, bytes) else certificate.public_bytes(_ENCODING_DER)
        yield x509.load_der_x509_certificate(der).serial_number


_ENCODING_DER = 2  # of the certificates that Python below 3.13 keeps to itself
