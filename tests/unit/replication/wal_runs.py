"""A reference run of the write-ahead log, and what must be true of a log recovered after any part of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from kvstore.replication.wal import Batch, Recovered, Wal, WalMetadata
from kvstore.replication.world import Disk
from raft.types import ConfState, Entry, EntryKind, HardState, SnapshotMeta

METADATA = WalMetadata(
    cluster_id=0xC1, member_id=0xA1, data_id=0xDEADBEEF12345678, created_ms=1_700_000_000_000
)
CONF = ConfState(voters=(1, 2, 3), learners=(4,))
DIRECTORY = "/wal"


@dataclass
class Model:
    """What was promised so far. Entries up to `released` may be gone."""

    incarnation: int = 0
    hard_state: HardState = field(default_factory=HardState)
    snapshot: SnapshotMeta | None = None
    base: tuple[int, int] = (0, 0)
    entries: list[Entry] = field(default_factory=list)
    released: int = 0

    @property
    def last_index(self) -> int:
        return self.entries[-1].index if self.entries else self.base[0]

    def after(
        self, hard_state: HardState | None, snapshot: SnapshotMeta | None, entries: list[Entry]
    ) -> Model:
        new = replace(self, entries=list(self.entries), hard_state=hard_state or self.hard_state)
        if snapshot is not None:
            new.snapshot, new.base, new.entries = snapshot, (snapshot.index, snapshot.term), []
        if entries:
            new.entries = [e for e in new.entries if e.index < entries[0].index] + entries
        return new


@dataclass
class Step:
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    entries: list[Entry] = field(default_factory=list)
    release: int = 0
    seal: bool = False


def plan(seed: int, count: int) -> list[Step]:
    """Appends, conflicting appends, snapshots, seals and releases, as raft makes them."""
    rng = Random(seed)
    model, steps, term = Model(), list[Step](), 1
    for _ in range(count):
        choice = rng.random()
        if choice < 0.08 and model.hard_state.commit > 3:
            steps.append(Step(release=rng.randint(1, model.hard_state.commit)))
            continue
        if choice < 0.16:
            steps.append(Step(seal=True))
            continue
        if choice < 0.22:
            index = model.last_index + rng.randint(1, 5)
            snapshot = SnapshotMeta(index, term, CONF)
            step = Step(HardState(term, rng.randint(0, 3), index), snapshot)
        else:
            first = model.last_index + 1
            if choice < 0.4 and model.last_index > model.hard_state.commit:
                term += 1
                first = rng.randint(model.hard_state.commit + 1, model.last_index)
            kinds = [EntryKind.NORMAL, EntryKind.CONFIG]
            entries = [
                Entry(first + i, term, rng.randbytes(rng.choice([0, 3, 40, 700])), rng.choice(kinds))
                for i in range(rng.randint(1, 4))
            ]
            commit = rng.randint(model.hard_state.commit, first - 1)
            step = Step(HardState(term, rng.randint(0, 3), commit), entries=entries)
        model = model.after(step.hard_state, step.snapshot, step.entries)
        steps.append(step)
    return steps


def execute(disk: Disk, steps: list[Step], promised: list[Model], segment_bytes: int = 4096) -> None:
    """Keeps promised[0] at what is durable and promised[1] at what is under way: two lines to recover to."""
    wal = Wal.create(DIRECTORY, METADATA, CONF, disk, segment_bytes)
    promised[:] = [Model(incarnation=1)] * 2
    for step in steps:
        now = promised[0]
        if step.release:
            promised[1] = promised[0] = replace(now, released=max(now.released, step.release))
            wal.release(step.release)
        elif step.seal:
            wal.seal()
        else:
            promised[1] = now.after(step.hard_state, step.snapshot, step.entries)
            batch = Batch()
            batch.add(step.hard_state, step.snapshot, step.entries)
            wal.append(batch)
            promised[0] = promised[1]
    wal.close()


def agrees(found: Recovered, model: Model) -> bool:
    if (found.metadata, found.conf_state) != (METADATA, CONF):
        return False
    if (found.hard_state, found.snapshot) != (model.hard_state, model.snapshot):
        return False
    if found.last_index != model.last_index or found.base_index > max(model.released, model.base[0]):
        return False
    kept = [e for e in model.entries if e.index > found.base_index]
    return found.entries == kept and found.incarnation > model.incarnation
