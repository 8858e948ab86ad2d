"""Making one connection: a socket, TLS where it is asked for, and the server's settings; or why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import cast

from kvstore.client.connection import HUNG_UP, Connection, words
from kvstore.client.endpoints import Endpoint
from kvstore.client.tls import Tls, alert

LOOK_TIMEOUT_S = 1.0
NEXT_ADDRESS_S = 0.25
_TLS_ALERT = b"\x15\x03"


class DialFailed(Exception):
    """by_tls: somebody is there, and the settings of TLS on one side or the other are what is wrong."""

    def __init__(self, reason: str, *, by_tls: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.by_tls = by_tls


Make = Callable[[], Connection]
Address = str | tuple[str, int]


async def dial(endpoint: Endpoint, context: ssl.SSLContext | None, make: Make) -> Connection:
    """A connection whose server has sent its settings. context: for TLS. Raises DialFailed. Nothing is left behind
    where it is cancelled, which is what bounds its time."""
    sock = await _socket(endpoint)
    name = _host(endpoint) if context is not None else None
    connection = make()
    try:
        try:
            await _over(sock, endpoint, context, name, lambda: connection)
        except BaseException:
            sock.close()
            raise
        await asyncio.wait((connection.ready,))
    except ssl.SSLCertVerificationError as problem:
        text = f"its certificate is not accepted: {problem.verify_message}"
        raise DialFailed(text, by_tls=True) from None
    except ssl.SSLError as problem:
        raise DialFailed(alert(str(problem.reason or problem)), by_tls=True) from None
    except OSError as problem:
        if context is None:
            raise DialFailed(words(problem)) from None
        text = (
            "it closed the connection in the handshake: does it speak TLS? http:// is for one that does not"
        )
        raise DialFailed(text, by_tls=True) from None
    except BaseException:
        connection.abort("the connection was given up")
        raise
    if connection.takes_calls:
        return connection
    failure, why, first = connection.failure, connection.why, connection.first_bytes
    connection.abort("it takes no calls")
    if first.startswith(b"HTTP/1"):
        raise DialFailed("it speaks HTTP/1, not gRPC")
    if context is not None:
        raise _after_handshake(failure, why)
    if first.startswith(_TLS_ALERT) or (not first and await _speaks_tls(endpoint)):
        raise DialFailed("it speaks TLS: give the endpoint as https://", by_tls=True)
    raise DialFailed(why)


def _after_handshake(failure: str | BaseException, why: str) -> DialFailed:
    """A server that wants another certificate says so after the handshake (TLS 1.3), or only hangs up."""
    if isinstance(failure, ssl.SSLError):
        return DialFailed(alert(str(failure.reason or failure)), by_tls=True)
    if failure == HUNG_UP or isinstance(failure, ConnectionError):
        text = "it closed the connection after the handshake: it may not allow the certificate of this client"
        return DialFailed(text, by_tls=True)
    return DialFailed(why)


async def _socket(endpoint: Endpoint) -> socket.socket:
    """Connected to the first of the endpoint's addresses that answers. Raises DialFailed with what the last said."""
    return await first_of(await _addresses(endpoint))


async def first_of(addresses: Sequence[tuple[int, Address]]) -> socket.socket:
    """Addresses that say nothing do not hold up the others (RFC 8305): the next is tried beside them after a while,
    and at once where one fails. Raises DialFailed."""
    if len(addresses) == 1:
        return await _connected(*addresses[0])
    failure, waiting = DialFailed("it has no address"), list(addresses)
    tries: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or tries:
            if waiting:
                tries.add(asyncio.ensure_future(_connected(*waiting.pop(0))))
            limit_s = NEXT_ADDRESS_S if waiting else None
            done, _ = await asyncio.wait(tries, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                problem = each.exception()
                if problem is None:
                    tries.discard(each)
                    return each.result()
                if not isinstance(problem, DialFailed):
                    raise problem
                tries.discard(each)
                failure = problem
    finally:
        for each in tries:
            each.cancel()
            each.add_done_callback(_close)
    raise failure


def _close(late: asyncio.Task[socket.socket]) -> None:
    if not late.cancelled() and late.exception() is None:
        late.result().close()


async def _connected(family: int, address: Address) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as problem:  # a host without IPv6
        raise DialFailed(words(problem)) from None
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except OSError as problem:
        sock.close()
        raise DialFailed(words(problem)) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def _addresses(endpoint: Endpoint) -> list[tuple[int, Address]]:
    if endpoint.target.startswith("unix:"):
        return [(socket.AF_UNIX, endpoint.target.removeprefix("unix:"))]
    host, port = _host(endpoint), int(endpoint.target.rpartition(":")[2])
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        text = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise DialFailed(f"no address for {host!r}: {text}") from None
    return [(family, address[:2]) for family, _, _, _, address in found]  # type: ignore[misc]


def _host(endpoint: Endpoint) -> str:
    if endpoint.target.startswith("unix:"):
        return "localhost"
    return endpoint.target.rpartition(":")[0].removeprefix("[").removesuffix("]")


async def _over(
    sock: socket.socket,
    endpoint: Endpoint,
    context: ssl.SSLContext | None,
    name: str | None,
    protocol: Callable[[], asyncio.Protocol],
) -> asyncio.BaseTransport:
    loop = asyncio.get_running_loop()
    if endpoint.target.startswith("unix:"):
        transport, _ = await loop.create_unix_connection(
            protocol, sock=sock, ssl=context, server_hostname=name
        )
    else:
        transport, _ = await loop.create_connection(protocol, sock=sock, ssl=context, server_hostname=name)
    return transport


async def _speaks_tls(endpoint: Endpoint) -> bool:
    """Whether a server that hung up on a plain client speaks TLS instead; a second look, as it does not say."""
    context = Tls(insecure_skip_verify=True).context()
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            sock = await _socket(endpoint)
            transport = await _over(sock, endpoint, context, _host(endpoint), asyncio.Protocol)
            cast(asyncio.Transport, transport).abort()
    except ssl.SSLError as problem:
        return "_ALERT_" in str(problem.reason)
    except (OSError, DialFailed, TimeoutError):
        return False
    else:
        return True
    finally:
        if sock is not None:
            sock.close()
