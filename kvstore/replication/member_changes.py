"""Changes of membership: judged and proposed by the leader, asked for by any member.

    api ─► ask() ─┬─ this member leads: judge, propose a CONFIG entry, answer when it is applied
                  └─ another does: the same question to it, over the peers' connection

Judged as etcd judges (its strict reconfiguration check): a change is refused that would leave fewer started
voters than a majority, or that is asked for while a voter is not connected. Learners that were added to become
voters are promoted by the leader's tick as soon as they have caught up; one that replaces a member takes its
place in one joint step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kvstore import errors
from kvstore.pb.etcdserverpb_pb2 import Member
from kvstore.pb.internal_pb2 import ConfigContext, MemberChange, MemberChanged, MemberRecord
from kvstore.replication.driver import Driver
from kvstore.replication.outbox import Outcome
from raft import Change, ChangeKind, ConfState
from raft.quorum import voters_of

CHANGE_MEMBERS = 16  # request between members: MemberChange -> MemberChanged
CAUGHT_UP_SHARE = 0.9  # of the leader's log, as in etcd, before a learner may be promoted
CAUGHT_UP_ENTRIES = 64  # and this close to its end where the leader promotes by itself
AUTO_PROMOTION_EVERY_S = 0.1
RETRY_S = 0.05

Done = Callable[[int, errors.StoreError | None], None]
"""done(id of the member that was added or changed, None), or done(0, what is wrong)."""


class Members(Protocol):
    """What the leader's state knows (kvstore/state/machine.py)."""

    members: dict[int, MemberRecord]
    removed: set[int]


class Network(Protocol):
    def connected(self, node_id: int) -> bool: ...

    def request(
        self,
        to_id: int,
        kind: int,
        payload: bytes,
        timeout_s: float,
        done: Callable[[bytes | None, Exception | None], None],
    ) -> None: ...


def new_member_id(peer_urls: Sequence[str], token: str, now_s: int) -> int:
    """As etcd computes it: the time makes it another one each time, because an id never comes back."""
    text = "".join(sorted(peer_urls)) + token + str(now_s)
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big")


