"""Named situations that schedules must get into ("sometimes" points): a fault mix that never brings one about
says nothing about the code for it. Counted by wrapping the core's functions; nothing of this is in the package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from raft import (
    AppendEntries,
    AppendResponse,
    CommitNotice,
    Heartbeat,
    InstallSnapshot,
    PreVoteRequest,
    PreVoteResponse,
    ProposalDropped,
    Raft,
    RawNode,
    ReadIndexResponse,
    Role,
    VoteRequest,
    VoteResponse,
    candidate,
    follower,
    leader,
)
from raft.log import RaftLog
from raft.progress import Progress, ProgressState
from raft.quorum import voters_of
from raft.reads import LeaderReads

POINTS = """
pre-vote won
pre-vote lost
pre-vote refused by a higher term
pre-vote ignored because a leader is alive
vote granted
vote refused because another has it
vote refused because the log is shorter
vote request ignored because a leader is alive
vote from an older term dropped
candidate gives way to a leader of its term
candidate gives way to a higher term
candidate loses its election
a lone voter elects itself
leader elected
leader elected with a tail of earlier terms
leader elected while the configuration is joint
leader elected that is not in its newest configuration
leader elected because the old one handed over
leader deposed by a higher term
leader gives up for want of a quorum
two leaders at once
transfer waits for the log
transfer given up
transfer asked of one that has no vote
leader gone, as it is
leader gone, as it is not
learner asked to campaign by its clock
a message of a lower term answered
append accepted
append with several entries
append repeated
append behind the commit
append refused
append refused past a run of terms
conflict truncated
conflict over several terms truncated
a configuration rolled back
entries of an earlier term committed through one of its own
commit before the leader's own disk
commit learned from an append
commit learned from a notice
commit learned from a heartbeat
message waits for its term to be on disk
several writes under way at once
write reported for entries that were overwritten
answer about entries acknowledged before
follower becomes up to date enough to stream to
follower refused while streamed to
window full
follower nudged
follower nudged whose entries are compacted
snapshot ordered
snapshot ordered while the configuration is joint
snapshot ordered for a learner
snapshot installed
snapshot installed over a tail
snapshot not needed: committed past it
snapshot not needed: the log has it
snapshot lost on the way
snapshot not ordered for one that is away
log compacted
configuration compacted
read confirmed by a round
read confirmed at once by a lone voter
read of a follower confirmed
read fails with its leader
read waits for a commit of this term
read joins while a round is under way
read refused by one that does not lead
voter added
voter removed
joint configuration entered
joint configuration left
learner added
learner promoted
voter demoted
leader removed itself
change refused: another is under way
change refused: nothing of this term is committed
first entry of a node that joins
removed node stands for election while its removal is not committed
restart
restart with state ahead of the log
crash with writes under way
crash that tears a write
proposal refused
""".strip().splitlines()

counts: Counter[str] = Counter()
_installed = False


def hit(point: str) -> None:
    counts[point] += 1


def take() -> Counter[str]:
    """What was reached since the last call."""
    taken = Counter(counts)
    counts.clear()
    return taken


def unknown(reached: Counter[str]) -> set[str]:
    return set(reached) - set(POINTS)


def install() -> None:
    """Wraps the core's functions, once in a process."""
    global _installed
    if _installed:
        return
    _installed = True
    _elections()
    _log()
    _replication()
    _reads()
    _membership()


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, wrapper)


