"""Which watchers a key concerns: groups of watchers by range and options, found by key.

Watchers that want the same thing form one group, so an event is encoded and joined once for all of them.
A key is looked up in three places, none of which grows with the number of watchers on other keys:
  - single keys: one dictionary;
  - prefixes, which nearly every range is: one dictionary for each length that occurs, asked for key[:length];
  - other ranges: sorted by start in blocks that know their highest end, so that a lookup skips the blocks it
    cannot be in. The blocks are rebuilt at the first lookup after a change.
Pure.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvstore.state.watch_hub import Watcher

BLOCK = 32


class Group:
    """Watchers with one range and one set of options, and the events that wait to be handed to them."""

    __slots__ = ("no_delete", "no_put", "pending", "prev_kv", "watchers")

    def __init__(self, *, no_put: bool, no_delete: bool, prev_kv: bool) -> None:
        self.no_put = no_put
        self.no_delete = no_delete
        self.prev_kv = prev_kv
        self.watchers: dict[Watcher, None] = {}
        self.pending: list[tuple[int, bytes]] = []  # (revision, encoded events field), ascending


Groups = dict[tuple[bool, bool, bool], Group]


class WatchIndex:
    def __init__(self) -> None:
        self._single: dict[bytes, Groups] = {}
        self._prefixes: dict[int, dict[bytes, Groups]] = {}
        self._lengths: list[int] = []
        self._ranges: dict[tuple[bytes, bytes | None], Groups] = {}
        self._blocks: list[tuple[bytes, bytes | None, list[tuple[bytes, bytes | None, Groups]]]] | None = []
        self._starts: list[bytes] = []
        self.watcher_count = 0

    def add(self, watcher: Watcher) -> None:
        groups = self._groups(watcher.key, watcher.range_end, create=True)
        assert groups is not None
        options = (watcher.no_put, watcher.no_delete, watcher.prev_kv)
        group = groups.get(options)
        if group is None:
            group = groups[options] = Group(
                no_put=watcher.no_put, no_delete=watcher.no_delete, prev_kv=watcher.prev_kv
            )
        group.watchers[watcher] = None
        watcher.group = group
        self.watcher_count += 1

    def remove(self, watcher: Watcher) -> None:
        groups = self._groups(watcher.key, watcher.range_end, create=False)
        group = watcher.group
        assert groups is not None and group is not None, "the watcher is in no group here"
        del group.watchers[watcher]
        watcher.group = None
        self.watcher_count -= 1
        if not group.watchers:
            del groups[(group.no_put, group.no_delete, group.prev_kv)]
            if not groups:
                self._forget(watcher.key, watcher.range_end)

    def groups_of(self, key: bytes) -> Iterator[Group]:
        found = self._single.get(key)
        if found is not None:
            yield from found.values()
        for length in self._lengths:
            found = self._prefixes[length].get(key[:length])
            if found is not None:
                yield from found.values()
        if self._ranges:
            yield from self._ranges_of(key)

    def watchers(self) -> Iterator[Watcher]:
        prefixed = (groups for table in self._prefixes.values() for groups in table.values())
        for groups in itertools.chain(self._single.values(), prefixed, self._ranges.values()):
            for group in groups.values():
                yield from group.watchers

    def _groups(self, key: bytes, range_end: bytes, *, create: bool) -> Groups | None:
        if not range_end:
            table = self._single
        else:
            prefix = prefix_of(key, range_end)
            if prefix is None:
                bounds = (key, None if range_end == b"\0" else range_end)
                if create and bounds not in self._ranges:
                    self._ranges[bounds] = {}
                    self._blocks = None
                return self._ranges.get(bounds)
            key = prefix
            if create and len(key) not in self._prefixes:
                self._prefixes[len(key)] = {}
                self._lengths = sorted(self._prefixes)
            table = self._prefixes.get(len(key), {})
        return table.setdefault(key, {}) if create else table.get(key)

    def _forget(self, key: bytes, range_end: bytes) -> None:
        if not range_end:
            del self._single[key]
            return
        prefix = prefix_of(key, range_end)
        if prefix is None:
            del self._ranges[(key, None if range_end == b"\0" else range_end)]
            self._blocks = None
            return
        table = self._prefixes[len(prefix)]
        del table[prefix]
        if not table:
            del self._prefixes[len(prefix)]
            self._lengths = sorted(self._prefixes)

    def _ranges_of(self, key: bytes) -> Iterator[Group]:
        if self._blocks is None:
            self._rebuild()
        assert self._blocks is not None
        for at in range(bisect.bisect_right(self._starts, key)):
            _, highest, members = self._blocks[at]
            if highest is not None and highest <= key:
                continue
            for start, end, groups in members:
                if start <= key and (end is None or key < end):
                    yield from groups.values()

    def _rebuild(self) -> None:
        ordered = sorted(self._ranges.items(), key=lambda each: (each[0][0], each[0][1] or b""))
        self._blocks = []
        for at in range(0, len(ordered), BLOCK):
            members = [(start, end, groups) for (start, end), groups in ordered[at : at + BLOCK]]
            ends = [end for _, end, _ in members if end is not None]
            highest = max(ends) if len(ends) == len(members) else None
            self._blocks.append((members[0][0], highest, members))
        self._starts = [start for start, _, _ in self._blocks]


def prefix_of(key: bytes, range_end: bytes) -> bytes | None:
    """The prefix that the range [key, range_end) is, None where it is none. b"" for the whole store."""
    if key == b"\0" and range_end == b"\0":
        return b""
    return key if prefix_end(key) == range_end else None


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with prefix: etcd's own rule."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else b"\0"
