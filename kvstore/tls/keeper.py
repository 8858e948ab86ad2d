"""The certificates of today: files are looked at before every handshake, and read again when one has changed.

etcd reads certificate, key and revocation list at each handshake and the CA once; here the CA is followed too.
A look is one stat a file; it may block, so it is made on the thread that makes the handshakes. A change that
cannot be read leaves what was there in force, and is told once, until the files change again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Protocol

from kvstore import log
from kvstore.tls.contexts import Material, TlsError, load
from kvstore.tls.settings import TlsSettings

Stamp = tuple[int, int, int] | None  # inode, size, time of change; None: not there


class Url(Protocol):
    @property
    def scheme(self) -> str: ...

    @property
    def host(self) -> str: ...


def open_side(settings: TlsSettings, data_dir: str, urls: Sequence[Url]) -> Keeper | None:
    """At a start: the side's keeper, or None where its flags ask for no TLS. urls: what it listens on. Makes the
    certificate of --auto-tls. Blocking. Raises TlsError."""
    if settings.auto:
        from kvstore.tls import self_signed  # and with it cryptography, which others need not load

        settings = self_signed.settle(settings, data_dir, [url.host for url in urls])
    if settings.is_empty:
        return None
    flag = "--client-cert-auth" if settings.side == "client" else "--peer-client-cert-auth"
    for url in urls:
        if url.scheme != "http":
            continue
        if settings.serves:
            log.warn("scheme is HTTP while key and cert files are present; ignoring them", url=str(url))
        if settings.client_cert_auth:
            log.warn(f"scheme is HTTP while {flag} is enabled; ignoring it for this URL", url=str(url))
    return Keeper(settings)


class Keeper:
    """One side's material. Any thread may ask."""

    def __init__(self, settings: TlsSettings) -> None:
        """Reads everything. Raises TlsError."""
        self.settings = settings
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._material = load(settings)

    def current(self) -> Material:
        """What the files say now, or said when they last could be read. Blocking, for microseconds mostly."""
        with self._lock:
            stamps = self._look()
            if stamps != self._stamps:
                self._read_again(stamps)
            return self._material

    @property
    def revoked(self) -> frozenset[int]:
        """As of the last look."""
        return self._material.revoked

    def _look(self) -> tuple[Stamp, ...]:
        return tuple(_stamp(path) for path in self.settings.files)

    def _read_again(self, stamps: tuple[Stamp, ...]) -> None:
        """The stamps were taken before reading: what changes meanwhile differs from them next time."""
        before, self._stamps = self._stamps, stamps
        changed = [path for path, old, new in zip(self.settings.files, before, stamps) if old != new]
        try:
            self._material = load(self.settings)
        except TlsError as problem:
            log.error(
                "cannot use the changed TLS files; going on with those before",
                side=self.settings.side,
                changed=changed,
                error=str(problem),
            )
            return
        log.info("took over changed TLS files", side=self.settings.side, changed=changed)


def _stamp(path: str) -> Stamp:
    """Replacing, rewriting and turning a symbolic link elsewhere (as Kubernetes does) all change it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
