"""TLS as a client speaks it: which files, and why a connection over it could not be made."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass

import grpc

from kvstore.client.endpoints import Endpoint

LOOK_TIMEOUT_S = 1.0
# A client's first bytes, at which a server that is content sends its own: the preface and empty SETTINGS.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_CLOSED = (ConnectionError, asyncio.IncompleteReadError)


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
            _read(self.cert_file), _read(self.key_file)
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
            except ssl.SSLError as problem:
                text = (problem.reason or "it is no PEM file").replace("_", " ").lower()
                raise ValueError(f"cannot use {self.cert_file} with {self.key_file}: {text}") from None
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as grpcio
        if not self.ca_file:
            context.load_default_certs()
            return context
        _read(self.ca_file)
        try:
            context.load_verify_locations(self.ca_file)
        except ssl.SSLError:
            raise ValueError(f"cannot use {self.ca_file} as CA: it has no certificate in PEM") from None
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for grpcio, which verifies by these always: see relay.py. Raises ValueError."""
        self.context()  # grpcio finds out about a bad file when it connects, and does not say which
        roots = _read(self.ca_file or ssl.get_default_verify_paths().cafile or "")
        return grpc.ssl_channel_credentials(roots, _read(self.key_file), _read(self.cert_file))


def _read(path: str) -> bytes | None:
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as problem:
        raise ValueError(f"open {path}: {(problem.strerror or str(problem)).lower()}") from None


def _no_password() -> str:
    raise ValueError("the private key is encrypted, and there is nobody to ask for its password")


async def ailment(endpoint: Endpoint, *, secure: bool, tls: Tls | None) -> str:
    """Why the connection to an endpoint failed, as far as TLS is the reason: one line, or "". A second look, made
    with Python's own TLS, because grpcio has one word for most of it."""
    host, port = _address(endpoint)
    if not port:
        return ""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await (_look(host, port, tls or Tls()) if secure else _look_plain(host, port))
    return ""


async def _look(host: str, port: int, tls: Tls) -> str:
    _, writer = await asyncio.open_connection(host, port)  # nobody there: an OSError that TLS has no part in
    writer.close()
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=tls.context(), server_hostname=host)
        try:
            writer.write(_GREETING)
            await reader.readexactly(1)
        finally:
            writer.transport.abort()
    except ssl.SSLCertVerificationError as problem:
        return f"its certificate is not accepted: {problem.verify_message}"
    except ssl.SSLError as problem:
        return _alert(str(problem.reason or problem))
    except asyncio.IncompleteReadError:
        return "it closed the connection after the handshake: it may not allow the certificate of this client"
    except ConnectionError:
        return (
            "it closed the connection in the handshake: does it speak TLS? http:// is for one that does not"
        )
    return ""


def _alert(reason: str) -> str:
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING"):
        return "it does not speak TLS: http:// is for a server without"
    what = reason.partition("_ALERT_")[2].replace("_", " ").lower()
    if what in ("certificate required", "handshake failure"):
        return "it demands a certificate of the client (--cert, --key)"
    if what:
        return f"it does not accept this client: {what}"
    return f"TLS: {reason.replace('_', ' ').lower()}"


async def _look_plain(host: str, port: int) -> str:
    """Whether a server that hangs up on a plain client speaks TLS instead."""
    context = Tls(insecure_skip_verify=True).context()
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as problem:
        if "_ALERT_" not in str(problem.reason):
            return ""
    except _CLOSED:
        return ""
    else:
        writer.transport.abort()
    return "it speaks TLS: give the endpoint as https://"


def _address(endpoint: Endpoint) -> tuple[str, int]:
    if endpoint.target.startswith("unix:"):
        return "", 0
    host, _, port = endpoint.target.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
