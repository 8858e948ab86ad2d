"""What happened, from the entries the members apply: the log of revisions, leases, compactions, and equality.

Whoever applies an index first makes history: the entry is also applied to a naive reference (tests/checkers/
evaluate.py), whose answers must be the machine's. Everybody else who applies it must have been given the same
bytes and must give the same answers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from kvstore.commands import Kind, decode_commands, decode_header
from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    TxnRequest,
    TxnResponse,
)
from kvstore.pb.internal_pb2 import LeaseCheckpoint, LeaseExpire, MemberRecord
from kvstore.pb.quota_pb2 import QuotaRemoveRequest, QuotaSetRequest
from kvstore.replication.outbox import Outcome
from kvstore.state.machine import StateMachine
from raft import SnapshotMeta
from tests.checkers.equality import Lines, differences, digest, state_of
from tests.checkers.evaluate import Refused, delete_keys, run
from tests.checkers.history import Compacted, History, KeyValue, LeaseEnd, LeaseStart, Revision, Violation
from tests.checkers.timeline import Timeline
from tests.whole_member.world import World

_REQUESTS: dict[int, tuple[type[Any], type[Any]]] = {
    Kind.PUT: (PutRequest, PutResponse),
    Kind.DELETE_RANGE: (DeleteRangeRequest, DeleteRangeResponse),
    Kind.TXN: (TxnRequest, TxnResponse),
    Kind.COMPACT: (CompactionRequest, CompactionResponse),
    Kind.LEASE_GRANT: (LeaseGrantRequest, LeaseGrantResponse),
    Kind.LEASE_REVOKE: (LeaseRevokeRequest, LeaseRevokeResponse),
}


class Reference:
    """The replicated state, naively, and the history it has had."""

    def __init__(self, world: World, history: History) -> None:
        self.world = world
        self.history = history
        self.timeline = Timeline()
        self.compact_revision = 0
        self.leases: dict[int, int] = {}
        self.attached: dict[bytes, int] = {}
        self.marks: dict[int, tuple[int, int]] = {}
        self.quotas: dict[bytes, tuple[int, int]] = {}  # prefix to keys and bytes, 0: no limit

    def apply(self, kind: int, payload: bytes, term: int) -> tuple[int, Any]:
        """(revision, response) of one command. Raises Refused."""
        if kind == Kind.LEASE_EXPIRE:
            request = LeaseExpire.FromString(payload)
            for lease in request.IDs if request.term == term else ():
                if lease in self.leases:
                    self._end(lease, expired=True)
            return self.timeline.revision, None
        if kind == Kind.LEASE_CHECKPOINT and LeaseCheckpoint.FromString(payload).term != term:
            raise Refused("NotLeader")
        if kind in (Kind.QUOTA_SET, Kind.QUOTA_REMOVE):
            self._quota(kind, payload)
        if kind not in _REQUESTS:
            return self.timeline.revision, None
        request = _REQUESTS[kind][0].FromString(payload)
        if kind == Kind.COMPACT:
            self._compact(request.revision)
            response: Any = CompactionResponse()
        elif kind == Kind.LEASE_GRANT:
            response = self._grant(request)
        elif kind == Kind.LEASE_REVOKE:
            if request.ID not in self.leases:
                raise Refused("LeaseNotFound")
            self._end(request.ID, expired=False)
            response = LeaseRevokeResponse()
        else:
            effect = run(request, self.timeline, self.leases.__contains__, self.compact_revision)
            self._fit(effect.events)
            self._write(effect.events, self.world.order())
            response = effect.response
        return self.timeline.revision, response

    def _write(self, events: tuple[KeyValue, ...], order: int) -> int:
        if not events:
            return 0
        number = self.timeline.revision + 1
        revision = Revision(number, events, order, self.world.now)
        self.timeline.append(revision)
        self.history.log.append(revision)
        for kv in events:
            if kv.lease:
                self.attached[kv.key] = kv.lease
            else:
                self.attached.pop(kv.key, None)
        return number

    def _quota(self, kind: int, payload: bytes) -> None:
        """That members agree on what is under each, the equality of their states shows."""
        if kind == Kind.QUOTA_REMOVE:
            if self.quotas.pop(QuotaRemoveRequest.FromString(payload).prefix, None) is None:
                raise Refused("QuotaNotFound")
            return
        request = QuotaSetRequest.FromString(payload)
        keys_max, bytes_max = self.quotas.get(request.prefix, (0, 0))
        keys_max = request.keys_max if request.HasField("keys_max") else keys_max
        bytes_max = request.bytes_max if request.HasField("bytes_max") else bytes_max
        self.quotas[request.prefix] = keys_max, bytes_max

    def _fit(self, events: tuple[KeyValue, ...]) -> None:
        """Adds up everything there is, before and after. Raises Refused."""
        now = {kv.key: kv for kv in self.timeline.span(b"", None)} if self.quotas and events else {}
        after = {**now, **{kv.key: kv for kv in events}}
        for prefix, limits in self.quotas.items():
            for limit, old, new in zip(limits, _used(prefix, now), _used(prefix, after), strict=True):
                if limit and new > limit and new > old:
                    raise Refused("PrefixQuotaExceeded")

    def _compact(self, revision: int) -> None:
        if revision <= self.compact_revision:
            raise Refused("Compacted")
        if revision > self.timeline.revision:
            raise Refused("FutureRevision")
        self.compact_revision = revision
        self.history.compactions.append(Compacted(revision, self.world.order()))

    def _grant(self, request: LeaseGrantRequest) -> LeaseGrantResponse:
        if not request.ID:
            raise Refused("LeaseNotFound")
        if request.ID in self.leases:
            raise Refused("LeaseExists")
        self.leases[request.ID] = request.TTL
        start = LeaseStart(request.ID, request.TTL, self.world.order(), self.world.now)
        self.history.lease_starts.append(start)
        return LeaseGrantResponse(ID=request.ID, TTL=request.TTL)

    def _end(self, lease: int, *, expired: bool) -> None:
        del self.leases[lease]
        keys = sorted(key for key, each in self.attached.items() if each == lease)
        order = self.world.order()
        revision = self._write(delete_keys(keys, self.timeline.revision + 1), order)
        self.history.lease_ends.append(LeaseEnd(lease, revision, order, self.world.now, expired))


class Recorder:
    def __init__(self, world: World, history: History, *, check_every: int) -> None:
        self.world = world
        self.history = history
        self.reference = Reference(world, history)
        self.highest = 0
        self.elections = 0
        self.snapshots_installed = 0
        self.states_compared = 0
        self.entries_compared = 0
        self._check_every = check_every
        self._entries: dict[int, tuple[int, bytes, tuple[object, ...] | None]] = {}
        self._states: dict[int, tuple[int, bytes, Lines]] = {}

    def watched(self, member_id: int, machine: StateMachine) -> WatchedMachine:
        return WatchedMachine(self, member_id, machine)

    def leader_elected(self) -> None:
        self.elections += 1
        self.history.leaders_s.append(self.world.now)

    def installed(self, member_id: int, machine: StateMachine, meta: SnapshotMeta) -> None:
        self.snapshots_installed += 1
        if (machine.applied_index, machine.applied_term) != (meta.index, meta.term):
            raise Violation("snapshot", f"{meta} holds {machine.applied_index}@{machine.applied_term}")
        if meta.index > self.highest:
            raise Violation("snapshot", f"n{member_id} installs {meta}, and {self.highest} is applied")
        self.compare_state(member_id, machine)

    def applied(
        self,
        member_id: int,
        machine: StateMachine,
        index: int,
        term: int,
        data: bytes,
        outcomes: list[Outcome] | None,
    ) -> None:
        """Called after a machine applied an entry it had not applied before."""
        told = None if outcomes is None else tuple(_comparable(outcome) for outcome in outcomes)
        known = self._entries.get(index)
        if known is None:
            if index != self.highest + 1:
                raise Violation(
                    "apply", f"n{member_id} applies {index} and {self.highest} is the last before"
                )
            self.highest = index
            self._entries[index] = (term, data, told)
            self._replay(index, term, data, outcomes)
        else:
            self.entries_compared += 1
            if known[:2] != (term, data):
                raise Violation("apply", f"n{member_id} applies another entry {index}@{term} than {known[0]}")
            if known[2] != told:
                raise Violation("apply", f"n{member_id} answers {index}@{term} with {told}, not {known[2]}")
        if index % self._check_every == 0:
            self.compare_state(member_id, machine)

    def applied_config(
        self, member_id: int, machine: StateMachine, index: int, term: int, conf: bytes
    ) -> None:
        """A configuration counts as an entry that gives no answer."""
        known = self._entries.get(index)
        if known is None:
            if index != self.highest + 1:
                raise Violation(
                    "apply", f"n{member_id} applies {index} and {self.highest} is the last before"
                )
            self.highest = index
            self._entries[index] = (term, conf, None)
        elif known != (term, conf, None):
            raise Violation("apply", f"n{member_id} applies another configuration at {index}@{term}")
        self.compare_state(member_id, machine)

    def compare_state(self, member_id: int, machine: StateMachine) -> None:
        """Against the first member that was looked at at this index."""
        index, lines = machine.applied_index, state_of(machine)
        value = digest(lines)
        first = self._states.setdefault(index, (member_id, value, lines))
        if first[1] != value:
            told = "; ".join(differences(lines, first[2]))
            raise Violation("equality", f"n{member_id} and n{first[0]} differ at {index}: {told}")
        self.states_compared += first[0] != member_id

    def _replay(self, index: int, term: int, data: bytes, outcomes: list[Outcome] | None) -> None:
        reference = self.reference
        if not data:
            return
        header = decode_header(data)
        mark = (header.incarnation, header.sequence)
        again = mark <= reference.marks.get(header.origin, (0, 0))
        if again != (outcomes is None):
            raise Violation("apply", f"entry {index}@{term} {header}: applied before is {again}")
        if outcomes is None:
            return
        reference.marks[header.origin] = mark
        for (kind, payload), outcome in zip(decode_commands(data), outcomes, strict=True):
            self._compare(index, kind, payload, term, outcome)

    def _compare(self, index: int, kind: int, payload: bytes, term: int, outcome: Outcome) -> None:
        try:
            revision, response = self.reference.apply(kind, payload, term)
        except Refused as refusal:
            if type(outcome).__name__ != refusal.args[0]:
                raise Violation(
                    "semantics", f"{Kind(kind).name} in entry {index} gave {outcome!r}, not {refusal.args[0]}"
                ) from None
            return
        if not isinstance(outcome, tuple):
            raise Violation("semantics", f"{Kind(kind).name} in entry {index} failed with {outcome!r}")
        actual = None if response is None else type(response).FromString(outcome[1])
        if (outcome[0], actual) != (revision, response):
            raise Violation(
                "semantics",
                f"{Kind(kind).name} in entry {index} gave {outcome[0]} {actual}, not {revision} {response}",
            )


class WatchedMachine:
    """kvstore.replication.driver.Machine: the real one, with the recorder looking on."""

    def __init__(self, recorder: Recorder, member_id: int, machine: StateMachine) -> None:
        self._recorder = recorder
        self._member_id = member_id
        self._machine = machine

    @property
    def applied_index(self) -> int:
        return self._machine.applied_index

    @property
    def durable_index(self) -> int:
        return self._machine.durable_index

    @property
    def backlog_bytes(self) -> int:
        return self._machine.backlog_bytes

    def apply(self, index: int, term: int, data: bytes, own: bool | None = None) -> list[Outcome] | None:
        machine = self._machine
        fresh = index > machine.applied_index
        outcomes = machine.apply(index, term, data, own)
        if fresh:
            self._recorder.applied(self._member_id, machine, index, term, data, outcomes)
        return outcomes

    def apply_config(
        self, index: int, term: int, conf: bytes, *, members: Collection[int], added: Sequence[MemberRecord]
    ) -> None:
        machine = self._machine
        fresh = index > machine.applied_index
        machine.apply_config(index, term, conf, members=members, added=added)
        if fresh:
            self._recorder.applied_config(self._member_id, machine, index, term, conf)

    def last_batch(self, origin: int) -> tuple[int, int]:
        return self._machine.last_batch(origin)

    def turn(self) -> bool:
        return self._machine.turn()


def _used(prefix: bytes, keys: dict[bytes, KeyValue]) -> tuple[int, int]:
    """How many of the keys that are there lie under a prefix, and their bytes."""
    sizes = [len(key) + len(kv.value) for key, kv in keys.items() if kv.version and key.startswith(prefix)]
    return len(sizes), sum(sizes)


def _comparable(outcome: Outcome) -> object:
    return outcome if isinstance(outcome, tuple) else (type(outcome).__name__, outcome.args)
