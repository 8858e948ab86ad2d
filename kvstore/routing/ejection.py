"""Which instances are passed over because of what requests met there. Pure: no clock, no I/O; `now` is passed in.

Nobody asks an instance how it is: its announcer does that. Here only requests that were sent anyway count.

- It did not take a connection: passed over at once. Nothing can be sent there, so there is no cap on how many.
- It took `after` requests in a row and failed each (broke off, was silent, answered 502, 503 or 504): passed over,
  as long as no more than `share` of the instances are. What fails everywhere is rarely the instances' fault.

The time doubles from `first_s` to `longest_s` with every ejection. An instance comes back by itself when it is over,
on probation: one failure more and it is out again. An answer to a request that was sent since ends that, and once it
has been well for as long as it was out, the next ejection is the first one again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """after: failures in a row; 0: only refused connections count. share: 0 to 1, of all instances, rounded down."""

    after: int = 5
    first_s: float = 1.0
    longest_s: float = 30.0
    share: float = 0.5


@dataclass(slots=True)
class _Record:
    failure_count: int = 0  # in a row
    ejection_count: int = 0
    since: float = -math.inf
    until: float = -math.inf
    is_connected: bool = True  # it takes connections, as far as was seen


class Ejections:
    """Of one set of instances, by id. Whoever is fine has no record: the usual answer costs one look-up."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._records: dict[str, _Record] = {}
        self._instance_count = 0

    def keep(self, names: Iterable[str]) -> None:
        """These are the instances. What is known of others is forgotten."""
        kept = set(names)
        self._instance_count = len(kept)
        self._records = {name: record for name, record in self._records.items() if name in kept}

    def forget(self, name: str) -> None:
        self._records.pop(name, None)

    def until(self, name: str) -> float:
        """Until when it is passed over; -inf: it is not."""
        record = self._records.get(name)
        return record.until if record is not None else -math.inf

    def failed(self, name: str, now: float, *, is_connected: bool) -> float | None:
        """For how many seconds this ejects it; None: it does not, or it is out already."""
        record = self._records.setdefault(name, _Record())
        record.failure_count += 1
        if now < record.until:
            return None
        if is_connected and not self._may_eject(record, now):
            return None
        seconds = min(self._policy.first_s * 2.0 ** min(record.ejection_count, 60), self._policy.longest_s)
        record.ejection_count += 1
        record.since, record.until, record.is_connected = now, now + seconds, is_connected
        return seconds

    def answered(self, name: str, sent_at: float, now: float) -> bool:
        """Whether this brings it back before its time: as when everybody is out and all are asked."""
        record = self._records.get(name)
        if record is None or sent_at < record.since:
            return False
        out_s = record.until - record.since
        if record.ejection_count == 0 or now >= record.until + out_s:
            del self._records[name]
            return False
        was_out = now < record.until
        record.failure_count = 0
        if was_out:
            record.until = now
        return was_out

    def _may_eject(self, record: _Record, now: float) -> bool:
        policy = self._policy
        if policy.after == 0 or record.failure_count < policy.after:
            return False
        out_count = sum(one.is_connected and now < one.until for one in self._records.values())
        return out_count + 1 <= math.floor(policy.share * self._instance_count)
