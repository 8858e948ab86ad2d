"""One node of the real core, its disk and its driver: one input, all that comes of it, and the invariants after."""

from __future__ import annotations

from dataclasses import replace

from raft import (
    AppendResponse,
    Change,
    Config,
    InvalidChange,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ProposalDropped,
    RawNode,
    VoteResponse,
)
from raft.invariants import InvariantViolated, check_delta, check_state, observe
from tests.exhaustive.scopes import NODES, Scope
from tests.exhaustive.snapshot import (
    ELECTION_TICKS,
    Encoded,
    Member,
    Write,
    decode,
    decode_message,
    restarted,
)


class Machine:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.configs = {
            each: Config(
                id=each,
                election_ticks=ELECTION_TICKS,
                pre_vote=scope.pre_vote,
                check_quorum=scope.check_quorum,
                max_append_bytes=scope.append_bytes,
            )
            for each in NODES
        }

    def run(
        self, encoded: Encoded, kind: str, argument: int, message: Encoded
    ) -> tuple[Member, list[Message], list[tuple[int, int]]]:
        """The node afterwards, what it sends, and the reads it answers: (context, index). message is what a
        delivery delivers. Raises AssertionError, InvariantViolated among them."""
        member = decode(encoded, self.configs[encoded[0]])
        out: list[Message] = []
        reads: list[tuple[int, int]] = []
        before = observe(member.raw.raft)
        if kind == "crash":
            member = self._crashed(member, argument)
        else:
            self._act(member, kind, argument, message, out)
            check_delta(before, member.raw.raft)
        self._pump(member, out, reads)
        check_state(member.raw.raft)
        return member, out, reads

    def _act(self, member: Member, kind: str, argument: int, message: Encoded, out: list[Message]) -> None:
        raw = member.raw
        if kind == "deliver":
            raw.step(decode_message(message))
        elif kind == "timeout":
            raw.raft.election_elapsed = 0
            raw.campaign()
        elif kind == "propose":
            self._propose(raw)
        elif kind == "heartbeat":
            raw.tick()
            raw.raft.election_elapsed = 0
        elif kind == "quorum":
            raw.raft.election_elapsed = ELECTION_TICKS - 1
            raw.tick()
            raw.raft.election_elapsed = 0
        elif kind == "expire":
            raw.raft.election_elapsed = ELECTION_TICKS
        elif kind == "read":
            raw.read_index(argument)
        elif kind == "persist":
            self._persist(member, 1, out)
        elif kind == "compact":
            base = raw.raft.log.conf_at(argument)
            raw.compact(argument)
            term = member.disk.term_at(argument)
            if term is not None and argument > member.disk.base.index:
                del member.disk.entries[: argument - member.disk.base.index]
                member.disk.base = replace(member.disk.base, index=argument, term=term, conf_state=base)
        elif kind == "change":
            self._propose(raw, self.scope.changes[argument])

    def _propose(self, raw: RawNode, changes: tuple[Change, ...] = ()) -> None:
        try:
            if changes:
                raw.propose_config(changes)
            else:
                raw.propose([b"x"])
        except (ProposalDropped, InvalidChange):
            return

    def _crashed(self, member: Member, survive: int) -> Member:
        disk = member.disk
        for write in list(member.writing)[:survive]:
            disk.write(write)
        return restarted(self.configs[member.raw.raft.id], disk)

    def _pump(self, member: Member, out: list[Message], reads: list[tuple[int, int]]) -> None:
        raw = member.raw
        while raw.has_ready():
            ready = raw.ready()
            _demand_durable(member, ready.messages)
            out += ready.messages
            write = Write(ready.hard_state, ready.entries, ready.snapshot, ready.messages_after_persist)
            member.writing.append(write)
            if ready.committed:
                applied, row = raw.raft.log.applied, [entry.index for entry in ready.committed]
                if ready.snapshot is None and row != list(range(applied + 1, applied + 1 + len(row))):
                    raise InvariantViolated(f"n{raw.raft.id}@{raw.term} applies {row} after {applied}")
                raw.applied_to(ready.committed[-1].index)
            reads += [(state.context, state.index) for state in ready.read_states]
            if not self.scope.slow_disks or (len(member.writing) == 1 and not ready.must_sync):
                self._persist(member, ready.number, out)

    def _persist(self, member: Member, number: int, out: list[Message]) -> None:
        """The oldest write is on disk, and its messages leave."""
        write = member.writing.popleft()
        member.disk.write(write)
        member.raw.persisted(number)
        _demand_durable(member, write.messages)
        out += write.messages


def _demand_durable(member: Member, messages: list[Message]) -> None:
    """Nothing is promised that is not on disk."""
    raft, state = member.raw.raft, member.disk.hard_state
    for message in messages:
        if isinstance(message, PreVoteRequest) or (isinstance(message, PreVoteResponse) and message.granted):
            continue
        name = f"n{raft.id}@{message.term} -> n{message.to} {type(message).__name__}"
        if state.term < message.term:
            raise InvariantViolated(f"{name} with term {state.term} on disk")
        if isinstance(message, VoteResponse) and message.granted:
            if (state.term, state.vote) != (message.term, message.to):
                raise InvariantViolated(f"{name} with the vote {state.vote}@{state.term} on disk")
        if isinstance(message, AppendResponse) and not message.reject and message.index:
            if member.disk.term_at(message.index) is None:
                raise InvariantViolated(f"{name} acknowledges {message.index}, which is not on disk")
