"""The proxy's certificate and key as the files have them now: looked at in every handshake, read when they changed.

A look is one stat a file. A change that cannot be read, or whose key does not fit, leaves what was there in force and
is told once, until the files change again.
"""

from __future__ import annotations

import logging
import os
import ssl

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int] | None  # inode, size, time of change; None: not there


class CertificateError(Exception):
    """One line: what is wrong with which file."""


class Certificates:
    def __init__(self, cert_file: str, key_file: str) -> None:
        """Reads both. Raises CertificateError."""
        self._files = (cert_file, key_file)
        self._stamps = self._look()
        self._current = self._load()

    def context(self) -> ssl.SSLContext:
        """One to listen with; each handshake is made with what is current then."""
        context = self._load()
        # Called whether the client names a server or not (name None).
        context.sni_callback = lambda connection, name, _: self._choose(connection)
        return context

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject) -> None:
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps  # taken before reading: what changes meanwhile differs next time
            try:
                self._current = self._load()
            except CertificateError as problem:
                log.error("%s; going on with the certificate from before", problem)
            else:
                log.info("took over the changed %s", self._files[0])
        connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        cert_file, key_file = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        for path in self._files:
            try:
                with open(path, "rb"):
                    pass
            except OSError as problem:
                raise CertificateError(f"cannot open {path}: {problem.strerror}") from None
        try:
            context.load_cert_chain(cert_file, key_file, password=self._no_password)
        except ssl.SSLError as problem:
            if "KEY_VALUES_MISMATCH" in str(problem):
                raise CertificateError(
                    f"the key {key_file} does not fit the certificate {cert_file}"
                ) from None
            reason = (problem.reason or "no PEM data that can be used").replace("_", " ").lower()
            raise CertificateError(f"cannot load {cert_file} with the key {key_file}: {reason}") from None
        return context

    def _no_password(self) -> str:
        raise CertificateError(
            f"the key {self._files[1]} is encrypted, and there is nobody to ask for its password"
        )

    def _look(self) -> tuple[Stamp, ...]:
        return tuple(_stamp(path) for path in self._files)


def _stamp(path: str) -> Stamp:
    """Replacing, rewriting and turning a symbolic link elsewhere (as Kubernetes does) all change it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