class MemberChanges:
    def __init__(
        self,
        driver: Driver,
        state: Members,
        network: Network,
        *,
        strict: bool,
        learners_max: int,
        token: str,
        now: Callable[[], float],
        wall_s: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        timeout_s: float,
    ) -> None:
        """now: monotonic seconds; wall_s: seconds since 1970, for new ids only."""
        self._driver = driver
        self._state = state
        self._network = network
        self._strict = strict
        self._learners_max = learners_max
        self._token = token
        self._now = now
        self._wall_s = wall_s
        self._call_later = call_later
        self._timeout_s = timeout_s
        self._promote_at = 0.0
        self.promotions = 0  # of learners, while this member led
        self.failed_promotions: dict[str, int] = {}  # by the error's name

    # Asking

    def ask(self, change: MemberChange, done: Done) -> None:
        """done is called once: when the change is applied here or at the leader, or with why it is not."""
        self._ask(change, done, self._now() + self._timeout_s)

    def _ask(self, change: MemberChange, done: Done, deadline: float) -> None:
        driver = self._driver
        if driver.is_leader:
            self._judge(change, done)
            return
        if self._now() >= deadline:
            done(0, errors.NoLeader())
            return
        if not driver.leader_id:
            self._call_later(RETRY_S, lambda: self._ask(change, done, deadline))
            return

        def answered(payload: bytes | None, problem: Exception | None) -> None:
            if problem is not None or payload is None:
                done(0, errors.OutcomeUnknown())  # it may have been proposed: never asked twice
                return
            answer = MemberChanged.FromString(payload)
            if answer.error == errors.NotLeader.__name__:  # it had no effect there
                self._call_later(RETRY_S, lambda: self._ask(change, done, deadline))
                return
            done(answer.ID, _error_named(answer.error))

        left_s = max(0.001, deadline - self._now())
        self._network.request(driver.leader_id, CHANGE_MEMBERS, change.SerializeToString(), left_s, answered)

    def serve(self, payload: bytes, reply: Callable[[bytes], None]) -> None:
        """Another member's question."""

        def done(member_id: int, problem: errors.StoreError | None) -> None:
            name = type(problem).__name__ if problem is not None else ""
            reply(MemberChanged(error=name, ID=member_id).SerializeToString())

        if self._driver.is_leader:
            self._judge(MemberChange.FromString(payload), done)
        else:
            done(0, errors.NotLeader())

    # Judging, on the leader

    def _judge(self, change: MemberChange, done: Done) -> None:
        try:
            if change.action == MemberChange.ADD:
                self._add(change, done)
            elif change.action == MemberChange.REMOVE:
                self._remove(change.ID, done)
            else:
                done = self._counted(done)
                self._promote(change.ID, done)
        except errors.StoreError as refusal:
            done(0, refusal)

    def _counted(self, done: Done) -> Done:
        def promoted(member_id: int, problem: errors.StoreError | None) -> None:
            if problem is None:
                self.promotions += 1
            else:
                name = type(problem).__name__
                self.failed_promotions[name] = self.failed_promotions.get(name, 0) + 1
            done(member_id, problem)

        return promoted

    def _add(self, change: MemberChange, done: Done) -> None:
        conf, urls = self._driver.node.conf, set(change.peerURLs)
        taken = {url for record in self._state.members.values() for url in record.member.peerURLs}
        replaced = self._state.members.get(change.replaces)
        if change.replaces and replaced is None:
            raise errors.MemberNotFound
        if urls & taken:
            raise errors.PeerUrlExists
        if change.learner and len({*conf.learners, *conf.learners_next}) >= self._learners_max:
            raise errors.TooManyLearners
        if self._strict:
            if not change.learner:
                self._demand_started(conf, joining=True)
            down = [node for node in self._others(conf) if not self._network.connected(node)]
            if down and not (change.learner and down == [change.replaces]):
                raise errors.Unhealthy
        member_id = new_member_id(change.peerURLs, self._token, int(self._wall_s()))
        if member_id in self._state.members or member_id in self._state.removed:
            raise errors.MemberExists
        record = MemberRecord(
            member=Member(ID=member_id, peerURLs=change.peerURLs),
            promote=change.promote,
            replaces=change.replaces,
        )
        kind = ChangeKind.ADD_LEARNER if change.learner else ChangeKind.ADD_VOTER
        self._propose([Change(kind, member_id)], [record], member_id, done)

    def _remove(self, member_id: int, done: Done) -> None:
        conf = self._driver.node.conf
        if member_id not in self._state.members:
            raise errors.MemberNotFound
        if self._strict and member_id in conf.voters:
            self._demand_started(conf, without=member_id)
            away = member_id != self._driver.member_id and not self._network.connected(member_id)
            if not away:  # one that is down takes no part in the majority: nothing is risked
                connected = sum(1 for node in self._others(conf) if self._network.connected(node)) + 1
                if connected - 1 < 1 + (len(conf.voters) - 1) // 2 and len(conf.voters) > 2:
                    raise errors.Unhealthy
        if conf.voters == (member_id,):
            raise errors.NotEnoughStarted  # nobody would be left
        self._propose([Change(ChangeKind.REMOVE, member_id)], [], member_id, done)

    def _promote(self, member_id: int, done: Done) -> None:
        conf = self._driver.node.conf
        if member_id not in self._state.members:
            raise errors.MemberNotFound
        if member_id not in conf.learners:
            raise errors.MemberNotLearner
        if self._strict:
            self._demand_started(conf, joining=True, joins_started=True)
        if not self._is_ready(member_id):
            raise errors.LearnerNotReady
        self._propose([Change(ChangeKind.ADD_VOTER, member_id)], [], member_id, done)

    def _demand_started(
        self, conf: ConfState, *, joining: bool = False, joins_started: bool = False, without: int = 0
    ) -> None:
        """A majority of the voters there will be has to be running by now. Two of one is the exception: a
        single member can only grow so."""
        voters = [node for node in conf.voters if node != without]
        started = sum(1 for node in voters if self._is_started(node)) + joins_started
        total = len(voters) + joining
        if joining and not joins_started and total == 2 and started == 1:
            return
        if started < total // 2 + 1:
            raise errors.NotEnoughStarted

    def _is_started(self, node: int) -> bool:
        record = self._state.members.get(node)
        return record is not None and bool(record.member.name)

    def _others(self, conf: ConfState) -> list[int]:
        return [node for node in voters_of(conf) if node != self._driver.member_id]

    def _is_ready(self, learner: int, entries_max: int | None = None) -> bool:
        status = self._driver.node.status()
        progress = status.progress.get(learner)
        if progress is None or not self._is_started(learner) or not self._network.connected(learner):
            return False  # one that is down could cost the majority the moment it votes
        if entries_max is not None:
            return progress.recent_active and progress.match + entries_max >= status.commit
        return progress.match >= CAUGHT_UP_SHARE * status.commit

    def _propose(
        self, changes: Sequence[Change], added: Sequence[MemberRecord], member_id: int, done: Done
    ) -> None:
        def applied(outcome: Outcome) -> None:
            if isinstance(outcome, tuple):
                done(member_id, None)
            else:
                done(0, outcome)

        context = ConfigContext(added=added).SerializeToString()
        self._driver.change_members(changes, context, applied)

    # Promotion by itself

    def tick(self) -> None:
        """On the leader: promotes a learner that asked for it and has caught up, and lets it take another's
        place where it was added for that."""
        now = self._now()
        if not self._driver.is_leader or now < self._promote_at:
            return
        self._promote_at = now + AUTO_PROMOTION_EVERY_S
        conf = self._driver.node.conf
        for learner in conf.learners:
            record = self._state.members.get(learner)
            if record is None or not record.promote or not self._is_ready(learner, CAUGHT_UP_ENTRIES):
                continue
            changes = [Change(ChangeKind.ADD_VOTER, learner)]
            if record.replaces in conf.voters:
                changes.append(Change(ChangeKind.REMOVE, record.replaces))
            self._propose(changes, [], learner, self._counted(_ignore))
            return


def _error_named(name: str) -> errors.StoreError | None:
    if not name:
        return None
    kind: Mapping[str, object] = vars(errors)
    found = kind.get(name)
    if isinstance(found, type) and issubclass(found, errors.StoreError):
        return found()
    return errors.OutcomeUnknown()


def _ignore(member_id: int, problem: errors.StoreError | None) -> None:
    """A promotion that failed is tried again by a later tick."""
