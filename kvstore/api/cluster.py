"""etcdserverpb.Cluster: who the members are, and changes of that.

Two things of ours ride on MemberAdd as request metadata, which etcd ignores: `kvstore-promote: true` makes the
leader promote the learner as soon as it has caught up, and `kvstore-replaces: <id>` (hexadecimal) lets it take
that member's place when it is. A client that must know whether they are understood calls the same under
/kvstore.Cluster/MemberAdd, which etcd does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kvstore import errors
from kvstore.api.context import Context, parse
from kvstore.api.errors import fail
from kvstore.commands import Kind
from kvstore.config import parse_url
from kvstore.pb.etcdserverpb_pb2 import (
    Member,
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
    MemberListResponse,
    MemberPromoteRequest,
    MemberPromoteResponse,
    MemberRemoveRequest,
    MemberRemoveResponse,
    MemberUpdateRequest,
    MemberUpdateResponse,
)
from kvstore.pb.internal_pb2 import MemberChange
from kvstore.replication.member_changes import MemberChanges
from kvstore.replication.outbox import Outcome
from kvstore.replication.recovery import decode_conf
from kvstore.rpc import Methods, UnaryCall, UnaryMethod

PROMOTE = "kvstore-promote"
REPLACES = "kvstore-replaces"


class ClusterService:
    def __init__(self, context: Context, changes: MemberChanges) -> None:
        self._context = context
        self._changes = changes

    def methods(self) -> Methods:
        return {
            "/etcdserverpb.Cluster/MemberList": UnaryMethod(self.member_list),
            "/etcdserverpb.Cluster/MemberAdd": UnaryMethod(self.member_add),
            "/kvstore.Cluster/MemberAdd": UnaryMethod(self.member_add),
            "/etcdserverpb.Cluster/MemberRemove": UnaryMethod(self.member_remove),
            "/etcdserverpb.Cluster/MemberUpdate": UnaryMethod(self.member_update),
            "/etcdserverpb.Cluster/MemberPromote": UnaryMethod(self.member_promote),
        }

    def member_list(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, MemberListRequest, data)
        if request is None or not self._context.has_leader(call):
            return

        def reply(members: list[Member]) -> bytes:
            return MemberListResponse(members=members).SerializeToString()

        if request.linearizable:
            self._reply_caught_up(call, reply)
        else:
            call.reply(self._context.header(0) + reply(self.members()))

    def member_add(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, MemberAddRequest, data)
        if request is None or not self._context.has_leader(call) or not _valid_urls(call, request.peerURLs):
            return
        try:
            replaces = int(call.metadata.get(REPLACES, "0"), 16)
        except ValueError:
            fail(call, errors.MemberNotFound())
            return
        change = MemberChange(
            action=MemberChange.ADD,
            peerURLs=request.peerURLs,
            learner=request.isLearner,
            promote=call.metadata.get(PROMOTE) == "true",
            replaces=replaces,
        )

        def done(member_id: int, problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
                return

            def reply(members: list[Member]) -> bytes:
                added = next((member for member in members if member_id == member.ID), None)
                return MemberAddResponse(member=added, members=members).SerializeToString()

            self._reply_caught_up(call, reply)

        self._ask(call, change, done)

    def member_remove(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, MemberRemoveRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        change = MemberChange(action=MemberChange.REMOVE, ID=request.ID)
        self._change(call, change, lambda members: MemberRemoveResponse(members=members).SerializeToString())

    def member_promote(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, MemberPromoteRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        change = MemberChange(action=MemberChange.PROMOTE, ID=request.ID)
        self._change(call, change, lambda members: MemberPromoteResponse(members=members).SerializeToString())

    def member_update(self, call: UnaryCall, data: bytes) -> None:
        """Where other members reach it. No change of the configuration: nobody's vote moves."""
        request = parse(call, MemberUpdateRequest, data)
        if request is None or not self._context.has_leader(call) or not _valid_urls(call, request.peerURLs):
            return
        member = Member(ID=request.ID, peerURLs=request.peerURLs)

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, tuple):
                reply = MemberUpdateResponse(members=self.members())
                call.reply(self._context.header(0) + reply.SerializeToString())
            else:
                fail(call, outcome)

        self._context.propose(call, Kind.MEMBER_UPDATE, member.SerializeToString(), done)

    def members(self) -> list[Member]:
        """By ascending id, as far as this member has applied."""
        machine = self._context.machine
        conf = decode_conf(machine.conf)
        learners = {*conf.learners, *conf.learners_next}
        known = []
        for member_id, record in sorted(machine.members.items()):
            member = Member()
            member.CopyFrom(record.member)
            member.isLearner = member_id in learners
            known.append(member)
        return known

    def _change(self, call: UnaryCall, change: MemberChange, reply: Callable[[list[Member]], bytes]) -> None:
        def done(member_id: int, problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
            elif change.action == MemberChange.REMOVE and change.ID == self._context.member_id:
                # Removed, and so never told any more what the cluster does: not even this.
                others = [member for member in self.members() if member.ID != change.ID]
                call.reply(self._context.header(0) + reply(others))
            else:
                self._reply_caught_up(call, reply)

        self._ask(call, change, done)

    def _ask(
        self, call: UnaryCall, change: MemberChange, done: Callable[[int, errors.StoreError | None], None]
    ) -> None:
        """The leader is asked once this member knows what was acknowledged by now: whether authentication is on
        and whether the caller is root may be among it, and a change of members is not asked that in the log."""
        context = self._context

        def ready(problem: errors.StoreError | None) -> None:
            try:
                if problem is not None:
                    raise problem
                if context.auth.enabled:
                    context.guard.check_root(call)
            except errors.StoreError as refusal:
                fail(call, refusal)
            else:
                self._changes.ask(change, done)

        context.driver.read(ready)

    def _reply_caught_up(self, call: UnaryCall, reply: Callable[[list[Member]], bytes]) -> None:
        """Once this member has applied everything that was acknowledged by now, wherever it was."""

        def ready(problem: errors.StoreError | None) -> None:
            if problem is not None:
                fail(call, problem)
            else:
                call.reply(self._context.header(0) + reply(self.members()))

        self._context.driver.read(ready)


def _valid_urls(call: UnaryCall, urls: Iterable[str]) -> bool:
    """Whether there is one, and all can be dialed; else the call has failed."""
    try:
        if [parse_url(url) for url in urls]:
            return True
    except ValueError:
        pass
    fail(call, errors.BadMemberUrls())
    return False
