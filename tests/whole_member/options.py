"""Swarm testing: each seed draws its own cluster, network, disks, faults, bounds and traffic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random


@dataclass(frozen=True)
class Options:
    """Rates a second of simulated time; delays in seconds."""

    members: int
    duration_s: float
    # network
    delay_s: float
    loss: float
    duplication: float
    reorder: bool
    cut_rate: float
    one_way_rate: float
    # members
    crash_rate: float
    torn_write_rate: float
    blackout_rate: float  # all members at once
    stop_rate: float
    pause_rate: float
    pause_s: float
    request_timeout_s: float
    disk_delay_s: float
    slow_disk_rate: float
    disk_error_rate: float
    storage_delay_s: float
    transfer_rate: float
    down_s: float
    clock_skew: float  # a member's clock goes faster or slower by up to this share
    # bounds of the members' own, small so that they are reached
    segment_bytes: int
    trim_commands: int
    tail_commands: int
    apply_bytes: int
    slice_revisions: int
    compaction_slice: int
    drops_per_generation: int
    seal_records: int
    fragment_bytes: int
    batch_bytes: int
    # traffic
    sessions: int
    think_s: float
    profiles: tuple[str, ...]
    compaction_s: float
    value_bytes: int
    check_every: int
    gone: float  # of what is lost on its way, how often it is taken for the end of the other's process
    quotas: bool = False  # one session sets and removes them
    mark_step_s: float = 2.0  # between marks of what is left of a lease

    @classmethod
    def draw(cls, random: Random) -> Options:
        def sometimes(high: float, chance: float = 0.5) -> float:
            return random.uniform(0, high) if random.random() < chance else 0.0

        profiles = ("put", "kubernetes", "lease", "watch", "mixed")
        drawn = cls(
            members=random.choice((1, 3, 3, 3, 3, 3, 5)),
            duration_s=random.uniform(2.0, 5.0),
            delay_s=random.choice((0.001, 0.005, 0.02, 0.06)),
            loss=sometimes(0.1),
            duplication=sometimes(0.1, 0.4),
            reorder=random.random() < 0.4,
            cut_rate=sometimes(1.0),
            one_way_rate=sometimes(1.0, 0.4),
            crash_rate=sometimes(2.0, 0.6),
            torn_write_rate=sometimes(1.5, 0.4),
            blackout_rate=sometimes(0.5, 0.3),
            stop_rate=sometimes(0.7, 0.3),
            pause_rate=sometimes(1.0),
            pause_s=random.choice((0.2, 1.0, 3.0)),
            request_timeout_s=random.choice((0.3, 0.8, 2.0)),
            disk_delay_s=random.choice((0.001, 0.005, 0.03)),
            slow_disk_rate=sometimes(1.0, 0.4),
            disk_error_rate=sometimes(0.5, 0.2),
            storage_delay_s=random.choice((0.002, 0.05, 0.4)),
            transfer_rate=sometimes(0.5, 0.3),
            down_s=random.choice((0.1, 0.5, 1.5)),
            clock_skew=random.choice((0.0, 0.0, 0.01, 0.1)),
            segment_bytes=random.choice((4 << 10, 16 << 10)),
            trim_commands=random.choice((0, 5, 30, 10_000)),
            tail_commands=random.choice((0, 0, 5, 30)),
            apply_bytes=random.choice((200, 2 << 20)),
            slice_revisions=random.choice((1, 3, 20, 1000)),
            compaction_slice=random.choice((2, 10, 200)),
            drops_per_generation=random.choice((50, 20_000)),
            seal_records=random.choice((3, 20, 20_000)),
            fragment_bytes=random.choice((100, 400)),
            batch_bytes=random.choice((300, 1 << 20)),
            sessions=random.choice((4, 6, 8)),
            think_s=random.choice((0.005, 0.02, 0.05)),
            profiles=tuple(random.choice(profiles) for _ in range(8)),
            compaction_s=random.choice((0.1, 0.15, 0.2, 0.2, 0.0)),
            value_bytes=random.choice((0, 20, 300)),
            check_every=random.choice((5, 20)),
            gone=sometimes(0.3, 0.4),
        )
        # Follows from the others, so that schedules without either are what they were before there was any.
        own = int(drawn.duration_s * 1e6)
        return replace(drawn, quotas=own % 4 == 0, mark_step_s=0.1 if own % 3 == 0 else 2.0)
