"""ReadIndex (thesis 6.4): a commit index that is at least as new as every write acknowledged before the request.

The leader notes its commit index, shows by one round of heartbeats that it still leads, and only then answers.
Rounds are numbered within a term and never reused, and a heartbeat's answer carries both, so that an answer to
an older question can never confirm a newer one (etcd 20418).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raft import quorum
from raft.types import ConfState, Index, NodeID


@dataclass(slots=True, frozen=True)
class ReadState:
    """The read numbered context may be served once the state machine has applied index."""

    context: int
    index: Index


@dataclass(slots=True)
class ReadRound:
    number: int
    index: Index
    requests: list[tuple[NodeID, int]]  # (who asked, its context)
    acknowledged: set[NodeID] = field(default_factory=set)


class LeaderReads:
    """A leader's rounds. A request waits in `joining` until the next round starts; none starts before the
    leader has committed an entry of its own term, because until then its commit index may be old."""

    def __init__(self) -> None:
        self.joining: list[tuple[NodeID, int]] = []
        self._rounds: list[ReadRound] = []
        self._last_number = 0

    def start(self, index: Index) -> int:
        """Starts a round for all that joined; returns its number, for the heartbeats."""
        self._last_number += 1
        self._rounds.append(ReadRound(self._last_number, index, self.joining))
        self.joining = []
        return self._last_number

    @property
    def open_round(self) -> int:
        """The newest round not yet confirmed, or 0: every heartbeat repeats it, in case one was lost."""
        return self._rounds[-1].number if self._rounds else 0

    def acknowledge(self, node: NodeID, number: int, *, leader: NodeID, conf: ConfState) -> list[ReadRound]:
        """node answered round `number`, and by that every older one; returns the rounds now confirmed."""
        confirmed = 0
        for at, round_ in enumerate(self._rounds):
            if round_.number > number:
                break
            round_.acknowledged.add(node)
            if quorum.has_quorum(conf, {leader, *round_.acknowledged}):
                confirmed = at + 1
        done, self._rounds = self._rounds[:confirmed], self._rounds[confirmed:]
        return done

    def close(self) -> list[tuple[NodeID, int]]:
        """Everybody still waiting, to be told that the read failed."""
        waiting = [request for round_ in self._rounds for request in round_.requests] + self.joining
        self._rounds, self.joining = [], []
        return waiting
