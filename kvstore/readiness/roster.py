"""What the store says of instances, key by key: who is there, in which state, and what cannot be read. Pure.

An instance says of itself what it is (instance.py); that it is to drain anybody may say, under a key of its own below
the instance's. So an announcement that is repeated does not undo a drain, and a drain outlives the instance, until it
is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from kvstore.readiness.instance import Instance, InvalidInstance, State, decode, drained_key


@dataclass(frozen=True, slots=True)
class Item:
    """A key and its value as stored; value None: the key was deleted."""

    key: bytes
    value: bytes | None


@dataclass(slots=True)
class Roster:
    """refused holds what could not be read, with the reason; such an instance is not there.

    Invariant: a key is in _said or in refused, never in both. drained may hold keys that are in neither.
    """

    refused: dict[bytes, str] = field(default_factory=dict)
    drained: set[bytes] = field(default_factory=set)
    _said: dict[bytes, Instance] = field(default_factory=dict)

    def take(self, items: Iterable[Item]) -> None:
        """Changes, oldest first."""
        for item in items:
            key = drained_key(item.key)
            if key is not None:
                (self.drained.discard if item.value is None else self.drained.add)(key)
                continue
            self._said.pop(item.key, None)
            self.refused.pop(item.key, None)
            if item.value is None:
                continue
            try:
                self._said[item.key] = decode(item.key, item.value)
            except InvalidInstance as problem:
                self.refused[item.key] = str(problem)

    def replace(self, items: Iterable[Item]) -> None:
        """The whole content: what it lacks is gone."""
        self.refused.clear()
        self.drained.clear()
        self._said.clear()
        self.take(items)

    def __contains__(self, key: bytes) -> bool:
        return key in self._said

    def __iter__(self) -> Iterator[tuple[bytes, Instance]]:
        """(key, instance) of each that is there; one that is ready and is to drain is draining."""
        for key, said in self._said.items():
            yield key, replace(said, state=State.DRAINING) if said.is_ready and key in self.drained else said

    @property
    def absent(self) -> list[bytes]:
        """Keys of instances that are to drain, and are not there; in order."""
        return sorted(self.drained - self._said.keys() - self.refused.keys())
