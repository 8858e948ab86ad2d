"""A schedule: members, clients and faults under one seed; then everything heals, and what happened is checked.

faults ─► healed: all members up, no loss ─► clients stop ─► leases run out ─► all members equal ─► checkers
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kvstore.replication import driver
from kvstore.rpc import StreamMethod, UnaryMethod
from kvstore.state import compaction, lease_marks, machine, watch_hub
from tests.checkers import everything
from tests.checkers.equality import differences, stored_in
from tests.checkers.history import History, Violation
from tests.whole_member.calls import (
    CLIENT_DELAY_S,
    NOTICE_S,
    UNKNOWN,
    Answer,
    Listener,
    StreamHere,
    UnaryCallHere,
)
from tests.whole_member.clients import Clients
from tests.whole_member.member import SimulatedMember
from tests.whole_member.network import Network
from tests.whole_member.options import Options
from tests.whole_member.recorder import Recorder
from tests.whole_member.world import Life, World

HEAL_S = 2.6  # for an election, for what clients wait for, and for what the outbox sends again
QUIET_S = 4.3  # above every TTL and leases.SLACK_S
CATCH_UP_S = 20.0
MEMORY = "/dev/shm"


@dataclass
class Outcome:
    seed: int
    violation: str = ""
    trace_hash: str = ""
    counts: dict[str, float] = field(default_factory=dict)


class Schedule:
    def __init__(
        self,
        seed: int,
        directory: str,
        *,
        story: Callable[[str], None] | None = None,
        options: Options | None = None,
    ) -> None:
        self.seed = seed
        self.world = World(seed, story)
        self.options = options or Options.draw(self.world.random)
        self.count = self.options.members
        self.history = History()
        self.network = Network(self.world, self.options)
        self.recorder = Recorder(self.world, self.history, check_every=self.options.check_every)
        self.members = {
            each: SimulatedMember(
                self.world,
                self.options,
                self.network,
                self.recorder,
                each,
                os.path.join(directory, f"n{each}"),
            )
            for each in range(1, self.count + 1)
        }
        self.history.clock_rate_max = max(1.0, *(member.clock_rate for member in self.members.values()))
        for member in self.members.values():
            member.gone = self._restart_later
        self.clients = Clients(self.world, self.options, self, self.history)
        self.healed = False
        self.counts: dict[str, float] = {"crashes": 0, "stops": 0, "pauses": 0, "cuts": 0}

    # The whole of it

    def run(self) -> None:
        """Raises whatever a member or a checker objects to."""
        self.world.tell(f"seed {self.seed}: {self.options}")
        with self._bounds():
            try:
                for member in self.members.values():
                    member.start()
                self.clients.start()
                self._schedule_faults()
                self.world.run_until(self.options.duration_s)
                self._heal()
                self._settle()
            finally:
                for member in self.members.values():
                    member.crash()
        self.check()

    def check(self) -> None:
        """The history against the properties."""
        history = self.history
        self.counts |= everything.check(history)
        self.counts |= {
            "simulated_s": self.world.now,
            "steps": self.world.events,
            "revisions": len(history.log),
            "watches": len(history.watches),
            "renewals": len(history.renewals),
            "unknown": sum(1 for each in history.operations if each.is_unknown),
            "compactions": len(history.compactions),
            "elections": self.recorder.elections,
            "snapshots": self.recorder.snapshots_installed,
            "starts": sum(member.starts for member in self.members.values()),
            "entries_compared": self.recorder.entries_compared,
            "states_compared": self.recorder.states_compared,
        }

    @contextmanager
    def _bounds(self) -> Iterator[None]:
        """The members' own bounds, as small as this schedule wants them."""
        options = self.options
        wanted: list[tuple[Any, str, float]] = [
            (lease_marks, "STEP_MIN_S", options.mark_step_s),
            (driver, "APPLY_BYTES_PER_TURN", options.apply_bytes),
            (watch_hub, "SLICE_REVISIONS", options.slice_revisions),
            (compaction, "SLICE_RECORDS", options.compaction_slice),
            (compaction, "DROPS_PER_GENERATION", options.drops_per_generation),
            (machine, "SEAL_RECORDS", options.seal_records),
        ]
        before = [getattr(module, name) for module, name, _ in wanted]
        try:
            for module, name, value in wanted:
                setattr(module, name, value)
            yield
        finally:
            for (module, name, _), value in zip(wanted, before, strict=True):
                setattr(module, name, value)

    # Faults

    def _schedule_faults(self) -> None:
        options = self.options
        faults: list[tuple[float, Callable[[SimulatedMember], None]]] = [
            (options.crash_rate, self._crash),
            (options.torn_write_rate, self._tear),
            (options.blackout_rate, self._black_out),
            (options.stop_rate, self._stop),
            (options.pause_rate, self._pause),
            (options.cut_rate, self._partition),
            (options.one_way_rate, self._cut_one_way),
            (options.slow_disk_rate, self._slow_disk),
            (options.disk_error_rate, self._disk_error),
            (options.transfer_rate, self._transfer),
        ]
        for rate, fault in faults:
            if rate:
                self._repeat(rate, fault)

    def _repeat(self, rate: float, fault: Callable[[SimulatedMember], None]) -> None:
        def strike() -> None:
            if self.healed:
                return
            members = list(self.members.values())
            leading = [m for m in members if m.life is not None and m.driver.is_leader]
            if leading and self.world.random.random() < 0.4:
                members = leading
            fault(self.world.random.choice(members))
            self._repeat(rate, fault)

        self.world.at(self.world.random.expovariate(rate), strike)

    def _crash(self, member: SimulatedMember) -> None:
        if member.life is not None:
            self.counts["crashes"] += 1
            member.crash()

    def _black_out(self, member: SimulatedMember) -> None:
        for each in self.members.values():
            self._crash(each)

    def _tear(self, member: SimulatedMember) -> None:
        if member.life is not None:
            self.counts["crashes"] += 1
            member.crash_at_next_write()

    def _stop(self, member: SimulatedMember) -> None:
        if member.life is not None:
            self.counts["stops"] += 1
            member.stop()

    def _pause(self, member: SimulatedMember) -> None:
        if member.life is not None:
            self.counts["pauses"] += 1
            member.life.paused_until = self.world.now + self.world.random.uniform(0.01, self.options.pause_s)
            self.world.tell(f"n{member.id} stands still until {member.life.paused_until:.4f}")

    def _partition(self, member: SimulatedMember) -> None:
        ids = list(self.members)
        self.world.random.shuffle(ids)
        side = ids[: self.world.random.randint(0, len(ids) - 1)]
        self.counts["cuts"] += bool(side)
        self.network.cut = {(a, b) for a in ids for b in ids if (a in side) != (b in side)}
        self.world.tell(f"partition: {sorted(side)} apart" if side else "the network heals")

    def _cut_one_way(self, member: SimulatedMember) -> None:
        pair = (member.id, self.world.random.choice(list(self.members)))
        if pair[0] != pair[1]:
            self.counts["cuts"] += 1
            self.network.cut ^= {pair}
            self.world.tell(f"n{pair[0]} -> n{pair[1]} {'cut' if pair in self.network.cut else 'heals'}")

    def _slow_disk(self, member: SimulatedMember) -> None:
        member.slow_until = self.world.now + self.world.random.uniform(0.1, 1.0)

    def _disk_error(self, member: SimulatedMember) -> None:
        if member.life is not None:
            member.disk.fail_at[member.disk.steps + self.world.random.randint(1, 4)] = 5

    def _transfer(self, member: SimulatedMember) -> None:
        if member.life is not None and member.driver.is_leader:
            member.driver.transfer_leadership(self.world.random.choice(list(self.members)))

    def _restart_later(self, member: SimulatedMember) -> None:
        """Called when a member has gone, whatever the reason."""
        delay = self.world.random.uniform(0.02, self.options.down_s)
        self.world.at(delay, lambda: member.start() if member.life is None else None)

    # Healing

    def _heal(self) -> None:
        self.world.tell("everything heals")
        self.healed = self.network.healed = True
        self.network.cut = set()
        for member in self.members.values():
            member.slow_until = 0.0
            member.disk.fail_at.clear()
            member.disk.crash_at = None
            if member.life is None:
                member.start()
            else:
                member.life.paused_until = 0.0

    def _settle(self) -> None:
        """Clients end, leases run out, members become equal."""
        world = self.world
        self.clients.stop()
        world.run_until(world.now + HEAL_S)
        if self.clients.running:
            raise Violation("progress", f"{self.clients.running} sessions still wait after everything healed")
        self.clients.settle()
        self.history.healthy_since_s = world.now
        world.run_until(world.now + QUIET_S)
        self._become_equal()
        self.history.ended_s = world.now
        self.clients.close()

    def _become_equal(self) -> None:
        deadline = self.world.now + CATCH_UP_S
        while not self._is_equal():
            if self.world.now > deadline:
                state = [f"n{m.id} {m.machine.applied_index}" for m in self.members.values()]
                raise Violation("progress", f"{state} of {self.recorder.highest}")
            self.world.run_until(self.world.now + 0.2)
        for member in self.members.values():
            member.machine.flush()
        first, *others = self.members.values()
        lines = stored_in(first.machine)
        for member in others:
            theirs = stored_in(member.machine)
            if theirs != lines:
                told = "; ".join(differences(theirs, lines))
                raise Violation("equality", f"n{member.id} and n{first.id} store different things: {told}")
        for member in self.members.values():
            self.recorder.compare_state(member.id, member.machine)

    def _is_equal(self) -> bool:
        """Everything is applied, stored, and removed what compaction made superfluous."""
        return all(
            member.life is not None
            and member.machine.applied_index == self.recorder.highest
            and member.machine.durable_index == self.recorder.highest
            and member.machine.physical_compact_revision >= member.machine.compact_revision
            and not member.machine.backlog_records
            for member in self.members.values()
        )

    # Members as clients reach them

    def unary(
        self, member_id: int, path: str, data: bytes, answered: Callable[[Answer], None]
    ) -> Callable[[], None]:
        world, member = self.world, self.members[member_id]

        def tell(answer: Answer) -> None:
            world.at(CLIENT_DELAY_S * world.random.random(), lambda: answered(answer))

        call = UnaryCallHere(self._metadata(), tell)
        life = member.life
        if life is None:
            world.at(CLIENT_DELAY_S, lambda: answered(Answer(b"", "refused")))
            return lambda: None

        def lost() -> None:
            if not call.cancelled:
                call.cancelled = True
                world.at(NOTICE_S, lambda: answered(Answer(b"", UNKNOWN)))

        def arrive() -> None:
            if not call.cancelled:
                method = member.methods[path]
                assert isinstance(method, UnaryMethod)
                method.handler(call, data)

        def cancel() -> None:
            call.cancelled = True

        self._hang(member, life, lost)
        life.later(CLIENT_DELAY_S * world.random.random(), arrive)
        return cancel

    def stream(
        self, member_id: int, path: str, listener: Listener, *, read_s: float, scale: int
    ) -> StreamHere | None:
        member = self.members[member_id]
        life = member.life
        if life is None:
            return None
        method = member.methods[path]
        assert isinstance(method, StreamMethod)
        stream = StreamHere(self.world, self.options, life, listener, read_s=read_s, scale=scale)
        stream.metadata = self._metadata()
        stream.handler = method.opener(stream)
        self._hang(member, life, stream.lose)
        return stream

    def _metadata(self) -> Mapping[str, str]:
        return {"hasleader": "true"} if self.world.random.random() < 0.1 else {}

    def _hang(self, member: SimulatedMember, life: Life, call: Callable[[], None]) -> None:
        assert member.life is life
        member.on_end.append(call)


def run_schedule(
    seed: int,
    *,
    trace: bool = False,
    story: Callable[[str], None] | None = None,
    options: Options | None = None,
    keep: list[History] | None = None,
) -> Outcome:
    """One schedule from its seed. Never raises: a violation is in the outcome. keep: takes its history."""
    value = hashlib.sha256()

    def tell(line: str) -> None:
        value.update(line.encode() + b"\n")
        if story is not None:
            story(line)

    directory = tempfile.mkdtemp(prefix="whole-", dir=MEMORY if os.path.isdir(MEMORY) else None)
    wanted = tell if trace or story is not None else None
    schedule = Schedule(seed, directory, story=wanted, options=options)
    violation = ""
    try:
        schedule.run()
    except AssertionError as problem:
        violation = str(problem) or type(problem).__name__
    except Exception as problem:  # whatever stops a member is a finding
        violation = repr(problem)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if keep is not None:
        keep.append(schedule.history)
    return Outcome(seed, violation, value.hexdigest(), schedule.counts)
