"""Follows real nodes by the specification: turns each call on a RawNode into one observation of SpecChecker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raft import Change, ConfState, EntryID, EntryKind, Message, RawNode, Ready, membership
from raft import Entry as RaftEntry
from tests.spec.model import Entry, Node, Seen, SpecViolation, Taken, config_of, snapshot_of
from tests.spec.spec import SpecChecker

WHOLE_LOG_EVERY = 256
"""Each so many messages the whole observed log is compared, not only its end."""


def entry_of(entry: RaftEntry) -> Entry:
    if entry.kind == EntryKind.CONFIG:
        return Entry(entry.term, entry.data, config_of(membership.decode(entry.data)[0]))
    return Entry(entry.term, entry.data)


def seen_of(raw: RawNode) -> Seen:
    raft = raw.raft
    log = raft.log
    return Seen(
        raft.term,
        raft.vote,
        raft.role,
        raft.leader_id,
        log.committed,
        log.base,
        log.last_index,
        log.last_term,
    )


def taken_of(ready: Ready) -> Taken:
    state, meta = ready.hard_state, ready.snapshot
    return Taken(
        ready.number,
        (state.term, state.vote) if state is not None else None,
        snapshot_of(meta) if meta is not None else None,
        [(entry.index, entry_of(entry)) for entry in ready.entries],
        ready.messages,
        ready.messages_after_persist,
        [(entry.index, entry.term) for entry in ready.committed],
        [(state.context, state.index) for state in ready.read_states],
    )


class SpecWatch:
    """Watches every node of one cluster."""

    def __init__(self) -> None:
        self.checker = SpecChecker()

    def attach(self, raw: RawNode) -> None:
        """From now on every call on raw is checked. A second one with the same id is that node restarted."""
        checker = self.checker
        stored = (raw._hard_state.term, raw._hard_state.vote)
        checker.started(raw.raft.id, seen_of(raw), config_of(raw.raft.conf), raw.raft.log.applied, stored)
        _Watched(checker, checker.nodes[raw.raft.id], raw)


class _Watched:
    """Stands before the methods of one RawNode."""

    def __init__(self, checker: SpecChecker, node: Node, raw: RawNode) -> None:
        self.checker, self.node, self.raw = checker, node, raw
        self.messages = 0
        self.conf: ConfState = raw.raft.conf
        self.real: dict[str, Callable[..., Any]] = {}
        for name in (
            "tick",
            "campaign",
            "report_gone",
            "step",
            "propose",
            "propose_config",
            "read_index",
            "transfer_leadership",
            "ready",
            "persisted",
            "compact",
        ):
            self.real[name] = getattr(raw, name)
            setattr(raw, name, getattr(self, name))

    def entries(self, first: int) -> list[Entry]:
        log = self.raw.raft.log
        return [entry_of(log.entry(index)) for index in range(max(first, log.base + 1), log.last_index + 1)]

    def tick(self) -> None:
        self.real["tick"]()
        self.checker.ticked(self.node, seen_of(self.raw))

    def campaign(self) -> None:
        self.real["campaign"]()
        self.checker.ticked(self.node, seen_of(self.raw))

    def report_gone(self, node_id: int) -> None:
        self.real["report_gone"](node_id)
        self.checker.told_gone(self.node, node_id, seen_of(self.raw))

    def step(self, message: Message) -> None:
        self.real["step"](message)
        self.checker.received(self.node, message, seen_of(self.raw), self.entries)
        self.messages += 1
        if self.messages % WHOLE_LOG_EVERY == 0 and self.entries(0) != self.node.log.entries:
            raise SpecViolation(f"spec: {self.node} holds another log than it was given")
        self._check_config()

    def propose(self, data: Sequence[bytes]) -> EntryID:
        last: EntryID = self.real["propose"](data)
        entries = [Entry(self.raw.raft.term, each) for each in data]
        self.checker.proposed(self.node, seen_of(self.raw), entries)
        return last

    def propose_config(self, changes: Sequence[Change], context: bytes = b"") -> EntryID:
        last: EntryID = self.real["propose_config"](changes, context)
        self.checker.proposed(self.node, seen_of(self.raw), self.entries(last.index))
        self._check_config()
        return last

    def read_index(self, context: int) -> None:
        self.checker.asked_to_read(self.node, context)
        self.real["read_index"](context)
        self.checker.unchanged(self.node, seen_of(self.raw))

    def transfer_leadership(self, to: int) -> None:
        self.real["transfer_leadership"](to)
        self.checker.unchanged(self.node, seen_of(self.raw))

    def ready(self) -> Ready:
        ready: Ready = self.real["ready"]()
        self.checker.taken(self.node, taken_of(ready), seen_of(self.raw))
        return ready

    def persisted(self, number: int) -> None:
        self.real["persisted"](number)
        self.checker.persisted(self.node, number, seen_of(self.raw), self.entries)

    def compact(self, index: int) -> None:
        self.real["compact"](index)
        self.checker.compacted(self.node, index, seen_of(self.raw))

    def _check_config(self) -> None:
        conf = self.raw.raft.conf
        if conf is not self.conf:
            self.conf = conf
            if config_of(conf) != self.node.log.config:
                raise SpecViolation(f"spec: {self.node} goes by {conf}, its log says {self.node.log.config}")
