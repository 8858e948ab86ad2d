"""How much room there is: the quota, what is used of it, and whether the alarm says that there is none.

    used = pages in use in LMDB + what is applied and not stored yet

admit() is asked by every write that takes space, before it is proposed. It counts down from the last measurement by
what each write costs at most (etcd's estimate), so that a burst between two measurements cannot run far over. Deletes,
compaction and revocations are never asked: there is room for them above the quota. Pure.
"""

from __future__ import annotations

from kvstore import errors

PUT_COST = 256
LEASE_COST = 64
CALM_SHARE = 0.9
"""Below this share of the quota there is space again."""


class Space:
    def __init__(self, quota_bytes: int, ceiling_bytes: int) -> None:
        """quota_bytes: 0 or less for none; then the ceiling, which LMDB's map must never reach, takes its place."""
        self.quota = quota_bytes if 0 < quota_bytes < ceiling_bytes else ceiling_bytes
        self.used = 0
        self.alarmed = False  # some member has raised NOSPACE: replicated, so it is the same everywhere
        self._left = self.quota
        self._refused = False

    def measured(self, used: int) -> None:
        self.used = used
        self._left = self.quota - used

    def admit(self, cost: int) -> None:
        """Raises NoSpace."""
        left = self._left - cost
        if left < 0 or self.alarmed:
            self._refused = True
            raise errors.NoSpace
        self._left = left

    @property
    def is_full(self) -> bool:
        """Whether this member should raise the alarm. One large write that did not fit while there was room for
        others is refused, and is no reason to refuse theirs."""
        return self.used >= self.quota or (self._refused and not self.is_calm)

    @property
    def is_calm(self) -> bool:
        return self.used < CALM_SHARE * self.quota

    def looked(self) -> None:
        """Whoever raises the alarm has seen what was refused so far."""
        self._refused = False
