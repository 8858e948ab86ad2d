"""etcdserverpb.Maintenance: Status, HashKV, Alarm, MoveLeader, and Defragment and Downgrade, which have
nothing to do here."""

from __future__ import annotations

import re

from kvstore import errors
from kvstore.api.context import Context, Reply, parse
from kvstore.api.errors import fail
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import (
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    DefragmentResponse,
    DowngradeRequest,
    HashKVRequest,
    HashKVResponse,
    MoveLeaderRequest,
    MoveLeaderResponse,
    StatusResponse,
)
from kvstore.rpc import Methods, Status, UnaryCall, UnaryMethod
from kvstore.state.kv_hash import HashTask
from kvstore.version import CLUSTER_VERSION, ETCD_VERSION
from raft import ConfState
from raft.quorum import voters_of

VERSION = re.compile(r"\d+\.\d+(\.\d+([-+][0-9A-Za-z.+-]+)?)?")
"""MAJOR.MINOR, or a semantic version."""
TRANSFER_LOOK_S = 0.005


class MaintenanceService:
    def __init__(self, context: Context) -> None:
        self._context = context

    def methods(self) -> Methods:
        return {
            "/etcdserverpb.Maintenance/Status": UnaryMethod(self.status),
            "/etcdserverpb.Maintenance/HashKV": UnaryMethod(self.hash_kv),
            "/etcdserverpb.Maintenance/Alarm": UnaryMethod(self.alarm),
            "/etcdserverpb.Maintenance/MoveLeader": UnaryMethod(self.move_leader),
            "/etcdserverpb.Maintenance/Defragment": UnaryMethod(self.defragment),
            "/etcdserverpb.Maintenance/Downgrade": UnaryMethod(self.downgrade),
        }

    def status(self, call: UnaryCall, data: bytes) -> None:
        """Always answers, without a leader too: it is how people find out."""
        context, machine, node = self._context, self._context.machine, self._context.driver.node
        reply = StatusResponse(
            version=ETCD_VERSION,
            dbSize=machine.db_size,
            leader=node.leader_id,
            raftIndex=node.commit,
            raftTerm=node.term,
            raftAppliedIndex=machine.applied_index,
            dbSizeInUse=machine.db_size_in_use,
            isLearner=is_learner(node.conf, context.member_id),
            storageVersion=CLUSTER_VERSION,
            dbSizeQuota=max(0, context.config.quota_backend_bytes),
        )
        if not node.leader_id:
            reply.errors.append("etcdserver: no leader")
        for alarm in machine.alarms:
            reply.errors.append(f"memberID:{alarm.memberID} alarm:{AlarmType.Name(alarm.alarm)} ")
        call.reply(context.header(machine.revision) + reply.SerializeToString())

    def move_leader(self, call: UnaryCall, data: bytes) -> None:
        """On the leader: hands over to a voter, and answers when that leads or an election timeout is over."""
        request = parse(call, MoveLeaderRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        context, driver, target = self._context, self._context.driver, request.targetID
        if not driver.is_leader:
            fail(call, errors.NotLeader())
            return
        if target not in driver.node.conf.voters:
            fail(call, errors.BadTransferee())
            return
        if target != driver.member_id:
            driver.transfer_leadership(target)
        deadline = context.now() + context.config.election_timeout_ms / 1000

        def look() -> None:
            if driver.leader_id == target:
                call.reply(MoveLeaderResponse().SerializeToString())
            elif context.now() >= deadline:
                fail(call, errors.TransferTimeout())
            else:
                context.call_later(TRANSFER_LOOK_S, look)

        look()

    def hash_kv(self, call: UnaryCall, data: bytes) -> None:
        """Of this member's own state, without a leader: that is what it is for."""
        request = parse(call, HashKVRequest, data)
        if request is None:
            return
        try:
            task = HashTask(self._context.machine.keyspace, request.revision)
        except errors.StoreError as problem:
            fail(call, problem)
            return
        self._hash_on(call, task)

    def _hash_on(self, call: UnaryCall, task: HashTask) -> None:
        """A slice, and the next one when the loop has looked after everybody else."""
        if call.cancelled:
            return
        context = self._context
        try:
            found = task.step()
        except errors.StoreError as problem:
            fail(call, problem)
            return
        if found is None:
            context.call_later(0, lambda: self._hash_on(call, task))
            return
        reply = HashKVResponse(
            hash=found.value, compact_revision=found.compact_revision, hash_revision=found.revision
        )
        call.reply(context.header(context.machine.revision) + reply.SerializeToString())

    def alarm(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, AlarmRequest, data)
        if request is None:
            return
        context = self._context
        if request.action == AlarmRequest.GET:
            wanted = [
                alarm
                for alarm in context.machine.alarms
                if request.alarm in (AlarmType.NONE, alarm.alarm) and request.memberID in (0, alarm.memberID)
            ]
            reply = AlarmResponse(alarms=wanted)
            call.reply(context.header(context.machine.revision) + reply.SerializeToString())
            return
        context.propose(call, Kind.ALARM, data, Reply(context, call))

    def defragment(self, call: UnaryCall, data: bytes) -> None:
        """Freed pages are used again as they are; there is nothing to stop the world for. No header, as etcd."""
        call.reply(DefragmentResponse().SerializeToString())

    def downgrade(self, call: UnaryCall, data: bytes) -> None:
        """There is no earlier version that could read this one's data, so none that a cluster could go back to;
        the way to an etcd, of any version, is a snapshot (docs/backup.md)."""
        request = parse(call, DowngradeRequest, data)
        if request is None or not self._context.has_leader(call):
            return
        if request.action == DowngradeRequest.CANCEL:
            fail(call, errors.NoDowngrade())
        elif request.action not in (DowngradeRequest.VALIDATE, DowngradeRequest.ENABLE):
            call.fail(Status.UNKNOWN, "etcdserver: unknown method")
        elif not VERSION.fullmatch(request.version):
            fail(call, errors.BadDowngradeVersion())
        else:
            fail(call, errors.InvalidDowngradeTarget())


def is_learner(conf: ConfState, member_id: int) -> bool:
    """Whether a member has no vote. One that was just added and has heard nothing yet has none either."""
    return member_id not in voters_of(conf)


__all__ = ["MaintenanceService", "Status", "is_learner"]
