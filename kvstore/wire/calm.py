"""Addresses whose connection was ended for a flood: a new one from there is not read for a while.

Without that whoever floods has a whole burst again with every connection, and opens them as fast as they are ended.
The connections that others at that address have are not touched; new ones wait with it. Pure.
"""

from __future__ import annotations

ADDRESSES_MAX = 1_000


class Calm:
    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._until: dict[str, float] = {}  # the earliest first

    def flooded(self, address: str, now: float) -> None:
        self._until.pop(address, None)
        self._until[address] = now + self._wait_s
        for other, until in list(self._until.items()):
            if until > now and len(self._until) <= ADDRESSES_MAX:
                break
            del self._until[other]

    def wait_s(self, address: str, now: float) -> float:
        """How long a connection that is made now is left unread; 0 as a rule."""
        until = self._until.get(address)
        return 0.0 if until is None else max(0.0, until - now)
