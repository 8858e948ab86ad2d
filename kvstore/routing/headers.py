"""What a proxy changes in the headers it passes on (RFC 9110 7.6.1), and nothing more.

Headers that belong to one connection are taken off, with those that Connection names; how a body is framed is decided
anew on each side. Everything else, repeated headers and Host included, is passed on as it came.
"""

from __future__ import annotations

from collections.abc import Iterable

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


def for_instance(request: web.BaseRequest) -> CIMultiDict[str]:
    """Of a request, with who asked (X-Forwarded-For, one more at the end), how, and for which host."""
    headers = _passed_on(request.raw_headers, extra={"expect"})  # 100-continue was answered on this side
    peer = request.remote or "unknown"
    headers["X-Forwarded-For"] = ", ".join([*headers.getall("X-Forwarded-For", []), peer])
    headers.setdefault("X-Forwarded-Proto", request.scheme)
    if "Host" in headers:
        headers.setdefault("X-Forwarded-Host", headers["Host"])
    return headers


def for_client(answer: aiohttp.ClientResponse) -> CIMultiDict[str]:
    return _passed_on(answer.raw_headers)


def _passed_on(raw_headers: Iterable[tuple[bytes, bytes]], extra: Iterable[str] = ()) -> CIMultiDict[str]:
    pairs = [(_text(name), _text(value)) for name, value in raw_headers]
    dropped = HOP_BY_HOP.union(extra)
    for name, value in pairs:
        if name.lower() == "connection":
            dropped = dropped.union(token.strip().lower() for token in value.split(","))
    return CIMultiDict((name, value) for name, value in pairs if name.lower() not in dropped)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
