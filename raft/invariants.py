"""What must hold after every event. check_state looks at one node, check_delta at one step of it, and
ClusterHistory at all nodes together. Each failure says which rule, where, and with what values.

 I1  match < next for every follower, and match never falls within a leadership
 I2  base ≤ applied ≤ given out ≤ committed ≤ last;  base ≤ durable ≤ handed ≤ last
 I3  term, vote within a term, and commit never go back
 I4  at most one leader in a term
 I5  what is committed at an index never changes, on any node (log matching, state machine safety)
 I6  a new leader holds every entry that was committed in an earlier term (leader completeness). In an earlier
     term: a candidate whose own vote was slow to reach its disk may still win a term that is over, and lead
     nobody
 I7  terms never fall along a log
 I8  configurations that follow one another in a log have overlapping majorities, and at most one of them, a
     leader's last, is not committed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from raft import membership, quorum
from raft.raft import Raft
from raft.types import Index, NodeID, Role, Term


class InvariantViolated(AssertionError):
    """A rule above is broken; the text begins with its number."""


def _demand(condition: bool, text: str) -> None:
    if not condition:
        raise InvariantViolated(text)


@dataclass(slots=True, frozen=True)
class Observed:
    """What check_delta compares: taken before a step."""

    term: Term
    vote: NodeID
    commit: Index
    role: Role
    match: tuple[tuple[NodeID, Index], ...]


def observe(raft: Raft) -> Observed:
    match = tuple((node, progress.match) for node, progress in raft.progress.items())
    return Observed(raft.term, raft.vote, raft.log.committed, raft.role, match)


def check_state(raft: Raft) -> None:
    """I1, I2 and the shape of a role, of one node at rest."""
    log, name = raft.log, f"n{raft.id}@{raft.term}"
    _demand(
        log.base <= log.applied <= log.taken <= log.committed <= log.last_index,
        f"I2 {name}: base {log.base} applied {log.applied} taken {log.taken} "
        f"committed {log.committed} last {log.last_index}",
    )
    _demand(
        log.base <= log.durable <= log.handed <= log.last_index,
        f"I2 {name}: base {log.base} durable {log.durable} handed {log.handed} last {log.last_index}",
    )
    _demand(log.last_term <= raft.term, f"I7 {name}: last term {log.last_term} is beyond its own")
    for node, progress in raft.progress.items():
        _demand(
            progress.match < progress.next,
            f"I1 {name}: n{node} match {progress.match} next {progress.next}",
        )
    for (_, old), (index, new) in pairwise(log.configs):
        _demand(membership.overlap(old, new), f"I8 {name}: {new} at {index} follows {old}")
    if raft.role == Role.LEADER:
        _demand(raft.leader_id == raft.id, f"I4 {name}: a leader that follows n{raft.leader_id}")
        _demand(
            len(log.configs) < 2 or log.configs[-2][0] <= log.committed,
            f"I8 {name}: configurations at {[index for index, _ in log.configs]}, committed {log.committed}",
        )
        members = quorum.members_of(raft.conf)
        _demand(
            set(raft.progress) == set(members),
            f"I8 {name}: replicates to {sorted(raft.progress)}, members are {members}",
        )


def check_delta(before: Observed, raft: Raft) -> None:
    """I1 and I3, over one step of one node."""
    name = f"n{raft.id}@{raft.term}"
    _demand(raft.term >= before.term, f"I3 {name}: term fell from {before.term}")
    if raft.term == before.term and before.vote:
        _demand(raft.vote == before.vote, f"I3 {name}: vote changed from n{before.vote} to n{raft.vote}")
    commit = raft.log.committed
    _demand(commit >= before.commit, f"I3 {name}: commit fell from {before.commit} to {commit}")
    if raft.role == before.role == Role.LEADER and raft.term == before.term:
        for node, match in before.match:
            progress = raft.progress.get(node)
            _demand(
                progress is None or progress.match >= match,
                f"I1 {name}: match of n{node} fell from {match}",
            )


@dataclass(slots=True)
class ClusterHistory:
    """What all nodes together have ever committed, and who has led."""

    leaders: dict[Term, NodeID] = field(default_factory=dict)
    committed: dict[Index, tuple[Term, bytes]] = field(default_factory=dict)
    committed_in: dict[Index, Term] = field(default_factory=dict)
    highest: Index = 0
    _checked: dict[NodeID, Index] = field(default_factory=dict)

    def check(self, raft: Raft) -> None:
        """I4, I5, I6 after a step of one node."""
        if raft.role == Role.LEADER:
            first = self.leaders.setdefault(raft.term, raft.id)
            _demand(first == raft.id, f"I4 term {raft.term} has two leaders: n{first} and n{raft.id}")
        self._check_committed(raft)

    def became_leader(self, raft: Raft) -> None:
        """I6, once for each leadership; entries below the log's beginning are in its state."""
        log = raft.log
        for index in range(max(log.first_index, self.highest - 200), self.highest + 1):
            term = log.term(index)
            if self.committed_in.get(index, raft.term) >= raft.term:
                continue
            expected = self.committed[index][0]
            _demand(
                term == expected,
                f"I6 n{raft.id}@{raft.term} leads without committed {index}@{expected} (has {term})",
            )

    def restarted(self, node: NodeID) -> None:
        self._checked.pop(node, None)

    def _check_committed(self, raft: Raft) -> None:
        log = raft.log
        first = max(self._checked.get(raft.id, 0) + 1, log.first_index)
        for index in range(first, log.committed + 1):
            entry = log.entry(index)
            known = self.committed.setdefault(index, (entry.term, entry.data))
            self.committed_in.setdefault(index, raft.term)
            _demand(
                known == (entry.term, entry.data),
                f"I5 n{raft.id}@{raft.term} commits {entry}, committed before as {index}@{known[0]}",
            )
        self._checked[raft.id] = max(self._checked.get(raft.id, 0), log.committed)
        self.highest = max(self.highest, log.committed)
