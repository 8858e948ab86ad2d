"""Swarm testing: each seed draws its own mix of faults, so that no fault hides behind the others."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Options:
    """Probabilities a message or a step; delays in units of one nominal tick."""

    nodes: int
    spares: int  # nodes that belong to no configuration at first
    loss: float
    duplication: float
    delay_max: float
    disk_delay_max: float
    crash: float
    pause: float
    partition: float
    one_way: float
    compaction: float
    proposal: float
    read: float
    tick_skew: bool
    transfer: float
    membership: float
    clog: float
    crash_writing: float
    crash_new_leader: float
    hunt_leaders: bool  # faults strike leaders and candidates, when there are any

    @classmethod
    def draw(cls, random: Random) -> Options:
        def sometimes(high: float, chance: float = 0.6) -> float:
            return random.uniform(0, high) if random.random() < chance else 0.0

        return cls(
            nodes=random.choice((1, 2, 3, 3, 3, 4, 5)),
            spares=random.choice((0, 1, 2)),
            loss=sometimes(0.3),
            duplication=sometimes(0.3),
            delay_max=random.choice((0.2, 1.0, 4.0, 12.0)),
            disk_delay_max=random.choice((0.1, 1.0, 6.0, 25.0)),
            crash=sometimes(0.03),
            pause=sometimes(0.02),
            partition=sometimes(0.03),
            one_way=sometimes(0.03, 0.4),
            compaction=sometimes(random.choice((0.1, 0.1, 0.8))),
            proposal=random.choice((0.1, 0.4, 0.8)),
            read=sometimes(0.3),
            tick_skew=random.random() < 0.4,
            transfer=sometimes(0.02, 0.3),
            membership=sometimes(0.05),
            clog=sometimes(0.03, 0.4),
            crash_writing=sometimes(0.03, 0.4),
            crash_new_leader=sometimes(0.6, 0.25),
            hunt_leaders=random.random() < 0.5,
        )