def _elections() -> None:
    def stand(original: Any, raft: Raft, *, force: bool = False) -> None:
        if raft.role == Role.PRE_CANDIDATE:
            hit("pre-vote won")
        if force:
            forced.add(id(raft))
        if raft.id not in voters_of(raft.conf):
            hit("removed node stands for election while its removal is not committed")
        original(raft, force=force)

    forced: set[int] = set()

    def become_leader(original: Any, raft: Raft) -> None:
        log = raft.log
        hit("leader elected")
        if log.last_index > log.committed:
            hit("leader elected with a tail of earlier terms")
        if raft.conf.voters_outgoing:
            hit("leader elected while the configuration is joint")
        if raft.id not in voters_of(raft.conf):
            hit("leader elected that is not in its newest configuration")
        if id(raft) in forced:
            hit("leader elected because the old one handed over")
        if voters_of(raft.conf) == (raft.id,):
            hit("a lone voter elects itself")
        original(raft)

    def become_follower(original: Any, raft: Raft, term: int, leader_id: int) -> None:
        role, old_term = raft.role, raft.term
        forced.discard(id(raft))
        if role == Role.CANDIDATE:
            if term > old_term:
                hit("candidate gives way to a higher term")
            elif leader_id:
                hit("candidate gives way to a leader of its term")
            else:
                hit("candidate loses its election")
        elif role == Role.PRE_CANDIDATE and term == old_term and not leader_id:
            hit("pre-vote lost")
        elif role == Role.LEADER:
            hit(
                "leader deposed by a higher term"
                if term > old_term
                else "leader gives up for want of a quorum"
            )
            if term == old_term and raft.id not in voters_of(raft.conf):
                hit("leader removed itself")
        original(raft, term, leader_id)

    def step(original: Any, raft: Raft, message: Any) -> None:
        kind = type(message)
        if message.term < raft.term:
            if kind is VoteResponse:
                hit("vote from an older term dropped")
            elif kind in (AppendEntries, Heartbeat, PreVoteRequest):
                hit("a message of a lower term answered")
        elif message.term > raft.term and kind is PreVoteResponse and not message.granted:
            hit("pre-vote refused by a higher term")
        original(raft, message)

    def enter(original: Any, raft: Raft, message: Any) -> bool:
        entered = bool(original(raft, message))
        if not entered:
            kind = "pre-vote" if isinstance(message, PreVoteRequest) else "vote request"
            hit(f"{kind} ignored because a leader is alive")
        return entered

    def answer_vote(original: Any, raft: Raft, request: VoteRequest) -> None:
        held = raft.vote
        original(raft, request)
        if raft.vote == request.sender:
            hit("vote granted")
        elif held not in (0, request.sender):
            hit("vote refused because another has it")
        elif not raft.log.is_up_to_date(request.last_index, request.last_term):
            hit("vote refused because the log is shorter")

    def tick(original: Any, raft: Raft) -> None:
        late = raft.election_elapsed + 1 >= raft.election_timeout
        if raft.role != Role.LEADER and late and raft.id in raft.conf.learners:
            hit("learner asked to campaign by its clock")
        transferring = raft.transfer_to
        original(raft)
        if transferring and raft.role == Role.LEADER and not raft.transfer_to:
            hit("transfer given up")

    def transfer(original: Any, raft: Raft, to: int) -> None:
        before = raft.transfer_to
        original(raft, to)
        if raft.transfer_to == to and before != to and raft.progress[to].match < raft.log.last_index:
            hit("transfer waits for the log")
        elif raft.transfer_to != to:
            hit("transfer asked of one that has no vote")

    _wrap(candidate, "stand", stand)
    _wrap(Raft, "become_leader", become_leader)
    _wrap(Raft, "become_follower", become_follower)
    _wrap(Raft, "step", step)
    _wrap(Raft, "_enter_higher_term", enter)
    _wrap(Raft, "_answer_vote", answer_vote)
    _wrap(Raft, "tick", tick)
    _wrap(leader, "transfer", transfer)


