"""The way in on an https URL: the handshake, and the questions to the certificate, before any protocol sees a byte.

A handshake is a millisecond of signing and checking, so it is made on a thread of its own, one at a time: a
thousand clients that come at once wait for one another, and never does the event loop wait for them. OpenSSL
lets go of the GIL meanwhile. asyncio makes handshakes on the loop, keeps any number of them open for a minute,
and drops the alert that would tell the other side why it was refused.

What is not through within handshake_timeout_s is dropped, and of more than half_open_max at once the oldest goes:
whoever means it is through in a few round trips.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from kvstore import log
from kvstore.tls import certificates
from kvstore.tls.contexts import serials
from kvstore.tls.keeper import Keeper
from kvstore.tls.stream import TlsStream

HANDSHAKE_TIMEOUT_S = 10.0
HALF_OPEN_MAX = 512
HANDSHAKE_BYTES_MAX = (
    256 << 10
)  # OpenSSL takes certificates of 100 KiB; the first request may come right behind
NAMES_TIMEOUT_S = 5.0
_LINES_BURST = 20.0  # of refusals in the log; then one a second, with a count of those left out
_LINES_PER_S = 1.0

Inner = Callable[[str], asyncio.Protocol]


class Refused(Exception):
    """One line: why this connection is not let in."""


class Door:
    """One side's. guard() goes between a server and its protocols; close() ends what is half open."""

    def __init__(
        self,
        keeper: Keeper,
        *,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
        half_open_max: int = HALF_OPEN_MAX,
    ) -> None:
        self.keeper = keeper
        self.handshake_timeout_s = handshake_timeout_s
        self.half_open_max = half_open_max
        self.half_open: OrderedDict[Doorman, None] = OrderedDict()
        self.tasks: set[asyncio.Task[None]] = set()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=f"tls-{keeper.settings.side}")
        self._lines = _LINES_BURST
        self._lines_at = 0.0
        self._left_out = 0

    def guard(self, inner: Inner) -> Callable[[], asyncio.Protocol]:
        """A factory for a server. inner(common name of the verified certificate, or "") makes the protocol of a
        connection that is let in; the name is told where --client-cert-auth asks for it, as in etcd."""
        return lambda: Doorman(self, inner)

    def enter(self, doorman: Doorman) -> None:
        if len(self.half_open) >= self.half_open_max:
            oldest = next(iter(self.half_open))
            oldest.refuse("too many handshakes at once, and this was the oldest")
        self.half_open[doorman] = None

    def leave(self, doorman: Doorman) -> None:
        self.half_open.pop(doorman, None)

    def tell(self, address: str, reason: str) -> None:
        """A line in the log, unless there were too many of late: anybody can make them."""
        now = asyncio.get_running_loop().time()
        self._lines = min(_LINES_BURST, self._lines + (now - self._lines_at) * _LINES_PER_S)
        self._lines_at = now
        if self._lines < 1:
            self._left_out += 1
            return
        self._lines -= 1
        extra = {"rejections_left_out": self._left_out} if self._left_out else {}
        self._left_out = 0
        side = self.keeper.settings.side
        log.warn(f"rejected connection on {side} endpoint", remote_addr=address, error=reason, **extra)

    async def close(self) -> None:
        for doorman in list(self.half_open):
            doorman.drop()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.pool.shutdown(wait=False, cancel_futures=True)


