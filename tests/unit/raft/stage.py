"""A small stage for golden scripts and paper tests: real RawNodes, messages delivered only when told to, disks
that finish at once unless held. Every command ends with the invariants."""

from __future__ import annotations

from collections import defaultdict
from random import Random

from raft import (
    Config,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    Message,
    ProposalDropped,
    RawNode,
    Ready,
    SnapshotMeta,
    membership,
)
from raft.invariants import ClusterHistory, check_delta, check_state, observe
from tests.simulation.cluster import describe


class Stage:
    def __init__(self, size: int = 3, *, pre_vote: bool = True, check_quorum: bool = True) -> None:
        self.conf = ConfState(tuple(range(1, size + 1)))
        self._options = {"pre_vote": pre_vote, "check_quorum": check_quorum}
        self.nodes: dict[int, RawNode] = {}
        self.history = ClusterHistory()
        self.network: list[Message] = []
        self.isolated: set[int] = set()
        self.held: dict[int, list[Ready]] = {}  # disks that do not finish, by node
        self.hard_states: dict[int, HardState] = defaultdict(HardState)
        self.bases: dict[int, SnapshotMeta] = {}
        self.logs: dict[int, list[Entry]] = defaultdict(list)
        self.applied: dict[int, list[Entry]] = defaultdict(list)
        self.lines: list[str] = []
        for node in self.conf.voters:
            self.start(node)

    def tell(self, text: object) -> None:
        self.lines.append(str(text))

    def take_lines(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def start(self, node: int) -> None:
        first = self.conf if node in self.conf.voters else membership.NOWHERE
        base = self.bases.get(node, SnapshotMeta(0, 0, first))
        raw = RawNode(
            Config(id=node, max_append_bytes=64, **self._options),
            hard_state=self.hard_states[node],
            snapshot=base,
            entries=list(self.logs[node]),
            applied=base.index,
            random=Random(node),
        )
        raw.raft.trace = self.tell
        self.nodes[node] = raw
        self.applied[node] = []
        self.history.restarted(node)

    def crash(self, node: int) -> None:
        """What the disk had not finished is lost."""
        self.held.pop(node, None)
        del self.nodes[node]
        self.network = [m for m in self.network if m.sender != node]

    def step(self, node: int, action: str, *arguments: object) -> None:
        raw = self.nodes[node]
        before = observe(raw.raft)
        try:
            getattr(raw, action)(*arguments)
        except ProposalDropped as refusal:
            self.tell(f"n{node} drops the proposal: {refusal}")
        check_delta(before, raw.raft)
        self.pump(node)

    def pump(self, node: int) -> None:
        raw = self.nodes[node]
        while raw.has_ready():
            ready = raw.ready()
            self.network += ready.messages
            if node in self.held:
                self.held[node].append(ready)
            else:
                self._persist(node, ready)
            for entry in ready.committed:
                self.applied[node].append(entry)
                text = "config" if entry.kind == EntryKind.CONFIG else entry.data.decode() or "no-op"
                self.tell(f"n{node} applies {entry} {text}")
            if ready.committed:
                raw.applied_to(ready.committed[-1].index)
            for state in ready.read_states:
                self.tell(f"n{node} may read {state.context} at {state.index}")
            for context in ready.reads_failed:
                self.tell(f"n{node} cannot read {context}")
        check_state(raw.raft)
        self.history.check(raw.raft)

    def _persist(self, node: int, ready: Ready) -> None:
        if ready.hard_state is not None:
            self.hard_states[node] = ready.hard_state
        if ready.snapshot is not None:
            self.bases[node], self.logs[node] = ready.snapshot, []
            self.tell(f"n{node} installs the snapshot at {ready.snapshot}")
        base = self.bases.get(node, SnapshotMeta(0, 0, self.conf)).index
        for entry in ready.entries:
            del self.logs[node][entry.index - base - 1 :]
            self.logs[node].append(entry)
        raw = self.nodes[node]
        raw.persisted(ready.number)
        self.network += ready.messages_after_persist

    def hold(self, node: int) -> None:
        self.held.setdefault(node, [])

    def release(self, node: int) -> None:
        for ready in self.held.pop(node):
            self._persist(node, ready)
        self.pump(node)

    def deliver(self, *, rounds: int = 100) -> None:
        """Hands over everything on its way, and what comes of it, oldest first."""
        for _ in range(rounds):
            if not self.network:
                return
            batch, self.network = self.network, []
            for message in batch:
                self._deliver(message)
        self.tell("still messages on their way")

    def _deliver(self, message: Message) -> None:
        lost = message.to not in self.nodes or bool({message.sender, message.to} & self.isolated)
        self.tell(f"{describe(message)}{'  (lost)' if lost else ''}")
        if isinstance(message, InstallSnapshot):
            if not lost:
                self.step(message.to, "step", message)
            if message.sender in self.nodes:
                self.step(message.sender, "report_snapshot", message.to, not lost)
        elif not lost:
            self.step(message.to, "step", message)

    def compact(self, node: int, index: int) -> None:
        raw = self.nodes[node]
        term = raw.raft.log.term(index)
        assert term is not None
        raw.compact(index)
        base = self.bases.get(node, SnapshotMeta(0, 0, self.conf)).index
        del self.logs[node][: index - base]
        self.bases[node] = SnapshotMeta(index, term, self.conf)

    def elect(self, node: int) -> None:
        self.step(node, "campaign")
        self.deliver()
        assert self.nodes[node].is_leader, self.nodes[node].status()

    def propose(self, node: int, *data: str) -> None:
        self.step(node, "propose", [each.encode() for each in data])
