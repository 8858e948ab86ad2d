"""What a driver is: something that can be told the whole set of serving instances, and converges on it.

reconcile() is given the set, never a change to it, so a driver that missed something, restarted, or was wrong is
right again after the next call. It returns at once; a driver that has to wait for something (HAProxy's socket)
remembers the latest set and works towards it in a task of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kvstore.readiness.instance import Instance


class Driver(Protocol):
    def reconcile(self, instances: Sequence[Instance]) -> None:
        """instances: all that are ready or draining, ordered by id. Only those that are ready, with a weight,
        may be sent anything new; what a draining one has in hand is left to finish."""