class Doorman(asyncio.Protocol):
    """One connection until it is let in."""

    def __init__(self, door: Door, inner: Inner) -> None:
        self._door = door
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ssl: ssl.SSLObject | None = None
        self._revoked: frozenset[int] = frozenset()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._came: list[bytes] = []
        self._came_bytes = 0
        self._busy = False  # the thread has the SSL object; nothing here may touch it
        self._through = False
        self._address = ""

    # From the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        name = stream.get_extra_info("peername")
        self._address = name[0] if isinstance(name, tuple) else ""
        raw = stream.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timer = self._loop.call_later(self._door.handshake_timeout_s, self._too_late)
        self._door.enter(self)

    def data_received(self, data: bytes) -> None:
        self._came.append(data)
        self._came_bytes += len(data)
        if self._came_bytes > HANDSHAKE_BYTES_MAX:
            assert self._transport is not None, "data without a connection"
            self._transport.pause_reading()  # of a handshake there would be an end by now
            if not (self._busy or self._through):
                self.refuse(f"no handshake within {HANDSHAKE_BYTES_MAX} bytes")
                return
        if not (self._busy or self._through):
            self._step()

    def eof_received(self) -> bool:
        if not self._through:
            log.debug("a connection ended before its handshake", remote_addr=self._address)
            self.refuse("")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end()

    # The handshake

    def _step(self) -> None:
        self._busy = True
        data, self._came = b"".join(self._came), []
        step = self._loop.run_in_executor(self._door.pool, self._advance, data)
        step.add_done_callback(self._advanced)

    def _advance(self, data: bytes) -> bool:
        """On the thread. Whether the handshake is over; what is to be sent lies in outgoing."""
        if self._ssl is None:
            material = self._door.keeper.current()
            assert material.server is not None, "a door without a certificate"
            self._ssl = material.server.wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._revoked = material.revoked
        self._incoming.write(data)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self._judge()
        return True

    def _judge(self) -> None:
        """On the thread, too: parsing certificates takes its time. Raises Refused."""
        assert self._ssl is not None, "judged before the handshake"
        settings, certificate = self._door.keeper.settings, self._ssl.getpeercert()
        if not certificate:
            return
        reason = certificates.refusal(settings, certificate)
        if not reason and self._revoked:
            reason = certificates.revocation(self._revoked, serials(self._ssl))
        if reason:
            raise Refused(reason)

    def _advanced(self, step: asyncio.Future[bool]) -> None:
        self._busy = False
        if self._transport is None or self._transport.is_closing() or step.cancelled():
            if not step.cancelled():
                step.exception()  # seen: it was refused meanwhile
            return
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())
        problem = step.exception()
        if isinstance(problem, Refused | OSError):  # ssl's errors are OSErrors
            self.refuse(explain(problem))
        elif problem is not None:
            self.drop()
            raise problem
        elif step.result():
            self._question()
        elif self._came_bytes > HANDSHAKE_BYTES_MAX:
            self.refuse(f"no handshake within {HANDSHAKE_BYTES_MAX} bytes")
        elif self._came:
            self._step()

    def _question(self) -> None:
        """Where the certificate may be shown from. Only names that DNS must be asked for take a while."""
        assert self._ssl is not None and self._transport is not None, "asked too early"
        self._through = True
        certificate = self._ssl.getpeercert()
        if not certificate or not self._door.keeper.settings.checks_address or not self._address:
            self._let_in()
            return
        reason = certificates.address_refusal(certificate, self._address)
        if reason:
            self.refuse(reason)
        elif reason is not None:
            self._let_in()
        else:
            self._transport.pause_reading()
            task = self._loop.create_task(self._ask_names(certificate))
            self._door.tasks.add(task)
            task.add_done_callback(self._door.tasks.discard)

    async def _ask_names(self, certificate: certificates.Certificate) -> None:
        reason = "no answer from DNS"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NAMES_TIMEOUT_S):
                reason = await certificates.name_refusal(
                    certificate, self._address, names_of=_names_of, addresses_of=_addresses_of
                )
        if reason:
            self.refuse(reason)
        elif self._transport is not None and not self._transport.is_closing():
            self._let_in()

    # Its end, one way or the other

    def _let_in(self) -> None:
        transport, ssl_object = self._transport, self._ssl
        assert transport is not None and ssl_object is not None, "let in without a connection"
        self._end()
        name = ""
        if self._door.keeper.settings.client_cert_auth:
            name = certificates.common_name(ssl_object.getpeercert() or {})
        stream = TlsStream(transport, ssl_object, self._incoming, self._outgoing)
        for data in self._came:
            self._incoming.write(data)
        self._came = []
        stream.attach(self._inner(name))

    def refuse(self, reason: str) -> None:
        """Closes, behind what is to be sent; "" says nothing of it."""
        if self._transport is None:
            return
        if reason:
            self._door.tell(self._address, reason)
        self._end()
        self._transport.close()

    def drop(self) -> None:
        self._end()
        if self._transport is not None:
            self._transport.abort()

    def _too_late(self) -> None:
        if self._transport is not None:
            self._door.tell(self._address, f"no handshake within {self._door.handshake_timeout_s:g} s")
            self.drop()

    def _end(self) -> None:
        self._door.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_REASONS = {
    "WRONG_VERSION_NUMBER": "tls: first record does not look like a TLS handshake",
    "HTTP_REQUEST": "client sent an HTTP request to an HTTPS server",
    "HTTPS_PROXY_REQUEST": "client sent an HTTP request to an HTTPS server",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "tls: client didn't provide a certificate",
    "UNSUPPORTED_PROTOCOL": "tls: client offered only unsupported versions",
    "NO_SHARED_CIPHER": "tls: no cipher suite supported by both client and server",
}


def explain(problem: BaseException) -> str:
    """One line, in Go's words where it has them: they are what people look for."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError) and problem.reason:
        reason = str(problem.reason)
        if "_ALERT_" in reason:
            return "remote error: tls: " + reason.partition("_ALERT_")[2].replace("_", " ").lower()
        return _REASONS.get(reason, "tls: " + reason.replace("_", " ").lower())
    return str(problem) or type(problem).__name__


async def _names_of(address: str) -> list[str]:
    name, _ = await asyncio.get_running_loop().getnameinfo((address, 0), socket.NI_NAMEREQD)
    return [name]


async def _addresses_of(name: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]