def _log() -> None:
    def try_append(original: Any, log: RaftLog, prev_index: int, prev_term: int, entries: Any) -> Any:
        last = log.last_index
        if not last and not log.base and entries:
            hit("first entry of a node that joins")
        result = original(log, prev_index, prev_term, entries)
        if result is None:
            return result
        hit("append accepted")
        if len(entries) > 1:
            hit("append with several entries")
        if entries and log.last_index == last:
            hit("append repeated")
        return result

    def truncate(original: Any, log: RaftLog, index: int) -> None:
        hit("conflict truncated")
        if log.term(index + 1) != log.last_term:
            hit("conflict over several terms truncated")
        if log.conf_index > index:
            hit("a configuration rolled back")
        original(log, index)

    def written(original: Any, log: RaftLog, last: Any) -> bool:
        counted = bool(original(log, last))
        if not counted and last.index > log.base:
            hit("write reported for entries that were overwritten")
        return counted

    def compact(original: Any, log: RaftLog, index: int) -> None:
        before = len(log.configs)
        hit("log compacted")
        original(log, index)
        if len(log.configs) < before:
            hit("configuration compacted")

    def restore(original: Any, log: RaftLog, index: int, term: int, conf: Any) -> None:
        hit("snapshot installed")
        if log.last_index > log.committed:
            hit("snapshot installed over a tail")
        original(log, index, term, conf)

    def install(original: Any, raft: Raft, message: InstallSnapshot) -> None:
        if message.meta.index <= raft.log.committed:
            hit("snapshot not needed: committed past it")
        elif raft.log.term(message.meta.index) == message.meta.term:
            hit("snapshot not needed: the log has it")
        original(raft, message)

    _wrap(RaftLog, "try_append", try_append)
    _wrap(RaftLog, "_truncate_to", truncate)
    _wrap(RaftLog, "written", written)
    _wrap(RaftLog, "compact", compact)
    _wrap(RaftLog, "restore", restore)
    _wrap(follower, "install", install)


def _replication() -> None:
    def follower_append(original: Any, raft: Raft, message: AppendEntries) -> None:
        before, waiting = raft.log.committed, len(raft.messages_after_persist)
        if message.prev_index < before:
            hit("append behind the commit")
        original(raft, message)
        if raft.log.committed > before:
            hit("commit learned from an append")
        for answer in raft.messages_after_persist[waiting:]:
            if isinstance(answer, AppendResponse) and answer.reject:
                hit("append refused")
                if answer.hint_term and answer.hint_index < message.prev_index - 1:
                    hit("append refused past a run of terms")

    def follower_step(original: Any, raft: Raft, message: Any) -> None:
        before = raft.log.committed
        original(raft, message)
        if raft.log.committed > before:
            if isinstance(message, CommitNotice):
                hit("commit learned from a notice")
            elif isinstance(message, Heartbeat):
                hit("commit learned from a heartbeat")

    def maybe_commit(original: Any, raft: Raft) -> None:
        before = raft.log.committed
        original(raft)
        if raft.log.committed > before:
            if raft.log.term(before + 1) != raft.term:
                hit("entries of an earlier term committed through one of its own")
            if raft.log.committed > raft.log.durable:
                hit("commit before the leader's own disk")

    def send(original: Any, raft: Raft, message: Any) -> None:
        if raft.durable_term != raft.term:
            hit("message waits for its term to be on disk")
        original(raft, message)

    def persisted(original: Any, node: RawNode, number: int) -> None:
        if len(node._writing) > 2:
            hit("several writes under way at once")
        original(node, number)

    def handle(original: Any, raft: Raft, message: AppendResponse, progress: Progress) -> None:
        state = progress.state
        if not message.reject and message.index < progress.match:
            hit("answer about entries acknowledged before")
        original(raft, message, progress)
        if state == ProgressState.PROBE and progress.state == ProgressState.REPLICATE:
            hit("follower becomes up to date enough to stream to")
        if state == ProgressState.REPLICATE and progress.state == ProgressState.PROBE:
            hit("follower refused while streamed to")

    def is_paused(original: Any, progress: Progress, **bounds: int) -> bool:
        paused = bool(original(progress, **bounds))
        if paused and progress.state == ProgressState.REPLICATE:
            hit("window full")
        return paused

    def nudge(original: Any, raft: Raft, node: int, progress: Progress) -> None:
        state = progress.state
        original(raft, node, progress)
        if state == ProgressState.REPLICATE:
            hit("follower nudged")
            if progress.state == ProgressState.PROBE:
                hit("follower nudged whose entries are compacted")

    def send_snapshot(original: Any, raft: Raft, node: int, progress: Progress) -> bool:
        sent = bool(original(raft, node, progress))
        if not sent:
            hit("snapshot not ordered for one that is away")
            return sent
        hit("snapshot ordered")
        if raft.conf.voters_outgoing:
            hit("snapshot ordered while the configuration is joint")
        if node in raft.conf.learners:
            hit("snapshot ordered for a learner")
        return sent

    def propose(original: Any, node: RawNode, data: Any) -> Any:
        try:
            return original(node, data)
        except ProposalDropped:
            hit("proposal refused")
            raise

    _wrap(follower, "append", follower_append)
    _wrap(follower, "step", follower_step)
    _wrap(leader, "maybe_commit", maybe_commit)
    _wrap(Raft, "send", send)
    _wrap(RawNode, "persisted", persisted)
    _wrap(leader, "_handle_append_response", handle)
    _wrap(Progress, "is_paused", is_paused)
    _wrap(leader, "_nudge", nudge)
    _wrap(leader, "_send_snapshot", send_snapshot)
    _wrap(RawNode, "propose", propose)


