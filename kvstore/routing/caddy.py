"""Drives a running Caddy through its admin API: the upstreams of one reverse_proxy, found by its "@id".

    set ─► GET /id/NAME/upstreams ─► the same dial addresses? ─ yes ─► nothing
                                            │ no
                                            ▼
                          PATCH (POST where there are none) ─► Caddy takes over, requests go on

Converges when the set changed, at once, and every interval in any case: a Caddy that was restarted or reloaded has
what its file says, and nothing tells us. While it does not answer it is asked ever more slowly, and goes on with what
it has. What an upstream has besides its address is left as it is.

Caddy's ETags are not used: it sends them in a trailer, which few clients of HTTP read, and what they would protect,
this one list, is ours to keep; changes to the rest of its configuration are not touched by a PATCH of the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from kvstore.readiness.instance import Instance

RETRY_S, RETRY_MAX_S = 0.1, 1.0
ASK_TIMEOUT_S = 10.0
ANSWER_CHARACTERS_MAX = 300
UNIX = "unix://"

log = logging.getLogger(__name__)


class CaddyError(Exception):
    """Caddy cannot be talked to, or does not have what it should."""


@dataclass(frozen=True, slots=True)
class Settings:
    """admin: http://HOST:PORT, or unix:///PATH. name: the "@id" of a reverse_proxy handler."""

    admin: str
    name: str
    interval_s: float = 0.25


def wanted(current: Sequence[Any], instances: Sequence[Instance]) -> list[Any]:
    """The upstreams as they should be, made of those that are there: who stays keeps its place and its other
    settings. Caddy has no weights, but nobody is sent where the weight is 0."""
    dials = {one.address for one in instances if one.is_ready and one.weight}
    kept = []
    for upstream in current:
        dial = upstream.get("dial") if isinstance(upstream, dict) else None
        if dial in dials:
            kept.append(upstream)
            dials.discard(dial)
    return kept + [{"dial": dial} for dial in sorted(dials)]


class CaddyDriver:
    """A Driver. reconcile() notes the set, run() brings Caddy to it, until it is cancelled. Before the first set
    Caddy is left alone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        base = "http://localhost" if settings.admin.startswith(UNIX) else settings.admin.rstrip("/")
        self._url = f"{base}/id/{settings.name}/upstreams"
        self._instances: Sequence[Instance] | None = None
        self._wake = asyncio.Event()
        self._said = ""

    def reconcile(self, instances: Sequence[Instance]) -> None:
        self._instances = instances
        self._wake.set()

    async def run(self) -> None:
        path = self._settings.admin.removeprefix(UNIX)
        is_unix = self._settings.admin.startswith(UNIX)
        connector = aiohttp.UnixConnector(path) if is_unix else aiohttp.TCPConnector()
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        headers = {"Host": ""} if is_unix else {}  # Caddy takes no other name on a socket
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
            retry_s = RETRY_S
            while True:
                self._wake.clear()
                pause_s = self._settings.interval_s
                if self._instances is not None:
                    try:
                        await self._converge(session, self._instances)
                        retry_s = RETRY_S
                    except CaddyError as problem:
                        if (
                            retry_s > RETRY_S
                        ):  # not the first: its admin address is away while it takes a change
                            self._say(str(problem))
                        pause_s, retry_s = retry_s, min(retry_s * 2, RETRY_MAX_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()

    async def _converge(self, session: aiohttp.ClientSession, instances: Sequence[Instance]) -> None:
        current = await self._call(session, "GET")
        if current is not None and not isinstance(current, list):
            raise CaddyError(
                f"{self._url}: {str(current)[:ANSWER_CHARACTERS_MAX]!r} is not a list of upstreams"
            )
        target = wanted(current or [], instances)
        if current is None or target != current:
            await self._call(session, "POST" if current is None else "PATCH", target)
            log.info("Caddy: %s", " ".join(str(one["dial"]) for one in target) or "nobody")
        if self._said:
            log.info("Caddy does as it is asked again")
            self._said = ""

    async def _call(self, session: aiohttp.ClientSession, method: str, body: Any = None) -> Any:
        """What a GET answers; None of any other. Raises CaddyError."""
        try:
            keywords = {} if method == "GET" else {"json": body}
            async with session.request(method, self._url, **keywords) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError) as problem:
            reason = str(problem) or f"no answer within {ASK_TIMEOUT_S:g} s"
            raise CaddyError(f"Caddy at {self._settings.admin} cannot be reached: {reason}") from None
        if response.status != 200:
            raise CaddyError(f"Caddy refused {method} {self._url}: {_reason(text)}")
        if method != "GET":
            return None
        try:
            return json.loads(text)
        except ValueError:
            raise CaddyError(f"{self._url}: the answer is not JSON; is it Caddy's admin address?") from None

    def _say(self, problem: str) -> None:
        """Once, until everything is well again."""
        if problem != self._said:
            self._said = problem
            log.warning("%s; trying again", problem)


def _reason(text: str) -> str:
    try:
        reason = str(json.loads(text)["error"])
    except (ValueError, TypeError, KeyError):
        reason = text.strip()
    if "unknown object ID" in reason:
        reason += '; a reverse_proxy handler of its configuration needs "@id" with this name'
    return reason[:ANSWER_CHARACTERS_MAX]
