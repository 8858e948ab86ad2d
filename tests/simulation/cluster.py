"""A schedule: a cluster of simulated members, one random source, and time that only the event queue moves.

A fault phase of a given number of events, then everything heals and the cluster must elect and commit. Every
event is followed by the invariants. The same seed gives the same story, whatever PYTHONHASHSEED is.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from random import Random

from kvstore.version import COMPILED
from raft import (
    AppendEntries,
    AppendResponse,
    Change,
    ChangeKind,
    InstallSnapshot,
    InvalidChange,
    Message,
    ProposalDropped,
    Role,
    SnapshotMeta,
    membership,
    quorum,
)
from raft.invariants import ClusterHistory, InvariantViolated, check_delta, check_state, observe
from raft.trace import ConfigChanged, RoleChanged
from tests.simulation.node import SimNode
from tests.simulation.options import Options
from tests.simulation.reach import hit, take
from tests.spec.watch import SpecWatch

ELECTION_TICKS = 10
LEASE_TICKS = 2 * ELECTION_TICKS + 1  # how long a leader may go on without hearing from a quorum
LIVENESS_TICKS = 40 * ELECTION_TICKS


@dataclass
class Outcome:
    seed: int
    events: int
    violation: str = ""
    trace_hash: str = ""
    commits: int = 0
    leaders: int = 0
    ticks: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)


class Schedule:
    def __init__(self, seed: int, *, events: int, story: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.options = Options.draw(self.random)
        # Drawn apart from all else, so that a schedule without such hints is the one it was before there were any.
        self._hints = Random(f"{seed} leader gone")
        self._gone = (
            self._hints.uniform(0, 0.05) if self._hints.random() < 0.4 else 0.0
        )  # "your leader is gone"
        self.events_max = events
        self.events = 0
        self.now = 0.0
        self.healed = False
        self._story = story
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        first = membership.initial(tuple(range(1, self.options.nodes + 1)))
        self.ids = list(range(1, self.options.nodes + self.options.spares + 1))
        self.nodes = {
            each: SimNode(
                each, first if each in first.voters else membership.NOWHERE, Random(seed * 1000 + each)
            )
            for each in self.ids
        }
        self.history = ClusterHistory()
        self.spec: SpecWatch | None = (
            None if COMPILED else SpecWatch()
        )  # tests/spec: every step is a legal one
        self.cut: set[tuple[int, int]] = set()  # directed pairs that lose everything
        self.clogged: dict[
            tuple[int, int], float
        ] = {}  # directed pairs that hold everything back, until when
        self.proposals = 0
        self.changes = 0
        self.proposed: dict[tuple[int, int], int] = {}  # (term, index) of a proposal -> who leads it
        self.acknowledged = 0  # highest index whose client has its answer
        self.reads: dict[int, tuple[int, int]] = {}  # context -> (node, acknowledged when asked)
        self.next_context = 0

    # The world

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + delay, self._sequence, action))

    def tell(self, text: str) -> None:
        if self._story is not None:
            self._story(f"{self.now:9.2f}  {text}")

    def run(self) -> None:
        """The whole schedule. Raises InvariantViolated."""
        self.tell(f"seed {self.seed}: {self.options}")
        for node in self.nodes.values():
            node.start()
            self._watch_roles(node)
            self._schedule_tick(node)
        self._schedule_client()
        while self.events < self.events_max:
            self._next()
        self._heal()
        self._demand_progress()

    def _next(self) -> None:
        self.now, _, action = heapq.heappop(self._queue)
        self.events += 1
        action()

    def _schedule_tick(self, node: SimNode) -> None:
        rate = self.random.uniform(0.5, 2.0) if self.options.tick_skew else self.random.uniform(0.95, 1.05)
        self.at(rate, lambda: self._tick(node))

    def _tick(self, node: SimNode) -> None:
        self._schedule_tick(node)
        if node.raw is None:
            return
        if node.paused_until > self.now:
            return
        node.ticks += 1
        self._step(node, node.raw.tick)
        self._check_lease(node)

    def _check_lease(self, node: SimNode) -> None:
        """A leader that has not heard from a quorum for two election timeouts must have given up."""
        if node.raw is None or not node.raw.is_leader:
            return
        since = max(node.led_since, node.conf_since)
        heard = {node.id, *(peer for peer, tick in node.heard.items() if tick >= node.ticks - LEASE_TICKS)}
        if node.ticks - since > LEASE_TICKS and not quorum.has_quorum(node.raw.conf, heard):
            raise InvariantViolated(f"n{node.id}@{node.raw.term} leads without having heard from a quorum")

    # Clients and faults

    def _schedule_client(self) -> None:
        self.at(self.random.uniform(0.1, 1.0), self._client)

    def _client(self) -> None:
        self._schedule_client()
        options, random = self.options, self.random
        node = self.nodes[random.choice(self.ids)]
        if random.random() < options.proposal:
            self._propose(random)
        if random.random() < options.read:
            self._read(node)
        if self.healed:
            return
        if options.hunt_leaders:
            node = self._prey() or node
        if random.random() < options.crash:
            self._crash(node)
        if random.random() < options.pause:
            node.paused_until = self.now + random.uniform(1, 40)
            self.tell(f"n{node.id} stands still until {node.paused_until:.2f}")
        if random.random() < options.partition:
            self._partition()
        if random.random() < options.one_way:
            pair = (node.id, random.choice(self.ids))
            self.cut ^= {pair}
            self.tell(f"n{pair[0]} -> n{pair[1]} {'cut' if pair in self.cut else 'heals'}")
        if random.random() < options.clog:
            pair = (node.id, random.choice(self.ids))
            self.clogged[pair] = self.now + random.uniform(5, 60)
            self.tell(f"n{pair[0]} -> n{pair[1]} is clogged until {self.clogged[pair]:.2f}")
        if random.random() < options.crash_writing:
            self._crash_one_that_writes(random)
        if random.random() < options.compaction:
            self._compact(node)
        if random.random() < options.transfer and node.raw is not None and node.raw.is_leader:
            to = random.choice(self.ids)
            self.tell(f"n{node.id} is asked to hand over to n{to}")
            raw = node.raw
            self._step(node, lambda: raw.transfer_leadership(to))
        if random.random() < options.membership:
            self._change_membership(random)
        if self._hints.random() < self._gone:
            self._report_gone(node)

    def _crash_one_that_writes(self, random: Random) -> None:
        """Between what is said and what is on disk lies most of what can go wrong."""
        writing = [n for n in self.nodes.values() if n.raw is not None and n.disk.writing]
        ahead = [n for n in writing if n.durable > n.disk.base_index + len(n.disk.entries)]
        if writing:
            self._crash(random.choice(ahead or writing))

    def _prey(self) -> SimNode | None:
        """A leader or candidate: where a crash or a cut hurts most."""
        wanted = (Role.LEADER, Role.CANDIDATE)
        prey = [n for n in self.nodes.values() if n.raw is not None and n.raw.raft.role in wanted]
        return self.random.choice(prey) if prey else None

    def _propose(self, random: Random) -> None:
        leaders = [node for node in self.nodes.values() if node.raw is not None and node.raw.is_leader]
        if not leaders:
            return
        node = random.choice(leaders)
        if node.paused_until > self.now:
            return
        batch = []
        for _ in range(random.choice((1, 1, 1, 2, 5))):
            self.proposals += 1
            batch.append(b"p%d" % self.proposals + b"." * random.choice((0, 0, 50, 300)))

        def propose() -> None:
            assert node.raw is not None
            try:
                last = node.raw.propose(batch)
            except ProposalDropped:
                return
            self.tell(f"n{node.id}@{last.term} proposes {len(batch)} up to {last}")
            for back in range(len(batch)):
                self.proposed[last.term, last.index - back] = node.id

        self._step(node, propose)

    def _change_membership(self, random: Random) -> None:
        """One to three nodes added, promoted, demoted, removed or brought back, at a leader."""
        leaders = [node for node in self.nodes.values() if node.raw is not None and node.raw.is_leader]
        if not leaders:
            return
        node = random.choice(leaders)
        count = min(random.choice((1, 1, 1, 2, 3)), len(self.ids))
        changes = [
            Change(random.choice(tuple(ChangeKind)), each) for each in sorted(random.sample(self.ids, count))
        ]
        if node.paused_until > self.now:
            return

        def propose() -> None:
            assert node.raw is not None
            try:
                last = node.raw.propose_config(changes)
            except (ProposalDropped, InvalidChange):
                return
            told = ", ".join(f"{change.kind.name.lower()} n{change.node}" for change in changes)
            self.tell(f"n{node.id}@{last.term} is asked to {told}: {last}")
            self.changes += 1

        self._step(node, propose)

    def _read(self, node: SimNode) -> None:
        if node.raw is None or node.paused_until > self.now:
            return
        self.next_context += 1
        context = self.next_context
        self.reads[context] = (node.id, self.acknowledged)
        self.tell(f"n{node.id} reads as {context}, {self.acknowledged} acknowledged")
        raw = node.raw
        self._step(node, lambda: raw.read_index(context))

    def _crash(self, node: SimNode) -> None:
        if node.raw is None:
            return
        self.tell(f"n{node.id} crashes")
        if node.disk.writing:
            hit("crash with writes under way")
        node.crash()
        if self._gone:
            for other in self.ids:
                self.at(self._hints.uniform(0.01, 2), partial(self._report_gone, self.nodes[other], node.id))
        self.at(self.random.uniform(0.5, 30), lambda: self._restart(node))

    def _restart(self, node: SimNode) -> None:
        if node.raw is not None:
            return
        node.start()
        assert node.raw is not None
        self.history.restarted(node.id)
        self._watch_roles(node)
        self.tell(f"n{node.id}@{node.raw.term} restarts at {node.raw.last_index}")
        hit("restart")
        self._step(node, lambda: None)

    def _partition(self) -> None:
        ids = list(self.ids)
        self.random.shuffle(ids)
        side = set(ids[: self.random.randint(0, len(ids) - 1)])
        self.cut = {
            (a, b) for a in sorted(self.nodes) for b in sorted(self.nodes) if (a in side) != (b in side)
        }
        self.tell(f"partition: {sorted(side)} apart" if side else "the network heals")

    def _compact(self, node: SimNode) -> None:
        if node.raw is None or node.durable < node.raw.first_index:
            return
        index = self.random.randint(node.raw.first_index, node.durable)
        self.tell(f"n{node.id} compacts to {index}")
        node.raw.compact(index)
        node.disk.compact(index)

    # Nodes

    def _watch_roles(self, node: SimNode) -> None:
        raw = node.raw
        assert raw is not None

        def trace(event: object) -> None:
            if self._story is not None:
                self.tell(str(event))
            if isinstance(event, ConfigChanged):
                node.conf_since = node.ticks
            if isinstance(event, RoleChanged) and event.new == Role.LEADER and event.old != Role.LEADER:
                node.led_since = node.ticks
                self.history.became_leader(raw.raft)
                others = (n.raw for n in self.nodes.values() if n.raw is not None and n.raw is not raw)
                if any(other.is_leader for other in others):
                    hit("two leaders at once")
                if self.random.random() < self.options.crash_new_leader and not self.healed:
                    self.at(self.random.uniform(0, 3), lambda: self._crash(node))

        raw.raft.trace = trace
        if self.spec is not None:
            self.spec.attach(raw)

    def _step(self, node: SimNode, action: Callable[[], object]) -> None:
        """One input to one node, everything it answers, and the invariants after it."""
        raw = node.raw
        assert raw is not None
        before = observe(raw.raft)
        action()
        check_delta(before, raw.raft)
        self._pump(node)
        check_state(raw.raft)
        node.check_counted_durable()
        self.history.check(raw.raft)

    def _pump(self, node: SimNode) -> None:
        raw = node.raw
        assert raw is not None
        while raw.has_ready():
            ready = raw.ready()
            if ready.snapshot is not None:
                node.install(ready.snapshot)
            node.disk.writing.append(ready)
            slowest = 0.5 if self.healed else self.options.disk_delay_max
            self.at(self.random.uniform(0, slowest), lambda: self._disk_done(node))
            for message in ready.messages:
                node.check_durable(message)
                self._send(message)
            for entry in ready.committed:
                node.apply(entry)
                if self.proposed.get((entry.term, entry.index)) == node.id:
                    self.acknowledged = max(self.acknowledged, entry.index)
            if ready.committed:
                raw.applied_to(ready.committed[-1].index)
            for state in ready.read_states:
                self._check_read(node, state.context, state.index)
            for context in ready.reads_failed:
                self.reads.pop(context, None)
        if self.random.random() < 0.2:
            node.durable = max(node.durable, node.applied[-1][0])

    def _check_read(self, node: SimNode, context: int, index: int) -> None:
        asked = self.reads.pop(context, None)
        if asked is None:
            return
        self.tell(f"n{node.id} may read {context} at {index}")
        if index < asked[1]:
            raise InvariantViolated(f"n{node.id} reads at {index} what was acknowledged up to {asked[1]}")

    def _disk_done(self, node: SimNode) -> None:
        """The oldest write under way is on disk; writes end in order."""
        raw = node.raw
        if raw is None or not node.disk.writing:
            return
        ready = node.disk.writing.popleft()
        node.disk.write(ready)

        def persisted() -> None:
            raw.persisted(ready.number)
            for message in ready.messages_after_persist:
                node.check_durable(message)
                if isinstance(message, AppendResponse) and not message.reject and message.term == raw.term:
                    self._check_shared(message)
                self._send(message)

        self._step(node, persisted)

    # The network

    def _send(self, message: Message) -> None:
        options, random = self.options, self.random
        if self._story is not None:
            self.tell(describe(message))
        copies = 1
        if not self.healed:
            if random.random() < options.loss:
                copies = 0
            elif random.random() < options.duplication:
                copies = 2
        if isinstance(message, InstallSnapshot):
            self._send_snapshot(message, lost=not copies)
            return
        for _ in range(copies):
            delay = random.uniform(0.01, options.delay_max if not self.healed else 0.3)
            delay += max(0.0, self.clogged.get((message.sender, message.to), 0.0) - self.now)
            self.at(delay, lambda: self._deliver(message))

    def _check_shared(self, answer: AppendResponse) -> None:
        """What a follower accepts is what the leader of that term has up to there."""
        leader = self.nodes[answer.to].raw
        follower = self.nodes[answer.sender].raw
        if leader is None or follower is None or not leader.is_leader or leader.term != answer.term:
            return
        theirs, ours = leader.raft.log.term(answer.index), follower.raft.log.term(answer.index)
        if theirs != ours and answer.index > max(leader.raft.log.base, follower.raft.log.base):
            raise InvariantViolated(
                f"n{answer.sender}@{answer.term} acknowledges {answer.index}@{ours} to a leader with {theirs} there"
            )

    def _send_snapshot(self, message: InstallSnapshot, *, lost: bool) -> None:
        """Carries what the sender has durably, which may be older than what raft asked for."""
        sender = self.nodes[message.sender]
        index, term, conf = sender.state_at(sender.durable)
        whole = InstallSnapshot(message.sender, message.to, message.term, SnapshotMeta(index, term, conf))

        def arrive() -> None:
            ok = not lost and (message.sender, message.to) not in self.cut
            ok = ok and self.nodes[message.to].raw is not None and index > 0
            if ok:
                self._deliver(whole)
            else:
                hit("snapshot lost on the way")
            if sender.raw is not None:
                raw = sender.raw
                self._step(sender, lambda: raw.report_snapshot(message.to, ok))

        self.at(self.random.uniform(0.1, 5), arrive)

    def _deliver(self, message: Message) -> None:
        node = self.nodes[message.to]
        if node.raw is None or (message.sender, message.to) in self.cut:
            self._report_unreachable(message)
            return
        if node.paused_until > self.now:
            self.at(node.paused_until - self.now + 0.01, lambda: self._deliver(message))
            return
        node.heard[message.sender] = node.ticks
        raw = node.raw
        self._step(node, lambda: raw.step(message))

    def _report_unreachable(self, message: Message) -> None:
        """A connection that breaks is noticed by the sender's member, now and then."""
        sender = self.nodes[message.sender].raw
        if sender is not None and self.random.random() < 0.2:
            self._step(self.nodes[message.sender], lambda: sender.report_unreachable(message.to))

    def _report_gone(self, node: SimNode, gone: int = 0) -> None:
        """Its connection to a member was refused; gone 0: to its leader, whatever that one does."""
        raw = node.raw
        if raw is None or node.paused_until > self.now or gone == node.id:
            return
        name = gone or raw.leader_id
        if name and name == raw.leader_id and name != node.id:
            hit("leader gone, as it is" if self.nodes[name].raw is None else "leader gone, as it is not")
        self.tell(f"n{node.id} hears that n{name} is gone")
        self._step(node, lambda: raw.report_gone(name))

    # Liveness

    def _heal(self) -> None:
        self.healed = True
        self.cut = set()
        self.clogged = {}
        self.tell("everything heals")
        for node in self.nodes.values():
            node.paused_until = 0.0
            self._restart(node)

    def _demand_progress(self) -> None:
        """A leader within 40 election timeouts, and what is proposed now is applied by all its members."""
        deadline = self.now + LIVENESS_TICKS
        target = 0
        while self.now < deadline:
            self._next()
            leader = next((n for n in self.nodes.values() if n.raw is not None and n.raw.is_leader), None)
            if leader is None or leader.raw is None:
                continue
            raw = leader.raw
            if not target and raw.commit and raw.raft.log.term(raw.commit) == raw.term:
                self._propose(self.random)
                target = raw.last_index
            members = quorum.members_of(raw.conf)
            settled = raw.raft.log.conf_index <= raw.commit and not raw.conf.voters_outgoing
            settled = settled and leader.id in raw.conf.voters
            if target and settled and all(self.nodes[n].applied[-1][0] >= target for n in members):
                return
        state = [str(n.raw.status()) if n.raw else f"n{n.id} down" for n in self.nodes.values()]
        raise InvariantViolated(f"no progress after everything healed: {state}")


