"""Commands to effects: what each kind of command does to the state, and what its reply says.

Deterministic: depends on the command, the entry's term and the state, and on nothing else. A command either
raises a StoreError before it has changed anything, or has its whole effect. Any other exception is a fault of
this program: it stops the member rather than let it differ from the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kvstore import errors
from kvstore.commands import MEMBERS_OWN, Kind, UnknownCommand
from kvstore.pb.etcdserverpb_pb2 import (
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    Member,
    PutRequest,
    TxnRequest,
)
from kvstore.pb.internal_pb2 import (
    Announce,
    AnnounceEnd,
    AuthorizedCommand,
    LeaseCheckpoint,
    LeaseExpire,
    LeaseRecord,
    MemberRecord,
)
from kvstore.pb.readiness_pb2 import AnnounceResponse
from kvstore.state import checks, ranges, txn
from kvstore.state.auth import AuthStore
from kvstore.state.auth_commands import AuthCommands
from kvstore.state.authorize import authorize_command
from kvstore.state.compaction import Compaction
from kvstore.state.lessor import Lease, Lessor
from kvstore.state.mvcc import Keyspace
from kvstore.state.overlay import Latest, Overlay
from kvstore.state.plain_put import plain_put
from kvstore.state.quota_commands import QuotaCommands
from kvstore.state.quotas import Quotas
from kvstore.state.records import KV_AT
from kvstore.state.space import Space
from kvstore.state.storage_process import ALARMS, LEASE_KEYS, LEASES, MEMBERS
from kvstore.state.tables import ALARM, ID, attachment, lease_place
from kvstore.state.varint import field, varint

Outcome = tuple[int, bytes] | errors.StoreError
CHANGING = (
    *(Kind.PUT, Kind.DELETE_RANGE, Kind.TXN, Kind.COMPACT),
    *(Kind.LEASE_GRANT, Kind.LEASE_REVOKE, Kind.LEASE_EXPIRE, Kind.ANNOUNCE, Kind.ANNOUNCE_END),
    Kind.QUOTA_SET,
)
"""What is refused while members are known to differ: it would make them differ more."""
_PREV_KV, _DELETED, _PREV_KVS = b"\x12", b"\x10", b"\x1a"


class Applier:
    """The commands' effects on one state. Owns none of its parts."""

    def __init__(
        self,
        keyspace: Keyspace,
        overlay: Overlay,
        lessor: Lessor,
        members: dict[int, MemberRecord],
        alarms: list[AlarmMember],
        compaction: Compaction,
        auth: AuthStore,
        quotas: Quotas,
        space: Space,
    ) -> None:
        self.keyspace = keyspace
        self._meter = keyspace.meter
        self._overlay = overlay
        self._lessor = lessor
        self._members = members
        self._alarms = alarms
        self._compaction = compaction
        self._auth = auth
        self._auth_commands = AuthCommands(auth, overlay)
        self._term = 0
        self._index = 0
        self._effects: dict[int, Callable[[bytes], bytes]] = {
            Kind.PUT: self._put,
            Kind.DELETE_RANGE: self._delete_range,
            Kind.TXN: self._txn,
            Kind.COMPACT: self._compact,
            Kind.LEASE_GRANT: self._lease_grant,
            Kind.LEASE_REVOKE: self._lease_revoke,
            Kind.LEASE_EXPIRE: self._lease_expire,
            Kind.LEASE_CHECKPOINT: self._lease_checkpoint,
            Kind.MEMBER_PUBLISH: self._member_publish,
            Kind.ALARM: self._alarm,
            Kind.MEMBER_UPDATE: self._member_update,
            Kind.ANNOUNCE: self._announce,
            Kind.ANNOUNCE_END: self._announce_end,
            Kind.AUTHORIZED: self._authorized,
            **self._auth_commands.effects(),
            **QuotaCommands(quotas, keyspace, overlay).effects(),
        }
        self._space = space
        self._unalarmed = dict(self._effects)
        self._alarms_changed()

    def begin(self, index: int) -> None:
        """The commands that follow are of the entry at this index."""
        self._index = self._auth_commands.index = index

    def apply(self, commands: Iterable[tuple[int, bytes]], term: int) -> list[Outcome]:
        """The commands of an entry of `term`: of each the revision its reply names and the reply without its
        header, or why it was refused. One loop for all: a call a command costs as much as a third of a put.

        Raises UnknownCommand, before anything else is asked of such a command: whoever knows it may be right to
        refuse it, and whoever does not cannot tell."""
        self._term = term
        auth, effects, keyspace = self._auth, self._effects, self.keyspace
        outcomes: list[Outcome] = []
        for kind, payload in commands:
            effect = effects.get(kind)
            if effect is None:
                raise UnknownCommand(kind, self._index)
            try:
                if auth.enabled and kind not in MEMBERS_OWN:
                    raise errors.NoUserName  # taken by a member that did not know yet that a name is asked for
                body = effect(payload)
            except errors.StoreError as refusal:
                assert not keyspace.changing, f"{Kind(kind).name} failed after it had written: {refusal!r}"
                self._meter.refused(kind)
                outcomes.append(refusal)
            else:
                outcomes.append((keyspace.end(), body))
        return outcomes

    def _authorized(self, payload: bytes) -> bytes:
        """A command in a user's name. With authentication turned off meanwhile nobody asks for it."""
        command = AuthorizedCommand.FromString(payload)
        self._meter.authorized.append(command.kind)
        effect = self._effects.get(command.kind)
        if effect is None:
            raise UnknownCommand(command.kind, self._index)
        if self._auth.enabled:
            authorize_command(self._auth, self._lessor, command)
        return effect(command.payload)

    # Keys

    def _put(self, payload: bytes) -> bytes:
        plain = plain_put(payload)
        if plain is not None:
            key, value = plain
            before = self.keyspace.current(key)
            quotas = self.keyspace.quotas
            if quotas is not None:
                quotas.admit_put(key, len(value), before)
            self._meter.puts += 1
            self._meter.put_bytes += len(key) + len(value)
            self.keyspace.put(key, value, 0, before)
            if before is not None and before.lease:
                self._move(key, before.lease, 0)
            return b""
        request = PutRequest.FromString(payload)
        lease = request.lease
        if lease and not self._lessor.exists(lease):
            raise errors.LeaseNotFound
        if request.ignore_value or request.ignore_lease:
            before = self.keyspace.current(request.key)
            if before is None or not before.version:
                raise errors.KeyNotFound
        quotas = self.keyspace.quotas
        if quotas is not None and not request.ignore_value:
            quotas.admit_put(request.key, len(request.value), self.keyspace.current(request.key))
        return self.write_put(request)

    def write_put(self, request: PutRequest) -> bytes:
        """The put itself; that its lease and, for ignore_*, its key exist has been checked."""
        key, lease, keyspace = request.key, request.lease, self.keyspace
        before = keyspace.current(key)
        held = before.lease if before is not None else 0
        if request.ignore_lease:
            lease = held
        if request.ignore_value:
            value = ranges.value_of(before)
        else:
            value = request.value
        meter = self._meter
        meter.puts += 1
        meter.put_bytes += len(key) + len(value)
        keyspace.put(key, value, lease, before)
        if lease != held:
            self._move(key, held, lease)
        if request.prev_kv and before is not None and before.version:
            return field(_PREV_KV, before.record[KV_AT:])
        return b""

    def lease_exists(self, lease_id: int) -> bool:
        return self._lessor.exists(lease_id)

    def _delete_range(self, payload: bytes) -> bytes:
        return self.write_delete(DeleteRangeRequest.FromString(payload))

    def write_delete(self, request: DeleteRangeRequest) -> bytes:
        keyspace = self.keyspace
        self._meter.deletes += 1
        if not request.range_end:
            before = keyspace.current(request.key)
            doomed = [(request.key, before)] if before is not None and before.version else []
        else:
            start, end = ranges.interval(request.key, request.range_end)
            doomed = list(keyspace.latest_in(start, end))
        parts: list[bytes] = []
        for key, before in doomed:
            self._delete(key, before)
            if request.prev_kv:
                parts.append(field(_PREV_KVS, before.record[KV_AT:]))
        if not doomed:
            return b""
        return b"".join((_DELETED, varint(len(doomed)), *parts))

    def _delete(self, key: bytes, before: Latest) -> None:
        self.keyspace.delete(key, before)
        if before.lease:
            self._move(key, before.lease, 0)

    def _move(self, key: bytes, held: int, lease: int) -> None:
        """The key hangs on another lease, or on none (0), from now on."""
        operations = self._overlay.filling.operations
        if held:
            self._lessor.detach(held, key)
            operations[LEASE_KEYS, attachment(held, key)[0]] = None
        if lease:
            self._lessor.attach(lease, key)
            place, content = attachment(lease, key)
            operations[LEASE_KEYS, place] = content

    def _txn(self, payload: bytes) -> bytes:
        self._meter.txns += 1
        return txn.run(self, TxnRequest.FromString(payload))

    def _compact(self, payload: bytes) -> bytes:
        """Moves the compaction point; that it is an entry like any other is why every member's reads and
        transactions see it at the same place in history (etcd 18667)."""
        revision, keyspace = CompactionRequest.FromString(payload).revision, self.keyspace
        if revision <= keyspace.compact_revision:
            raise errors.Compacted(keyspace.compact_revision)
        if revision > keyspace.revision:
            raise errors.FutureRevision
        keyspace.compact_revision = revision
        self._compaction.aim(revision)
        return b""

    # Leases

    def _lease_grant(self, payload: bytes) -> bytes:
        request = LeaseGrantRequest.FromString(payload)
        lease = self._lessor.grant(request.ID, request.TTL * 1000)
        lease.grant_index = self._index
        self._meter.leases_granted += 1
        self._meter.lease_ttl_s.observe(request.TTL)
        self._store_lease(lease)
        return LeaseGrantResponse(ID=lease.id, TTL=request.TTL).SerializeToString()

    def _store_lease(self, lease: Lease) -> None:
        record = LeaseRecord(
            ID=lease.id,
            ttl_ms=lease.ttl_ms,
            session=lease.session,
            grace_ms=lease.grace_ms,
            remaining_ms=lease.remaining_ms,
            grant_index=lease.grant_index,
        )
        self._overlay.filling.operations[LEASES, lease_place(lease.id)] = record.SerializeToString()

    def _lease_revoke(self, payload: bytes) -> bytes:
        self._revoke(LeaseRevokeRequest.FromString(payload).ID)
        return b""

    def _lease_expire(self, payload: bytes) -> bytes:
        """Each lease's keys go in a revision of their own, as etcd's one entry a lease makes them. Nothing
        happens when the leader that proposed it had lost its term: its successor gave every lease more time."""
        request = LeaseExpire.FromString(payload)
        if request.term == self._term:
            sessions = request.sessions or [0] * len(request.IDs)
            grants = request.grant_indexes or [0] * len(request.IDs)
            for lease_id, session, grant in zip(request.IDs, sessions, grants, strict=True):
                lease = self._lessor.get(lease_id)
                if lease is not None and lease.session == session and grant in (0, lease.grant_index):
                    self._revoke(lease_id)
                    self.keyspace.end()
        return b""

    def _lease_checkpoint(self, payload: bytes) -> bytes:
        """Of a leader whose term is over nothing counts: what it had promised since, nobody knows."""
        request = LeaseCheckpoint.FromString(payload)
        if request.term != self._term:
            raise errors.NotLeader
        told = zip(request.IDs, request.remaining_ms, request.grant_indexes, strict=True)
        for lease_id, remaining_ms, grant_index in told:
            lease = self._lessor.get(lease_id)
            if lease is not None and lease.grant_index == grant_index and not lease.session:
                lease.remaining_ms = remaining_ms
                self._store_lease(lease)
        return b""

    def _revoke(self, lease_id: int) -> None:
        keys = self._lessor.keys(lease_id)
        self._lessor.revoke(lease_id)
        self._meter.leases_revoked += 1
        operations = self._overlay.filling.operations
        operations[LEASES, lease_place(lease_id)] = None
        for key in keys:
            before = self.keyspace.current(key)
            assert before is not None and before.version, (
                f"{key!r} hangs on lease {lease_id} and is not there"
            )
            self.keyspace.delete(key, before)
            operations[LEASE_KEYS, attachment(lease_id, key)[0]] = None

    # Instances

    def _announce(self, payload: bytes) -> bytes:
        """Lease and key in one revision. Announced again as it is, under its lease, nothing is written: who
        comes back within the grace is not news to any router."""
        request, lessor = Announce.FromString(payload), self._lessor
        before = self.keyspace.current(request.key)
        held = before.lease if before is not None else 0
        holder = lessor.get(held) if held != request.lease_id else None
        if holder is not None and holder.session and not holder.grace_ms and not request.take_over:
            raise errors.InstanceTaken
        lease = lessor.get(request.lease_id)
        if lease is not None and (not lease.session or not self._holds(lease, request)):
            raise errors.LeaseExists  # somebody else's, or another instance's
        if self.keyspace.quotas is not None:
            self.keyspace.quotas.admit_put(request.key, len(request.value), before)
        if lease is None:
            lease = lessor.grant(request.lease_id, request.ttl_ms)
            self._meter.leases_granted += 1
            self._meter.lease_ttl_s.observe(request.ttl_ms / 1000)
        lease.ttl_ms = request.ttl_ms
        self._store_lease(lessor.hold(lease.id, request.session))
        is_there = before is not None and before.version and held == lease.id
        if not is_there or ranges.value_of(before) != request.value:
            self.write_put(PutRequest(key=request.key, value=request.value, lease=lease.id))
        if holder is not None and holder.session:
            self._revoke(holder.id)  # with what hung on it beside this key
        reply = AnnounceResponse(lease_id=lease.id, ttl_ms=lease.ttl_ms)
        return reply.SerializeToString()

    def _holds(self, lease: Lease, request: Announce) -> bool:
        """Other keys may hang on an instance's lease, and go with it; another instance may not."""
        return not lease.keys or request.key in lease.keys or lease.session == request.session

    def _announce_end(self, payload: bytes) -> bytes:
        """Obeyed only where the stream that ended still holds the lease."""
        request = AnnounceEnd.FromString(payload)
        lease = self._lessor.get(request.lease_id)
        if lease is None or lease.session != request.session:
            return b""
        if request.grace_ms:
            self._store_lease(self._lessor.let_go(lease.id, request.grace_ms))
        else:
            self._revoke(lease.id)
        return b""

    # Alarms

    def _alarms_changed(self) -> None:
        """Another table of effects while an alarm is up, so that no command asks for one when none is. The alarms
        are part of the state, so every member refuses the same commands."""
        raised = {alarm.alarm for alarm in self._alarms}
        self._space.alarmed = AlarmType.NOSPACE in raised
        self._effects.update(self._unalarmed)
        if AlarmType.NOSPACE in raised:
            self._effects |= {
                Kind.PUT: _no_space,
                Kind.LEASE_GRANT: _no_space,
                Kind.TXN: self._txn_without_space,
                Kind.ANNOUNCE: self._announce_without_space,
            }
        if AlarmType.CORRUPT in raised:
            self._effects |= dict.fromkeys(CHANGING, _corrupt)

    def _txn_without_space(self, payload: bytes) -> bytes:
        request = TxnRequest.FromString(payload)
        if checks.put_cost(request):
            raise errors.NoSpace
        self._meter.txns += 1
        return txn.run(self, request)

    def _announce_without_space(self, payload: bytes) -> bytes:
        """Who is there already may come back."""
        if self._lessor.get(Announce.FromString(payload).lease_id) is None:
            raise errors.NoSpace
        return self._announce(payload)

    # Members

    def _member_publish(self, payload: bytes) -> bytes:
        """A member says its name, where clients reach it and which data directory it lives on. Where other
        members reach it is the cluster's to say; one that was removed meanwhile is not heard."""
        told = MemberRecord.FromString(payload)
        record = self._members.get(told.member.ID)
        if record is not None:
            record.member.name = told.member.name
            record.member.clientURLs[:] = told.member.clientURLs
            record.data_id = told.data_id
            record.level = told.level
            self._store_member(record)
        return b""

    def _member_update(self, payload: bytes) -> bytes:
        told = Member.FromString(payload)
        record = self._members.get(told.ID)
        if record is None:
            raise errors.MemberNotFound
        others = {
            url for each in self._members.values() if each is not record for url in each.member.peerURLs
        }
        if others & set(told.peerURLs):
            raise errors.PeerUrlExists
        record.member.peerURLs[:] = told.peerURLs
        self._store_member(record)
        return b""

    def _store_member(self, record: MemberRecord) -> None:
        operations = self._overlay.filling.operations
        operations[MEMBERS, ID.pack(record.member.ID)] = record.SerializeToString()

    def _alarm(self, payload: bytes) -> bytes:
        """An activated alarm stays until it is deactivated. Member 0 and type NONE stand for all of them,
        except in an activation, where NONE does nothing."""
        request = AlarmRequest.FromString(payload)
        met = [
            each
            for each in self._alarms
            if request.memberID in (0, each.memberID) and request.alarm in (AlarmType.NONE, each.alarm)
        ]
        operations = self._overlay.filling.operations
        if request.action == AlarmRequest.ACTIVATE:
            if request.alarm == AlarmType.NONE:
                return b""
            alarm = AlarmMember(memberID=request.memberID, alarm=request.alarm)
            if alarm not in self._alarms:
                self._alarms.append(alarm)
                self._alarms.sort(key=lambda each: (each.alarm, each.memberID))
                operations[ALARMS, ALARM.pack(alarm.alarm, alarm.memberID)] = b""
            met = [alarm]
            self._alarms_changed()
        elif request.action == AlarmRequest.DEACTIVATE:
            for each in met:
                self._alarms.remove(each)
                operations[ALARMS, ALARM.pack(each.alarm, each.memberID)] = None
            self._alarms_changed()
        return AlarmResponse(alarms=met).SerializeToString()


def _no_space(payload: bytes) -> bytes:
    raise errors.NoSpace


def _corrupt(payload: bytes) -> bytes:
    raise errors.Corrupt
