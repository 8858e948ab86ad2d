"""Host names to IP addresses, kept up to date: EDS has room for addresses alone."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping

AGAIN_S, AGAIN_FAILED_S = 10.0, 1.0
LOOKUP_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


class Names:
    """want() says of which hosts; resolved is called with all that are known whenever that changes. Each has a task
    of its own, so that one that nobody answers for holds up no other. One that cannot be looked up any more keeps
    its last address."""

    def __init__(self, resolved: Callable[[Mapping[str, str]], None]) -> None:
        self._resolved = resolved
        self._known: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def want(self, hosts: Iterable[str]) -> None:
        """Exactly these from now on."""
        wanted = set(hosts)
        for host in sorted(self._tasks.keys() - wanted):
            self._tasks.pop(host).cancel()
            self._known.pop(host, None)
        for host in sorted(wanted - self._tasks.keys()):
            self._tasks[host] = asyncio.ensure_future(self._follow(host))

    async def close(self) -> None:
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, host: str) -> None:
        said = ""
        while True:
            try:
                async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                    self._take(host, await _look_up(host))
                said = ""
            except (OSError, UnicodeError, TimeoutError) as problem:
                why = getattr(problem, "strerror", None) or str(problem) or "no answer"
                last = self._known.get(host)
                if why != said:
                    then = f"going on with {last}" if last else "it is not routed to"
                    log.warning("%s cannot be looked up: %s; %s", host, why, then)
                said = why
            await asyncio.sleep(AGAIN_FAILED_S if said else AGAIN_S)

    def _take(self, host: str, addresses: list[str]) -> None:
        """An address stays as long as it is one of them: their order changes from one answer to the next."""
        if addresses and self._known.get(host) not in addresses:
            self._known[host] = addresses[0]
            self._resolved(dict(self._known))


async def _look_up(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(answer[4][0]) for answer in found]
