"""Addresses whose connections were ended for what they did: a new one from there is not read for a while.

Without that whoever floods has a whole burst again with every connection, and opens them as fast as they are ended.
Once is enough for a flood; other faults, one by one as cheap as a mistake, have to come often. The connections that
others at that address have are not touched; new ones wait with it. Pure.
"""

from __future__ import annotations

from kvstore.wire.pace import Bucket

ADDRESSES_MAX = 1_000
FAULTS_PER_S, FAULTS_BURST = 1.0, 10.0
"""Above what clients come to that mean well: grpc-go's, told that it pings too often, halves its pace each time."""


class Calm:
    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._until: dict[str, float] = {}  # the earliest first
        self._faults: dict[str, Bucket] = {}  # the one that was quiet longest first

    def flooded(self, address: str, now: float) -> None:
        self._until.pop(address, None)
        self._until[address] = now + self._wait_s
        for other, until in list(self._until.items()):
            if until > now and len(self._until) <= ADDRESSES_MAX:
                break
            del self._until[other]

    def faulted(self, address: str, now: float) -> None:
        """A connection from there broke the protocol, or a bound, in a way that is no flood by itself."""
        faults = self._faults.pop(address, None)
        if faults is None:
            faults = Bucket(per_s=FAULTS_PER_S, burst=FAULTS_BURST, now=now)
        self._faults[address] = faults
        if len(self._faults) > ADDRESSES_MAX:
            del self._faults[next(iter(self._faults))]
        if not faults.take(now):
            self.flooded(address, now)

    def wait_s(self, address: str, now: float) -> float:
        """How long a connection that is made now is left unread; 0 as a rule."""
        until = self._until.get(address)
        return 0.0 if until is None else max(0.0, until - now)
