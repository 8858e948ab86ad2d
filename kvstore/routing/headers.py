"""What a proxy changes in the headers it passes on (RFC 9110 7.6.1), and nothing more.

Headers that belong to one connection are taken off, with those that Connection names; how a body is framed is decided
anew on each side. Everything else, repeated headers and Host included, is passed on as it came.

X-Forwarded-For, -Proto and -Host say who asked, how, and for which host. What a client says of that itself counts
only where the client is a proxy that is trusted: anybody may write anything there. No Via: nginx and others turn
compression off when they see one.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

HOP_BY_HOP = (
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
)
_KEPT = frozenset(
    ("", "close", "keep-alive", "upgrade", "host", "content-length")
)  # whatever Connection names
WEBSOCKET = {"Connection": "Upgrade", "Upgrade": "websocket"}


class Trusted:
    """Which peers are proxies whose word counts. Raises ValueError for what is no address or network."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(one, strict=False) for one in networks]
        self._known = functools.lru_cache(maxsize=1024)(self._look)

    def __contains__(self, peer: str) -> bool:
        return bool(self._networks) and self._known(peer)

    def _look(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


NOBODY = Trusted()


def target(request: web.BaseRequest) -> str:
    """What is asked for, as it came; of the absolute form (RFC 9112 3.2.2) path and query."""
    path = request.raw_path
    return path if path.startswith("/") else request.rel_url.raw_path_qs or "/"


def for_instance(request: web.BaseRequest, trusted: Trusted = NOBODY) -> CIMultiDict[str]:
    headers = request.headers.copy()
    _take_off_hops(headers)
    headers.popall("Expect", None)  # 100-continue is answered on this side
    if request.raw_path.startswith(("http:", "https:")):
        headers["Host"] = URL(request.raw_path, encoded=True).raw_authority  # it overrules the header
    peer = request.remote or "unknown"
    if peer in trusted:
        headers["X-Forwarded-For"] = ", ".join([*headers.getall("X-Forwarded-For", []), peer])
        headers.setdefault("X-Forwarded-Proto", request.scheme)
        headers.setdefault("X-Forwarded-Host", headers.get("Host", ""))
    else:
        headers.popall("Forwarded", None)
        headers["X-Forwarded-For"] = peer
        headers["X-Forwarded-Proto"] = request.scheme
        headers["X-Forwarded-Host"] = headers.get("Host", "")
    return headers


def for_client(answer: aiohttp.ClientResponse) -> CIMultiDict[str]:
    headers = answer.headers.copy()
    _take_off_hops(headers)
    headers.setdefault("Server", "kvstore")  # instead of the library's name and version
    return headers


def is_websocket(request: web.BaseRequest) -> bool:
    headers = request.headers
    return (
        headers.get("Upgrade", "").lower() == "websocket"
        and request.method == "GET"
        and not request.body_exists
        and any(token.strip().lower() == "upgrade" for token in headers.get("Connection", "").split(","))
    )


def _take_off_hops(headers: CIMultiDict[str]) -> None:
    for value in headers.getall("Connection", ()):
        for token in value.split(","):
            if (name := token.strip().lower()) not in _KEPT:
                headers.popall(name, None)
    for name in HOP_BY_HOP:
        headers.popall(name, None)