def describe(message: Message) -> str:
    """The field's notation: n2@4 -> n3 AppendEntries base=9@4 [10@4]."""
    head = f"n{message.sender}@{message.term} -> n{message.to} {type(message).__name__}"
    if isinstance(message, AppendEntries):
        entries = " ".join(str(entry) for entry in message.entries)
        return f"{head} base={message.prev_index}@{message.prev_term} [{entries}] commit={message.commit}"
    told = [
        f"{each.name}={getattr(message, each.name)}"
        for each in fields(message)
        if each.name not in ("sender", "to", "term")
    ]
    return " ".join([head, *told])


def run_schedule(seed: int, *, events: int, trace: bool = False) -> Outcome:
    """One schedule from its seed. Never raises: a violation is in the outcome."""
    digest = hashlib.sha256()

    def story(line: str) -> None:
        digest.update(line.encode() + b"\n")

    schedule = Schedule(seed, events=events, story=story if trace else None)
    violation = ""
    try:
        schedule.run()
    except AssertionError as problem:
        violation = str(problem) or type(problem).__name__
    except Exception as problem:  # whatever stops a node is a finding
        violation = repr(problem)
    return Outcome(
        seed,
        schedule.events,
        violation,
        digest.hexdigest() if trace else "",
        schedule.history.highest,
        len(schedule.history.leaders),
        schedule.now,
        take(),
    )