def _reads() -> None:
    def acknowledge(original: Any, reads: LeaderReads, node: int, number: int, **rest: Any) -> Any:
        confirmed = original(reads, node, number, **rest)
        for _ in confirmed:
            hit("read confirmed by a round")
        return confirmed

    def start_reads(original: Any, raft: Raft) -> None:
        reads, log = raft.reads, raft.log
        if reads.joining:
            if log.term(log.committed) != raft.term:
                hit("read waits for a commit of this term")
            elif voters_of(raft.conf) == (raft.id,):
                hit("read confirmed at once by a lone voter")
            elif reads.open_round:
                hit("read joins while a round is under way")
        original(raft)

    def close(original: Any, reads: LeaderReads) -> Any:
        waiting = original(reads)
        for _ in waiting:
            hit("read fails with its leader")
        return waiting

    def finish(original: Any, raft: Raft, message: ReadIndexResponse) -> None:
        if message.context in raft.forwarded_reads:
            hit("read of a follower confirmed" if message.ok else "read refused by one that does not lead")
        original(raft, message)

    _wrap(LeaderReads, "acknowledge", acknowledge)
    _wrap(leader, "_start_reads", start_reads)
    _wrap(LeaderReads, "close", close)
    _wrap(follower, "_finish_read", finish)


def _membership() -> None:
    def append_config(original: Any, raft: Raft, conf: Any, context: bytes) -> Any:
        old = raft.conf
        if conf.voters_outgoing:
            hit("joint configuration entered")
        elif old.voters_outgoing:
            hit("joint configuration left")
        elif set(conf.voters) - set(old.voters):
            hit("voter added")
        elif set(old.voters) - set(conf.voters):
            hit("voter removed")
        if set(conf.learners) - set(old.learners) - set(old.voters):
            hit("learner added")
        if set(old.learners) & set(conf.voters):
            hit("learner promoted")
        if set(old.voters) & {*conf.learners, *conf.learners_next}:
            hit("voter demoted")
        return original(raft, conf, context)

    def change(original: Any, raft: Raft, changes: Any, context: bytes) -> Any:
        try:
            return original(raft, changes, context)
        except ProposalDropped as refusal:
            pending = "under way" in refusal.reason
            hit(
                f"change refused: {'another is under way' if pending else 'nothing of this term is committed'}"
            )
            raise

    _wrap(leader, "_append_config", append_config)
    _wrap(leader, "change_config", change)
