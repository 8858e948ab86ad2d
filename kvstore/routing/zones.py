"""Instances of one's own zone first. Pure.

While any instance of the zone is ready and takes traffic, only the zone's are routed to; when none is, all are. It is
all or nothing: one instance that is left in a zone gets all of what comes from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvstore.readiness.instance import Instance
from kvstore.routing.driver import Driver


def nearest(instances: Sequence[Instance], zone: str) -> list[Instance]:
    """Those to route to, in the order given. Who drains is always among them: that sends nobody there."""
    if not any(one.zone == zone and one.is_ready and one.weight for one in instances):
        return list(instances)
    return [one for one in instances if one.zone == zone or not one.is_ready]


@dataclass(frozen=True, slots=True)
class Zoned:
    """A Driver in front of another one."""

    driver: Driver
    zone: str

    def reconcile(self, instances: Sequence[Instance]) -> None:
        self.driver.reconcile(nearest(instances, self.zone))
