"""Raft by the thesis, as a checker: which step of a node is a legal one, given what it was told.

One observation is one input to one node and the state it is in afterwards. Each method below names an input,
moves this module's own state as the thesis allows, where there is a choice along the one that was taken, and
then both states have to agree. Votes, acknowledgements, read rounds and disks are followed from the messages
that were really sent and delivered; nothing a node claims to have counted is believed. A message that changes
nothing is legal: it may as well have been lost. So this is about safety; that something happens at all is the
simulator's liveness phase.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from raft import messages as m
from tests.spec.model import (
    CANDIDATE,
    FOLLOWER,
    LEADER,
    PRE_CANDIDATE,
    ROLES,
    Config,
    Disk,
    Entry,
    Log,
    Node,
    Seen,
    Snapshot,
    SpecViolation,
    Taken,
    demand,
    overlap,
    snapshot_of,
)
from tests.spec.recovery import recovered
from tests.spec.saying import FROM_LEADER, demand_confirmed, sent


class SpecChecker:
    """A whole cluster's abstract state."""

    def __init__(self) -> None:
        self.initial = Config()
        self.nodes: dict[int, Node] = {}
        self.leaders: dict[int, int] = {}
        self.created: dict[
            tuple[int, int], tuple[int, Entry]
        ] = {}  # (index, term) -> (term before it, entry)
        self.committed = [(0, 0)]  # at each index: the entry's term, and that of the leader who committed it
        self.configs: list[tuple[int, Config]] = []  # committed ones
        self.votes_sent: dict[tuple[int, int], int] = {}  # (voter, term) -> candidate
        self.acks_sent: dict[tuple[int, int], int] = {}  # (follower, term) -> index
        self.clock = 0
        self._entries: Callable[[int], list[Entry]] = lambda first: []

    # What is observed: each of these is one input, `seen` is the node afterwards

    def started(
        self, node_id: int, seen: Seen, config: Config, applied: int, stored: tuple[int, int]
    ) -> None:
        """A node begins, for the first time or again after a crash, which left this term and vote on disk."""
        before = self.nodes.get(node_id)
        if before is None:
            demand(seen[:1] + seen[4:] == (0, 0, 0, 0, 0), f"n{node_id} is born with {seen}")
            if config.voters:
                self.initial = self.initial if self.initial.voters else config
                demand(config == self.initial, f"n{node_id} is born into {config}, not {self.initial}")
            disk = Disk(Log([(0, config)]))
            self.nodes[node_id] = Node(node_id, disk.log.copy(), disk, config)
            return
        node = recovered(self, before, seen, applied, stored)
        here, known = node.log.term_at(seen.commit), self.committed_term(seen.commit)
        demand(
            here == known is not None, f"n{node_id} restarts with commit {seen.commit}@{here}, not @{known}"
        )
        node.commit, node.given = seen.commit, applied
        if node.log.config != config:  # it may have heard of the configuration it was born without
            demand(len(node.log.configs) == 1, f"{node} restarts in {config}, its log says {node.log.config}")
            possible = (node.origin, self.config_at(applied))
            demand(config in possible, f"{node} restarts in {config}, possible are {possible}")
            node.log.configs = [(node.log.base, config)]
        self.nodes[node_id] = node
        self._agree(node, seen)

    def ticked(self, node: Node, seen: Seen) -> None:
        """An election timeout may pass: candidates come up, and a leader without a quorum gives up."""
        if seen == node.agreed:
            return
        if node.role == LEADER:
            self._may_abdicate(node, seen)
        else:
            if seen.role == node.role == FOLLOWER and seen.leader == 0:
                node.leader = 0  # it has waited long enough to hear from that leader
            self._may_campaign(node, seen, forced=False)
        self._agree(node, seen)

    def told_gone(self, node: Node, gone: int, seen: Seen) -> None:
        """It may take its own driver's word for that about its leader, as if the election timeout had passed."""
        if node.role == FOLLOWER and gone and gone == node.leader:
            node.leader = 0
            self._may_campaign(node, seen, forced=False)
        self._agree(node, seen)

    def received(
        self, node: Node, message: m.Message, seen: Seen, entries: Callable[[int], list[Entry]]
    ) -> None:
        """entries(i) is the observed log from i on."""
        self.clock += 1
        self._entries = entries
        if message.to == node.id and self._passes_term_gate(node, message, seen):
            self._handlers[type(message)](self, node, message, seen)
        self._agree(node, seen)

    def proposed(self, node: Node, seen: Seen, entries: Sequence[Entry]) -> None:
        """entries were appended by a leader at a client's wish, or none."""
        if entries:
            demand(node.role == LEADER, f"{node} is {ROLES[node.role]} and appends")
        for entry in entries:
            self._create(node, entry)
        self._agree(node, seen)

    def asked_to_read(self, node: Node, context: int) -> None:
        self.clock += 1
        node.asked[context] = len(self.committed) - 1
        if node.role == LEADER:
            node.arrived[node.id, context] = self.clock

    def persisted(self, node: Node, number: int, seen: Seen, entries: Callable[[int], list[Entry]]) -> None:
        """Writes up to `number` are on disk; their messages leave now. entries: as for received()."""
        self._entries = entries
        while node.writing and node.writing[0].number <= number:
            taken = node.writing.popleft()
            before = None if taken.snapshot else node.disk.log.term_at(taken.first - 1)
            for index, entry in taken.entries:
                self._demand_chain(node, index, entry, before)
                before = entry.term
            node.disk.write(taken)
            for message in taken.messages_after_persist:
                sent(self, node, message)
        if seen != node.agreed:
            self._may_win(node, seen)
            self._may_commit(node, seen)
            self._agree(node, seen)

    def taken(self, node: Node, taken: Taken, seen: Seen) -> None:
        """A Ready was handed out."""
        self.clock += 1
        self.unchanged(node, seen)
        if taken.hard_state is not None:
            node.handed_state = taken.hard_state
        demand(node.handed_state == (node.term, node.vote), f"{node}: its vote is not handed to the disk")
        if taken.snapshot is not None:
            node.handed = (taken.snapshot.index, taken.snapshot.term)
            node.given = taken.snapshot.index
        if taken.entries:
            index, entry = taken.entries[-1]
            node.handed = (index, entry.term)
        elif node.handed[0] < node.log.base:
            node.handed = (node.log.base, node.log.base_term)
        last = (node.log.last, node.log.last_term)
        demand(node.handed == last, f"{node}: its disk is handed {node.handed}, the log ends at {last}")
        node.writing.append(taken)
        for message in taken.messages:
            sent(self, node, message)
        for index, term in taken.committed:
            demand(index == node.given + 1 <= node.commit, f"{node} applies {index} after {node.given}")
            demand(term == self.committed_term(index), f"{node} applies {index}@{term}")
            node.given = index
        for context, index in taken.reads:
            floor = node.asked.pop(context, None)
            demand(floor is not None and index >= floor, f"{node} reads at {index}, committed was {floor}")
            if (node.id, context) in node.arrived:
                demand_confirmed(self, node, node.id, context)

    def compacted(self, node: Node, index: int, seen: Seen) -> None:
        if index > node.log.base:
            demand(index <= node.given, f"{node} drops {index}, applied is {node.given}")
            node.log.compact(index)
        self._agree(node, seen)

    def unchanged(self, node: Node, seen: Seen) -> None:
        """An input that changes nothing here."""
        if seen != node.agreed:
            self._agree(node, seen)

    # Messages received

    def _passes_term_gate(self, node: Node, message: m.Message, seen: Seen) -> bool:
        if message.term < node.term:
            return False
        if message.term > node.term and not (
            isinstance(message, m.PreVoteRequest)
            or (isinstance(message, m.PreVoteResponse) and message.granted)
        ):
            if isinstance(message, m.VoteRequest) and node.leader and not message.force:
                if seen.term == node.term:
                    return False  # it hears from a leader, and may stay with it (thesis 4.2.3)
            node.observe_term(message.term, message.sender if isinstance(message, FROM_LEADER) else 0)
        if isinstance(message, FROM_LEADER):
            leader = self.leaders.get(message.term)
            demand(
                leader == message.sender, f"n{message.sender} leads {message.term}: its leader is {leader}"
            )
            node.follow(message.sender)
        return True

    def _nothing(self, node: Node, message: m.Message, seen: Seen) -> None:
        pass

    def _vote_request(self, node: Node, message: m.VoteRequest, seen: Seen) -> None:
        if seen.vote == message.sender != node.vote:
            demand(node.vote == 0, f"{node} votes for n{message.sender} after n{node.vote}")
            mine = (node.log.last_term, node.log.last)
            theirs = (message.last_term, message.last_index)
            demand(theirs >= mine, f"{node} votes for n{message.sender}, whose log {theirs} is behind {mine}")
            node.vote = message.sender

    def _vote_response(self, node: Node, message: m.VoteResponse, seen: Seen) -> None:
        if node.role != CANDIDATE:
            return
        if message.granted:
            voted_for = self.votes_sent.get((message.sender, message.term))
            demand(voted_for == node.id, f"{node} gets a vote that n{message.sender} gave to n{voted_for}")
            node.votes.add(message.sender)
            self._may_win(node, seen)
        elif seen.role == FOLLOWER:
            node.follow(0)

    def _pre_vote_response(self, node: Node, message: m.PreVoteResponse, seen: Seen) -> None:
        if node.role != PRE_CANDIDATE:
            return
        if message.granted and message.term == node.term + 1:
            node.pre_votes.add(message.sender)
            self._may_campaign(node, seen, forced=False)
        elif not message.granted and seen.role == FOLLOWER:
            node.follow(0)

    def _append_entries(self, node: Node, message: m.AppendEntries, seen: Seen) -> None:
        log, last_new = node.log, message.prev_index + len(message.entries)
        if (seen.last, seen.last_term) != (log.last, log.last_term):
            at = message.prev_index
            demand(log.term_at(at) == message.prev_term, f"{node} appends after {at}, which does not match")
            first = next((e.index for e in message.entries if log.term_at(e.index) != e.term), last_new + 1)
            new = self._entries(first)
            demand(first > node.commit, f"{node} overwrites {first}, {node.commit} are committed")
            terms = [entry.term for entry in new]
            told = [entry.term for entry in message.entries if entry.index >= first]
            demand(terms == told, f"{node} appends {terms} from {first} on, was sent {told}")
            log.truncate(first - 1)
            for entry in new:
                self._demand_chain(node, log.last + 1, entry, log.last_term)
                log.append(entry)
        if seen.commit > node.commit:
            demand(log.base <= last_new <= log.last, f"{node} commits what it refused")
            self._learn_commit(node, min(message.commit, last_new), seen)

    def _learn_commit(self, node: Node, limit: int, seen: Seen) -> None:
        """A follower's commit comes from a leader, and what it stands for is the same entry there."""
        if seen.commit <= node.commit:
            return
        demand(seen.commit <= limit, f"{node} commits {seen.commit}, was told {limit}")
        here, known = node.log.term_at(seen.commit), self.committed_term(seen.commit)
        demand(here == known is not None, f"{node} commits {seen.commit}@{here}, committed is @{known}")
        node.commit = seen.commit

    def _told_commit(self, node: Node, message: m.Heartbeat | m.CommitNotice, seen: Seen) -> None:
        if message.sender == node.leader:
            self._learn_commit(node, message.commit, seen)

    def _install_snapshot(self, node: Node, message: m.InstallSnapshot, seen: Seen) -> None:
        meta = snapshot_of(message.meta)
        self.demand_snapshot(f"n{message.sender} sends", meta)
        if seen.base > node.log.base:
            demand(meta.index > node.commit, f"{node} installs {meta.index}, {node.commit} are committed")
            demand(node.log.term_at(meta.index) != meta.term, f"{node} drops a log that holds {meta}")
            node.log = Log([(meta.index, meta.config)], meta.index, meta.term)
            node.origin, node.commit = meta.config, meta.index
        else:
            self._learn_commit(node, meta.index, seen)

    def _append_response(self, node: Node, message: m.AppendResponse, seen: Seen) -> None:
        if node.role != LEADER or message.reject:
            return
        sent = self.acks_sent.get((message.sender, message.term), 0)  # 0 says nothing
        demand(message.index <= sent, f"{node} hears {message.index} of n{message.sender}, which sent {sent}")
        node.match[message.sender] = max(node.match.get(message.sender, 0), message.index)
        self._may_commit(node, seen)

    def _heartbeat_response(self, node: Node, message: m.HeartbeatResponse, seen: Seen) -> None:
        if node.role == LEADER and message.context:
            node.answers.setdefault(message.context, set()).add(message.sender)

    def _read_request(self, node: Node, message: m.ReadIndexRequest, seen: Seen) -> None:
        if node.role == LEADER:
            node.arrived.setdefault((message.sender, message.context), self.clock)

    def _timeout_now(self, node: Node, message: m.TimeoutNow, seen: Seen) -> None:
        leader = self.leaders.get(message.term)
        demand(leader == message.sender, f"n{message.sender} hands over {message.term}, led by {leader}")
        if node.role != LEADER:
            node.told_to_campaign = node.term
            self._may_campaign(node, seen, forced=True)

    _handlers: dict[type, Callable[..., None]] = {  # noqa: RUF012
        m.PreVoteRequest: _nothing,
        m.PreVoteResponse: _pre_vote_response,
        m.VoteRequest: _vote_request,
        m.VoteResponse: _vote_response,
        m.AppendEntries: _append_entries,
        m.AppendResponse: _append_response,
        m.Heartbeat: _told_commit,
        m.HeartbeatResponse: _heartbeat_response,
        m.CommitNotice: _told_commit,
        m.InstallSnapshot: _install_snapshot,
        m.ReadIndexRequest: _read_request,
        m.ReadIndexResponse: _nothing,
        m.TimeoutNow: _timeout_now,
    }

    # What a node may do

    def _may_campaign(self, node: Node, seen: Seen, *, forced: bool) -> None:
        """Ask first, and stand once a quorum would agree (thesis 9.6) or the leader said so (3.10)."""
        config = node.log.config
        if seen.role not in (PRE_CANDIDATE, CANDIDATE) or (seen.role, seen.term) == (node.role, node.term):
            return
        known = bisect_right(node.log.configs, node.commit, key=lambda pair: pair[0])
        maybe = [each for _, each in node.log.configs[max(known - 1, 0) :]]  # in force when all is known
        votes = any(node.id in each.voters | each.outgoing for each in maybe)
        demand(votes, f"{node} campaigns without a vote in {maybe}")
        if seen.role == PRE_CANDIDATE:
            node.role, node.leader, node.pre_votes = PRE_CANDIDATE, 0, {node.id}
            return
        agreed = node.pre_votes if node.role == PRE_CANDIDATE else {node.id}
        demand(forced or config.has_quorum(agreed), f"{node} stands with pre-votes of {sorted(agreed)}")
        node.stand()

    def _may_win(self, node: Node, seen: Seen) -> None:
        """A quorum of votes that were sent, and one's own once it is on disk (thesis 3.4)."""
        if node.role != CANDIDATE or seen.role != LEADER:
            return
        votes = node.votes | ({node.id} if node.own_vote_is_durable() else set())
        demand(node.log.config.has_quorum(votes), f"{node} leads with durable votes of {sorted(votes)}")
        leader = self.leaders.setdefault(node.term, node.id)
        demand(leader == node.id, f"{node} leads the term of n{leader}")
        index = len(self.committed) - 1
        while self.committed[index][1] >= node.term:
            index -= 1  # committed in a later term: this one is over, and leads nobody
        here = node.log.term_at(max(index, node.log.base))
        demand(
            here == self.committed_term(max(index, node.log.base)), f"{node} leads without committed {index}"
        )
        node.lead()
        self._create(node, Entry(node.term, b""))

    def _may_abdicate(self, node: Node, seen: Seen) -> None:
        if seen.role == FOLLOWER and seen.term == node.term:
            node.follow(0)

    def _may_commit(self, node: Node, seen: Seen) -> None:
        """A quorum holds it durably, and it is of the leader's own term (thesis 3.6.2); a joint configuration is
        left once it is committed, and a leader without a vote in the new one goes (4.2.2, 4.3)."""
        if node.role != LEADER or seen.commit <= node.commit:
            return
        index, log = seen.commit, node.log
        held = {each for each, match in node.match.items() if match >= index}
        if node.disk.log.term_at(index) == node.term:
            held.add(node.id)
        demand(log.term_at(index) == node.term, f"{node} commits {index}@{log.term_at(index)} by counting")
        demand(log.config.has_quorum(held), f"{node} commits {index}, which {sorted(held)} hold")
        shared = min(index, len(self.committed) - 1)
        here, known = log.term_at(shared), self.committed_term(shared)
        demand(shared <= log.base or here == known, f"{node} commits {shared}@{here}, before it was @{known}")
        for each in range(len(self.committed), index + 1):
            entry = log.entries[each - log.base - 1]
            self.committed.append((entry.term, node.term))
            if entry.config is not None:
                self.configs.append((each, entry.config))
        node.commit = index
        if log.configs[-1][0] <= index:
            if log.config.outgoing and seen.last > log.last:
                self._create(node, Entry(node.term, self._entries_data(seen), log.config.left()))
            elif node.id not in log.config.voters:
                self._may_abdicate(node, seen)

    def _entries_data(self, seen: Seen) -> bytes:
        new = self._entries(seen.last)
        return new[0].data if new else b""

    def _create(self, node: Node, entry: Entry) -> None:
        """A leader appends (thesis 3.5), a configuration only where the one before is committed and an entry of
        this term is, and where every quorum of one meets every quorum of the other (4.1, 4.3; raft-dev 2015)."""
        log, index = node.log, node.log.last + 1
        demand(entry.term == node.term, f"{node} appends an entry of {entry.term}")
        if entry.config is not None:
            at = log.configs[-1][0]
            demand(at <= node.commit, f"{node} changes the configuration at {at}, committed is {node.commit}")
            own = log.term_at(node.commit) == node.term
            demand(own, f"{node} changes the configuration before its own term is committed")
            demand(overlap(log.config, entry.config), f"{node}: {entry.config} does not meet {log.config}")
        known = self.created.setdefault((index, node.term), (log.last_term, entry))
        demand(known == (log.last_term, entry), f"{node} appends {index}@{node.term} a second time")
        log.append(entry)

    # Rules

    def demand_snapshot(self, name: str, meta: Snapshot) -> None:
        demand(meta.term == self.committed_term(meta.index), f"{name} a snapshot at {meta.index}@{meta.term}")
        config = self.config_at(meta.index)
        demand(meta.config == config, f"{name} a snapshot in {meta.config}, by {meta.index} it was {config}")

    def _demand_chain(self, node: Node, index: int, entry: Entry, before: int | None) -> None:
        """Log matching: an entry is the one its leader made, after the one it made it after (thesis 3.5)."""
        created = self.created.get((index, entry.term))
        good = created is not None and created[1] == entry and before in (created[0], None)
        demand(good, lambda: f"{node} holds {index}@{entry.term} after term {before}, created was {created}")

    def config_at(self, index: int) -> Config:
        """The newest committed configuration at or below index."""
        at = bisect_right(self.configs, index, key=lambda pair: pair[0])
        return self.configs[at - 1][1] if at else self.initial

    def committed_term(self, index: int) -> int | None:
        return self.committed[index][0] if 0 <= index < len(self.committed) else None

    def _agree(self, node: Node, seen: Seen) -> None:
        mine = node.seen()
        if mine != seen:
            named = zip(Seen._fields, mine, seen, strict=True)
            differences = [
                f"{name} is {there}, legal is {here}" for name, here, there in named if here != there
            ]
            raise SpecViolation(f"spec: {node}: {', '.join(differences)}")
        node.agreed = seen
