"""What can happen in a small world, and what must hold in it.

A node's step depends on its own state and its input alone, so each pair is run through the real core once and
remembered by number; a global state is a short tuple of such numbers. The network is a set of messages under way,
delivered in any order: one that never arrives is a lost one, so that loss needs no action of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

from raft import (
    AppendResponse,
    CommitNotice,
    ConfState,
    HeartbeatResponse,
    RawNode,
    Role,
    VoteResponse,
    membership,
    quorum,
)
from raft.invariants import ClusterHistory, InvariantViolated
from tests.exhaustive.machine import Machine
from tests.exhaustive.scopes import IDENTITY, NODES, Scope
from tests.exhaustive.snapshot import MESSAGES, Encoded, Permutation, decode, encode_message, new_member
from tests.exhaustive.tables import State, Tables


class Action(NamedTuple):
    """One step. node acts; argument is a message's number, or what kind says."""

    kind: str
    node: int
    argument: int = 0


class Step(NamedTuple):
    """What a node does at one input. violation: what it breaks by itself."""

    node: int
    messages: tuple[int, ...]
    reads: tuple[tuple[int, int], ...]
    violation: str


DROPS, DUPLICATES, CRASHES, HEARTBEATS, READS, CHANGES, COMPACTIONS = range(7)


class Violation(Exception):
    """A rule is broken; the search says how to get there."""


