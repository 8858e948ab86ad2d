"""A set of keys as a union of ranges: what a user may read, or write. Pure.

Ranges are [start, end), end None for none. Those that overlap or touch are one, so that a request is covered
by the union of what several permissions allow, however it was granted in pieces.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

KeyRange = tuple[bytes, bytes | None]


def key_range(key: bytes, range_end: bytes) -> KeyRange:
    """As requests and permissions say it: no range_end for the one key, a zero byte for no end."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == b"\0" else range_end


def prefix_range(prefix: bytes) -> KeyRange:
    """Every key that begins with it."""
    kept = prefix.rstrip(b"\xff")
    return prefix, kept[:-1] + bytes((kept[-1] + 1,)) if kept else None


class KeyRanges:
    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[KeyRange]) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes | None] = []
        for start, end in sorted(ranges, key=lambda each: each[0]):
            if end is not None and end <= start:
                continue  # holds no key
            if self._starts:
                last = self._ends[-1]
                if last is None:
                    break
                if start <= last:
                    self._ends[-1] = None if end is None else max(last, end)
                    continue
            self._starts.append(start)
            self._ends.append(end)

    def cover(self, start: bytes, end: bytes | None) -> bool:
        """Whether every key of the range is in the set. Of a range that holds no key, whether its start is."""
        at = bisect.bisect_right(self._starts, start) - 1
        if at < 0:
            return False
        last = self._ends[at]
        if last is None:
            return True
        return start < last and end is not None and end <= last

    def __bool__(self) -> bool:
        return bool(self._starts)
