"""What may leave a node: nothing promised that is not on its disk, nothing claimed that is not so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft import messages as m
from tests.spec.model import LEADER, Node, demand, snapshot_of

if TYPE_CHECKING:
    from tests.spec.spec import SpecChecker

FROM_LEADER = (m.AppendEntries, m.Heartbeat, m.InstallSnapshot)
ROUNDS_KEPT = 64


def sent(spec: SpecChecker, node: Node, message: m.Message) -> None:
    """Nothing is promised that is not on disk, and nothing claimed that is not so."""
    term = message.term
    if isinstance(message, m.PreVoteRequest) or (isinstance(message, m.PreVoteResponse) and message.granted):
        return
    disk = node.disk
    demand(disk.term >= term, lambda: f"{_name(node, message)} of term {term}, on disk is {disk.term}")
    if isinstance(message, (*FROM_LEADER, m.CommitNotice, m.TimeoutNow)):
        demand(spec.leaders.get(term) == node.id, lambda: f"{_name(node, message)}: not the leader of {term}")
    if isinstance(message, m.AppendEntries):
        demand(
            message.commit <= node.commit,
            lambda: f"{_name(node, message)} commit {message.commit}, own {node.commit}",
        )
        before = message.prev_term
        for entry in message.entries:
            created = spec.created.get((entry.index, entry.term))
            good = created is not None and (created[0], created[1].data) == (before, entry.data)
            if not good:
                demand(good, f"{_name(node, message)}: {entry} after term {before} is not what was appended")
            before = entry.term
    elif isinstance(message, m.Heartbeat | m.CommitNotice):
        held = node.match.get(message.to, 0)
        most = min(node.commit, held) if term == node.term else node.commit
        demand(
            message.commit <= most, lambda: f"{_name(node, message)} commit {message.commit}, at most {most}"
        )
        if isinstance(message, m.Heartbeat) and message.context and message.context not in node.rounds:
            node.rounds[message.context] = spec.clock
            for old in [each for each in node.rounds if each <= message.context - ROUNDS_KEPT]:
                del node.rounds[old]
                node.answers.pop(old, None)
    elif isinstance(message, m.AppendResponse):
        if not message.reject and message.index:
            _acknowledged(spec, node, message)
    elif isinstance(message, m.VoteRequest):
        demand(
            (disk.term, disk.vote) == (term, node.id),
            lambda: f"{_name(node, message)}: its own vote is not on disk",
        )
        demand(
            not message.force or node.told_to_campaign == term - 1,
            lambda: f"{_name(node, message)} by force, nobody said so",
        )
    elif isinstance(message, m.VoteResponse):
        if message.granted:
            voted = (disk.term, disk.vote)
            demand(
                voted == (term, message.to), lambda: f"{_name(node, message)}: the vote on disk is {voted}"
            )
            other = spec.votes_sent.setdefault((node.id, term), message.to)
            demand(other == message.to, lambda: f"{_name(node, message)}: voted for n{other} in {term}")
    elif isinstance(message, m.ReadIndexResponse):
        if message.ok:
            floor = spec.nodes[message.to].asked.get(message.context, 0)
            demand(
                message.index >= floor,
                lambda: f"{_name(node, message)}: {message.index}, committed before it was {floor}",
            )
            demand_confirmed(spec, node, message.to, message.context)
    elif isinstance(message, m.InstallSnapshot):
        spec.demand_snapshot(_name(node, message), snapshot_of(message.meta))


def _acknowledged(spec: SpecChecker, node: Node, message: m.AppendResponse) -> None:
    index, disk = message.index, node.disk.log
    demand(index <= disk.last, lambda: f"{_name(node, message)} {index}, on disk is {disk.last}")
    leader = spec.nodes[message.to]
    if leader.role == LEADER and leader.term == message.term and index > leader.log.base:
        here, there = disk.term_at(index), leader.log.term_at(index)
        demand(
            index < disk.base or here == there,
            lambda: f"{_name(node, message)} {index}@{there}, on disk it is @{here}",
        )
    key = (node.id, message.term)
    spec.acks_sent[key] = max(spec.acks_sent.get(key, 0), index)


def demand_confirmed(spec: SpecChecker, node: Node, asker: int, context: int) -> None:
    """A quorum answered a round that began after the request came (thesis 6.4)."""
    arrived = node.arrived.get((asker, context))
    demand(arrived is not None, f"{node} answers read {context} of n{asker}, which never came")
    config = node.log.config
    good = config.has_quorum({node.id}) or any(
        arrived is not None and began >= arrived and config.has_quorum(_answered(node, number))
        for number, began in node.rounds.items()
    )
    demand(good, f"{node} answers read {context} of n{asker} without a quorum that confirmed it")


def _answered(node: Node, number: int) -> set[int]:
    return {node.id}.union(*(who for each, who in node.answers.items() if each >= number))


def _name(node: Node, message: m.Message) -> str:
    return f"{node} -> n{message.to} {type(message).__name__}"