class World:
    """The tables of one search."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.machine = Machine(scope)
        orders = permutations(NODES) if scope.symmetric else [NODES]
        self._permutations: list[Permutation] = [(0, *order) for order in orders]
        self.clear()

    def clear(self) -> None:
        """Forgets every number given out."""
        self.tables = Tables(self._permutations)
        self._steps: dict[tuple[int, str, int], Step] = {}
        self._local: dict[int, list[Action]] = {}
        self._history_steps: dict[tuple[int, int, int], int] = {}
        self._dead: dict[tuple[int, int], bool] = {}

    def initial(self) -> State:
        scope = self.scope
        members = membership.initial(scope.voters)
        nodes = [
            self.tables.intern_node(
                new_member(
                    self.machine.configs[each], members if each in scope.voters else membership.NOWHERE
                )
            )
            for each in NODES
        ]
        budget = (
            scope.drops,
            scope.duplicates,
            scope.crashes,
            scope.heartbeats,
            scope.reads,
            scope.changes_max,
            scope.compactions,
        )
        history = self.tables.intern_history(((), (), ()))
        return State((nodes[0], nodes[1], nodes[2]), history, self.tables.intern_budget(budget), ())

    def prelude(self) -> list[Action]:
        """The steps from initial() to where the scope begins."""
        steps: list[Action] = []
        if self.scope.elected:
            state = self.initial()
            action: Action | None = Action("timeout", 1)
            while action is not None:
                steps.append(action)
                state = self.after(state, action) or state._replace(messages=state.messages[1:])
                deliveries = (each for each in self.actions(state) if each.kind == "deliver")
                action = next(deliveries, None)
        return steps

    # What can happen

    def actions(self, state: State) -> Iterator[Action]:
        budget = self.tables.budgets[state.budget]
        for number in state.messages:
            to = self.tables.messages[number][2]
            yield Action("deliver", to, number)
            if budget[DUPLICATES]:
                yield Action("duplicate", to, number)
            if budget[DROPS]:
                yield Action("drop", to, number)
        for node in state.nodes:
            local = self._local.get(node)
            if local is None:
                local = self._local[node] = list(self._local_actions(self.tables.nodes[node]))
            for action in local:
                if action.kind not in _COST or budget[_COST[action.kind]]:
                    yield action

    def _local_actions(self, encoded: Encoded) -> Iterator[Action]:
        scope = self.scope
        node, term, _, role, leader_id = encoded[:5]
        entries, base, committed, writing = encoded[14], encoded[12], encoded[15], encoded[21]
        if role == Role.LEADER:
            yield Action("heartbeat", node)
            if base + len(entries) < scope.entries:
                yield Action("propose", node)
            if scope.check_quorum:
                yield Action("quorum", node)
            for number in range(len(scope.changes)):
                yield Action("change", node, number)
        else:
            if term < scope.terms:
                yield Action("timeout", node)
            if scope.check_quorum and leader_id and not encoded[6]:
                yield Action("expire", node)
        if leader_id:
            yield Action("read", node, 1)
        if writing:
            yield Action("persist", node)
        for survive in range(len(writing) + 1):
            yield Action("crash", node, survive)
        if committed > base:
            yield Action("compact", node, committed)

    # What it leads to

    def after(self, state: State, action: Action) -> State | None:
        """The state that follows, not yet canonical; None where nothing changes. Raises Violation."""
        messages, budget, history = state.messages, state.budget, state.history
        kind, at = action.kind, action.node - 1
        if kind in ("deliver", "drop"):
            place = messages.index(action.argument)
            messages = messages[:place] + messages[place + 1 :]
        if kind in _COST:
            budget = self.tables.spend(budget, _COST[kind])
        if kind == "drop":
            return State(state.nodes, history, budget, messages)
        node = state.nodes[at]
        step = self._step(node, "deliver" if kind == "duplicate" else kind, action.argument)
        if step.violation:
            raise Violation(step.violation)
        if step.node == node and not step.messages and not step.reads and kind != "read":
            return None  # what changes nothing may as well not have happened
        nodes = list(state.nodes)
        nodes[at] = step.node
        if kind == "read" or step.reads:
            history = self._history_of_reads(history, action, step)
        if step.node != node:
            history = self._history_after(history, node, step.node)
            self._demand_quorum(nodes, node, step.node)
        if step.messages or self.tables.disk_terms[step.node] != self.tables.disk_terms[node]:
            under_way = {*messages, *step.messages}
            messages = tuple(sorted(each for each in under_way if not self._is_dead(nodes, each)))
        return State((nodes[0], nodes[1], nodes[2]), history, budget, messages)

    def _is_dead(self, nodes: list[int], message: int) -> bool:
        """Whether its receiver will never do anything with it, whatever happens."""
        encoded = self.tables.messages[message]
        node = nodes[encoded[2] - 1]
        if encoded[3] > self.tables.disk_terms[node]:
            return False
        known = self._dead.get((node, message))
        if known is None:
            known = self._outdated(encoded, self.tables.nodes[node])
            if known:
                step = self._step(node, "deliver", message)
                known = step.node == node and not step.messages
            self._dead[node, message] = known
        return known

    def _outdated(self, message: Encoded, node: Encoded) -> bool:
        """Of a term that is over here for good; an answer to somebody who asks no more; or old news."""
        kind = MESSAGES[message[0]]
        if message[3] < node[18][0]:
            return True
        if kind is VoteResponse:
            return bool(node[3] != Role.CANDIDATE)
        if kind in (AppendResponse, HeartbeatResponse):
            return bool(node[3] != Role.LEADER)
        return kind is CommitNotice and bool(message[4] <= node[18][2])

    def _step(self, node: int, kind: str, argument: int) -> Step:
        key = (node, kind, argument)
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = self._run(node, kind, argument)
        return step

    def _run(self, number: int, kind: str, argument: int) -> Step:
        """One input through the real core."""
        tables = self.tables
        message = tables.messages[argument] if kind == "deliver" else ()
        try:
            member, out, reads = self.machine.run(tables.nodes[number], kind, argument, message)
        except AssertionError as problem:
            return Step(number, (), (), str(problem) or type(problem).__name__)
        sent = tuple(tables.intern_message(encode_message(each, IDENTITY)) for each in out)
        return Step(tables.intern_node(member), sent, tuple(reads), "")

    # What must hold of all nodes together

    def _history_of_reads(self, number: int, action: Action, step: Step) -> int:
        leaders, committed, asked = self.tables.histories[number]
        floors = dict(asked)
        if action.kind == "read":
            floors[action.argument] = len(committed)
        for context, index in step.reads:
            floor = floors.pop(context, 0)
            if index < floor:
                raise Violation(f"n{action.node} reads at {index} what was committed up to {floor}")
        return self.tables.intern_history((leaders, committed, tuple(sorted(floors.items()))))

    def _history_after(self, number: int, old: int, new: int) -> int:
        """Raises Violation of I4, I5 and I6."""
        before, after = self.tables.nodes[old], self.tables.nodes[new]
        leads = after[3] == Role.LEADER and (before[3] != Role.LEADER or before[1] != after[1])
        if not leads and after[15] <= before[15]:
            return number
        key = (number, old, new)
        known = self._history_steps.get(key)
        if known is not None:
            return known
        leaders, committed, asked = self.tables.histories[number]
        history = ClusterHistory(
            leaders=dict(leaders),
            committed={at: (term, data) for at, (term, data, _) in enumerate(committed, 1)},
            committed_in={at: term for at, (_, _, term) in enumerate(committed, 1)},
            highest=len(committed),
        )
        raft = decode(after, self.machine.configs[after[0]]).raw.raft
        try:
            if leads:
                history.became_leader(raft)
            history.check(raft)
        except InvariantViolated as problem:
            raise Violation(str(problem)) from None
        row = tuple((*history.committed[at], history.committed_in[at]) for at in sorted(history.committed))
        known = self.tables.intern_history((tuple(sorted(history.leaders.items())), row, asked))
        self._history_steps[key] = known
        return known

    def _demand_quorum(self, nodes: list[int], old: int, new: int) -> None:
        """What a leader commits is on the disks of a quorum."""
        before, after = self.tables.nodes[old], self.tables.nodes[new]
        index = after[15]
        if after[3] != Role.LEADER or index <= before[15]:
            return
        entries, base = after[14], after[12]
        term = entries[index - base - 1][1]
        holders = {
            encoded[0]
            for encoded in map(self.tables.nodes.__getitem__, nodes)
            if _on_disk(encoded, index, term)
        }
        if term != after[1]:
            raise Violation(f"n{after[0]}@{after[1]} commits {index}@{term} by counting")
        if not any(quorum.has_quorum(conf, holders) for conf in _confs_of_commit(before, after)):
            raise Violation(
                f"n{after[0]}@{after[1]} commits {index}@{term}, on the disks of {sorted(holders)}"
            )


_COST = {
    "drop": DROPS,
    "duplicate": DUPLICATES,
    "crash": CRASHES,
    "heartbeat": HEARTBEATS,
    "read": READS,
    "change": CHANGES,
    "compact": COMPACTIONS,
}


def _confs_of_commit(before: Encoded, after: Encoded) -> Iterator[ConfState]:
    """The configurations in force in the course of a leader's step, in which one may commit and bring the next."""
    yield before[17][-1][1]
    for at, conf in after[17]:
        if at > before[12] + len(before[14]):
            yield conf


def _on_disk(encoded: Encoded, index: int, term: int) -> bool:
    base, entries = encoded[19][0], encoded[20]
    if index <= base:
        return True
    return bool(index <= base + len(entries) and entries[index - base - 1][1] == term)


def raw_nodes(world: World, state: State) -> list[RawNode]:
    """The nodes of a state, as they are."""
    nodes, configs = world.tables.nodes, world.machine.configs
    return [decode(nodes[each], configs[at]).raw for at, each in zip(NODES, state.nodes, strict=True)]
