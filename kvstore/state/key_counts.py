"""How many keys lie in a range, without looking at each: every page of a listing tells the whole count.

The key space is cut by fences into stretches whose counts are known or not. A count walks the stretches it
covers, looks at the keys only of those that are not known or not covered whole, and leaves fences behind so that
the next count need not. Writes keep known counts right. learn() is the looking alone, so much of it at a time: who
lets it go through a range first finds the count itself quick. Nothing is kept of ranges that nobody counts, and
nothing is stored: a restart forgets it all. Pure.

Measured, 10,000 keys, "the first ten of all" (2026-11, one core): 6 ms by looking at each, 0.1 ms by stretches.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable
from itertools import islice

STRETCH_KEYS = 128
FENCES_MAX = 1 << 16

KeysIn = Callable[[bytes, bytes | None], Iterable[bytes]]
"""The keys there now, start <= key < end, in order; end None: no end."""
Look = Callable[[bytes, bytes | None], Iterable[tuple[bytes, bool]]]
"""The same and those that are not there any more or yet, and whether each is."""


class KeyCounts:
    def __init__(self, stretch_keys: int = STRETCH_KEYS, fences_max: int = FENCES_MAX) -> None:
        self._stretch_keys = stretch_keys
        self._fences_max = fences_max
        self._fences: list[bytes] = [b""]  # stretch i begins at fence i and ends at the next
        self._counts: dict[bytes, int] = {}  # of the stretches that are known, by their fence

    def added(self, key: bytes) -> None:
        fence = self._fences[bisect_right(self._fences, key) - 1]
        if fence in self._counts:
            self._counts[fence] += 1

    def removed(self, key: bytes) -> None:
        fence = self._fences[bisect_right(self._fences, key) - 1]
        if fence in self._counts:
            self._counts[fence] -= 1

    def copy(self) -> KeyCounts:
        made = KeyCounts(self._stretch_keys, self._fences_max)
        made._fences, made._counts = self._fences.copy(), self._counts.copy()
        return made

    def learn(self, start: bytes, end: bytes | None, look: Look, keys_max: int) -> bytes | None:
        """Looks at the next keys_max keys that no known stretch has: where to go on, None at the end."""
        at, left = start, keys_max
        number = bisect_right(self._fences, at) - 1
        while left > 0:
            following = self._fences[number + 1] if number + 1 < len(self._fences) else None
            upto = following if end is None or (following is not None and following < end) else end
            if self._fences[number] in self._counts:
                number += 1
            else:
                looked = list(islice(look(at, upto), left + 1))
                if len(looked) > left:
                    upto = looked.pop()[0]
                left -= len(looked)
                if len(looked) > 2 * self._stretch_keys:  # however few of them are there
                    self._look(at, upto, (key for key, is_there in looked if is_there), -1)
                number = bisect_right(self._fences, upto) - 1 if upto is not None else 0
            if upto is None or upto == end:
                return None
            at = upto
        return at

    def count(self, start: bytes, end: bytes | None, keys_in: KeysIn) -> int:
        if end is not None and start >= end:
            return 0
        if len(self._fences) > self._fences_max:
            self._fences, self._counts = [b""], {}
        total, at = 0, start
        while True:
            number = bisect_right(self._fences, at) - 1
            fence = self._fences[number]
            following = self._fences[number + 1] if number + 1 < len(self._fences) else None
            known = self._counts.get(fence) if at == fence else None
            if known is not None and (end is None or (following is not None and following <= end)):
                total += known
                upto = following
            else:
                upto = following if end is None or (following is not None and following < end) else end
                total += self._look(at, upto, keys_in(at, upto), 2 * self._stretch_keys)
            if upto is None or upto == end:
                return total
            at = upto

    def _look(self, start: bytes, end: bytes | None, keys: Iterable[bytes], floor: int) -> int:
        """Counts the keys from start to end, within one stretch that is not known; it is known afterwards where
        they are more than `floor`."""
        fences, count = [start], 0
        for key in keys:
            if count and count % self._stretch_keys == 0:
                fences.append(key)
            count += 1
        if count <= floor:
            return count
        outer = self._fences[bisect_right(self._fences, start) - 1]
        self._counts.pop(outer, None)  # what is left of it on either side is not known
        if start != outer:
            insort(self._fences, start)
        for fence in fences[1:]:
            insort(self._fences, fence)
        if end is not None and self._fences[bisect_right(self._fences, end) - 1] != end:
            insort(self._fences, end)
        for fence in fences:
            self._counts[fence] = self._stretch_keys
        self._counts[fences[-1]] = count - (len(fences) - 1) * self._stretch_keys
        return count
