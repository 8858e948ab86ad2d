"""Every version of every key, in revision order: the replay that answers are held against.

Appending checks that each version continues the one before it, so a log with a hole, a repetition or a wrong
counter is found here already.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Protocol

from tests.checkers.history import KeyValue, Revision, Violation

FIRST_REVISION = 1


class View(Protocol):
    """The key space at one moment."""

    @property
    def revision(self) -> int: ...

    def get(self, key: bytes) -> KeyValue | None: ...

    def span(self, start: bytes, end: bytes | None) -> list[KeyValue]:
        """Those there with start <= key < end, in key order; end None: no end."""

    def at(self, revision: int) -> View: ...


class Timeline:
    def __init__(self, log: Iterable[Revision] = ()) -> None:
        self.revision = FIRST_REVISION
        self._revisions: dict[bytes, list[int]] = {}
        self._versions: dict[bytes, list[KeyValue]] = {}
        self._keys: list[bytes] = []
        self._log: list[Revision] = []
        for revision in log:
            self.append(revision)

    def append(self, revision: Revision) -> None:
        """Raises Violation where it does not continue what is here."""
        number = revision.number
        if number != self.revision + 1:
            raise Violation("log", f"revision {number} follows {self.revision}")
        if not revision.events:
            raise Violation("log", f"revision {number} changes nothing")
        seen: set[bytes] = set()
        for kv in revision.events:
            if kv.key in seen:
                raise Violation("log", f"{kv.key!r} is written twice in revision {number}")
            seen.add(kv.key)
            self._check(kv, number)
        for kv in revision.events:
            versions = self._versions.get(kv.key)
            if versions is None:
                bisect.insort(self._keys, kv.key)
                versions = self._versions[kv.key] = []
                self._revisions[kv.key] = []
            versions.append(kv)
            self._revisions[kv.key].append(number)
        self._log.append(revision)
        self.revision = number

    def _check(self, kv: KeyValue, number: int) -> None:
        before = self.get(kv.key)
        if kv.mod_revision != number:
            raise Violation("log", f"{kv} is in revision {number}")
        if kv.deleted:
            if before is None:
                raise Violation("log", f"revision {number} deletes {kv.key!r}, which is not there")
            wanted = (0, 0)
        else:
            wanted = (before.create_revision, before.version + 1) if before else (number, 1)
        if (kv.create_revision, kv.version) != wanted:
            raise Violation("log", f"{kv} follows {before}")

    def entry(self, number: int) -> Revision | None:
        """What happened in that revision; None where it is not in the log."""
        at = number - FIRST_REVISION - 1
        return self._log[at] if 0 <= at < len(self._log) else None

    def between(self, first: int, last: int) -> Sequence[Revision]:
        """Revisions first to last, both included."""
        low = max(0, first - FIRST_REVISION - 1)
        return self._log[low : max(low, last - FIRST_REVISION)]

    def get(self, key: bytes) -> KeyValue | None:
        versions = self._versions.get(key)
        return versions[-1] if versions and versions[-1].version else None

    def version_at(self, key: bytes, revision: int) -> KeyValue | None:
        revisions = self._revisions.get(key)
        if not revisions:
            return None
        at = bisect.bisect_right(revisions, revision) - 1
        if at < 0:
            return None
        kv = self._versions[key][at]
        return kv if kv.version else None

    def keys(self, start: bytes, end: bytes | None) -> list[bytes]:
        low = bisect.bisect_left(self._keys, start)
        high = len(self._keys) if end is None else bisect.bisect_left(self._keys, end)
        return self._keys[low:high]

    def span(self, start: bytes, end: bytes | None) -> list[KeyValue]:
        return self.at(self.revision).span(start, end)

    def at(self, revision: int) -> Moment:
        return Moment(self, revision)


class Moment:
    """A Timeline as it was at one revision."""

    __slots__ = ("_timeline", "revision")

    def __init__(self, timeline: Timeline, revision: int) -> None:
        self._timeline = timeline
        self.revision = revision

    def get(self, key: bytes) -> KeyValue | None:
        return self._timeline.version_at(key, self.revision)

    def span(self, start: bytes, end: bytes | None) -> list[KeyValue]:
        found = []
        for key in self._timeline.keys(start, end):
            kv = self._timeline.version_at(key, self.revision)
            if kv is not None:
                found.append(kv)
        return found

    def at(self, revision: int) -> Moment:
        return Moment(self._timeline, revision)


class Overlaid:
    """A view with the changes of one command over it, whose later parts see the earlier ones."""

    def __init__(self, below: View) -> None:
        self._below = below
        self.events: dict[bytes, KeyValue] = {}

    @property
    def revision(self) -> int:
        return self._below.revision + bool(self.events)

    @property
    def next_revision(self) -> int:
        return self._below.revision + 1

    def get(self, key: bytes) -> KeyValue | None:
        kv = self.events.get(key)
        if kv is None:
            return self._below.get(key)
        return kv if kv.version else None

    def span(self, start: bytes, end: bytes | None) -> list[KeyValue]:
        found = {kv.key: kv for kv in self._below.span(start, end)}
        for key, kv in self.events.items():
            if key >= start and (end is None or key < end):
                found[key] = kv
        return [found[key] for key in sorted(found) if found[key].version]

    def at(self, revision: int) -> View:
        return self if revision > self._below.revision else self._below.at(revision)
