"""TLS as a client speaks it: which files, and what an alert of the server means."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files, "" for none. ca_file: whom to trust, instead of those the system trusts. cert_file and
    key_file: what to show to a server that asks. insecure_skip_verify: take whoever answers for the server."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure_skip_verify: bool = False

    def context(self) -> ssl.SSLContext:
        """Reads the files. Raises ValueError that says what is wrong with which."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError(
                f"KeyFile and CertFile must both be present[key: {self.key_file}, cert: {self.cert_file}]"
            )
        if self.cert_file:
            _check(self.cert_file)
            _check(self.key_file)
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
            except ssl.SSLError as problem:
                text = (problem.reason or "it is no PEM file").replace("_", " ").lower()
                raise ValueError(f"cannot use {self.cert_file} with {self.key_file}: {text}") from None
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go's and grpcio's clients do
        if not self.ca_file:
            context.load_default_certs()
            return context
        _check(self.ca_file)
        try:
            context.load_verify_locations(self.ca_file)
        except ssl.SSLError:
            raise ValueError(f"cannot use {self.ca_file} as CA: it has no certificate in PEM") from None
        return context


def _check(path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read()
    except OSError as problem:
        raise ValueError(f"open {path}: {(problem.strerror or str(problem)).lower()}") from None


def _no_password() -> str:
    raise ValueError("the private key is encrypted, and there is nobody to ask for its password")


def alert(reason: str) -> str:
    """One line for OpenSSL's word for a handshake that failed."""
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING"):
        return "it does not speak TLS: http:// is for a server without"
    what = reason.partition("_ALERT_")[2].replace("_", " ").lower()
    if what in ("certificate required", "handshake failure"):
        return "it demands a certificate of the client (--cert, --key)"
    if what:
        return f"it does not accept this client: {what}"
    return f"TLS: {reason.replace('_', ' ').lower()}"
