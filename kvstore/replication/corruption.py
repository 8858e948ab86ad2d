"""Do all members hold the same? The leader asks now and then, and a member that starts may ask first.

Each computes the checksum of the same revisions (kvstore/state/kv_hash.py), in slices. Members that are behind, or
have compacted elsewhere, are left out of that round. Who differs from the majority gets the CORRUPT alarm, under
which the whole cluster refuses writes until somebody has looked; where there is no majority the alarm names nobody
(member 0), as in etcd.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kvstore import errors, log
from kvstore.commands import Kind, own_command
from kvstore.pb.etcdserverpb_pb2 import AlarmRequest, AlarmType
from kvstore.replication.driver import Driver
from kvstore.replication.outbox import Outcome
from kvstore.state.kv_hash import HashTask, KvHash
from kvstore.state.machine import StateMachine

HASH_KV = 42  # request between members: revision u64 -> checksum u32, compaction point u64, or nothing
ANSWER_S = 30.0
NOBODY = 0
_QUESTION, _ANSWER = struct.Struct(">Q"), struct.Struct(">IQ")

CallSoon = Callable[[Callable[[], None]], object]
Hashed = Callable[[KvHash | None], None]


class Peers(Protocol):
    @property
    def peer_ids(self) -> Sequence[int]: ...

    def request(
        self,
        to_id: int,
        kind: int,
        payload: bytes,
        timeout_s: float,
        done: Callable[[bytes | None, Exception | None], None],
    ) -> None: ...


def hash_in_slices(machine: StateMachine, revision: int, call_soon: CallSoon, done: Hashed) -> None:
    """done(result) later; None where that revision is not here: not yet, or compacted."""
    try:
        task = HashTask(machine.keyspace, revision)
    except errors.StoreError:
        call_soon(lambda: done(None))
        return

    def step() -> None:
        try:
            result = task.step()
        except errors.StoreError:
            done(None)
            return
        if result is None:
            call_soon(step)
        else:
            done(result)

    call_soon(step)


def differing(hashes: Mapping[int, KvHash]) -> list[int]:
    """Who holds something else than the majority of those that can be compared; [NOBODY] where there is no
    majority. Those with another compaction point than most cannot be."""
    if not hashes:
        return []
    points = Counter(each.compact_revision for each in hashes.values())
    point = max(points, key=lambda each: (points[each], each))
    comparable = {member: each.value for member, each in hashes.items() if each.compact_revision == point}
    (value, votes), *others = Counter(comparable.values()).most_common()
    if not others:
        return []
    if votes <= len(comparable) // 2:
        return [NOBODY]
    return sorted(member for member, each in comparable.items() if each != value)


class CorruptionCheck:
    def __init__(
        self, driver: Driver, machine: StateMachine, peers: Peers, *, interval_s: float, call_soon: CallSoon
    ) -> None:
        """interval_s: how often the leader asks; 0: never."""
        self._driver = driver
        self._machine = machine
        self._peers = peers
        self._interval_s = interval_s
        self._call_soon = call_soon
        self._due: float | None = None
        self._asking = False

    def tick(self, now: float) -> None:
        if not self._interval_s or not self._driver.is_leader:
            self._due = None
        elif self._due is None:
            self._due = now + self._interval_s
        elif now >= self._due and not self._asking:
            self._due = now + self._interval_s
            self._asking = True
            gather(self._machine, self._peers, self._driver.member_id, self._call_soon, self._judge)

    def serve(self, payload: bytes, reply: Callable[[bytes | None], None]) -> None:
        """Another member's question."""
        if len(payload) != _QUESTION.size:
            reply(None)
            return

        def done(result: KvHash | None) -> None:
            reply(b"" if result is None else _ANSWER.pack(result.value, result.compact_revision))

        hash_in_slices(self._machine, _QUESTION.unpack(payload)[0], self._call_soon, done)

    def _judge(self, hashes: dict[int, KvHash]) -> None:
        self._asking = False
        raised = {one.memberID for one in self._machine.alarms if one.alarm == AlarmType.CORRUPT}
        for member in differing(hashes):
            told = {f"{each:x}": f"{result.value:08x}" for each, result in hashes.items()}
            log.error("found corruption", members=told, corrupt=f"{member:x}")
            if member not in raised and self._driver.is_leader:
                request = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=member, alarm=AlarmType.CORRUPT)
                self._driver.propose(*own_command(Kind.ALARM, request.SerializeToString()), _nothing)


def gather(
    machine: StateMachine,
    peers: Peers,
    own_id: int,
    call_soon: CallSoon,
    done: Callable[[dict[int, KvHash]], None],
) -> None:
    """done(by member) once everybody has answered, or could not: this member and its peers, at its present
    revision. Empty where this member itself has none to show."""
    revision = machine.revision
    found: dict[int, KvHash] = {}
    waiting = set(peers.peer_ids)

    def own(result: KvHash | None) -> None:
        if result is None:
            done({})
            return
        found[own_id] = result
        if not waiting:
            done(found)
        for peer in sorted(waiting):
            ask(peer)

    def ask(peer: int) -> None:
        def answered(payload: bytes | None, problem: Exception | None) -> None:
            waiting.discard(peer)
            if payload and len(payload) == _ANSWER.size:
                value, compact_revision = _ANSWER.unpack(payload)
                found[peer] = KvHash(value, compact_revision, revision)
            if not waiting:
                done(found)

        peers.request(peer, HASH_KV, _QUESTION.pack(revision), ANSWER_S, answered)

    hash_in_slices(machine, revision, call_soon, own)


def _nothing(_: Outcome) -> None:
    """An alarm that could not be raised is raised by a later round."""
