"""A state machine driven entry by entry, the log it was driven with, and a naive model to hold it against."""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.message import Message

from kvstore.commands import Kind, encode_batch
from kvstore.errors import StoreError
from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchResponse,
)
from kvstore.pb.mvccpb_pb2 import Event, KeyValue
from kvstore.state.apply import Outcome
from kvstore.state.machine import StateMachine
from kvstore.state.watch_hub import Watcher

MAP_BYTES = 1 << 30


def open_machine(directory: str, backend: str = "sync") -> StateMachine:
    return StateMachine.open(directory, backend=backend, map_bytes=MAP_BYTES, sync=False)


class Replica:
    """One machine and the log it applied. Reopening replays the log, as a member does."""

    def __init__(self, directory: str, backend: str = "sync", term: int = 1) -> None:
        self.directory = directory
        self.backend = backend
        self.term = term
        self.log: list[bytes] = []
        self.machine = open_machine(directory, backend)

    def apply(self, *commands: tuple[int, Message]) -> list[Outcome]:
        """One entry of these commands."""
        encoded = [(kind, request.SerializeToString()) for kind, request in commands]
        sequence = len(self.log) + 1
        self.log.append(encode_batch(encoded, origin=1, incarnation=1, sequence=sequence))
        outcomes = self.machine.apply(sequence, self.term, self.log[-1])
        assert outcomes is not None, "a new entry is never skipped"
        return outcomes

    def do(self, kind: int, request: Message) -> tuple[int, bytes]:
        """One command that succeeds. Raises the StoreError it failed with."""
        (outcome,) = self.apply((kind, request))
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    def put(self, key: bytes, value: bytes = b"", lease: int = 0) -> int:
        return self.do(Kind.PUT, PutRequest(key=key, value=value, lease=lease))[0]

    def delete(self, key: bytes, range_end: bytes = b"") -> int:
        return self.do(Kind.DELETE_RANGE, DeleteRangeRequest(key=key, range_end=range_end))[0]

    def compact(self, revision: int) -> None:
        self.do(Kind.COMPACT, CompactionRequest(revision=revision))

    def grant(self, lease_id: int, ttl_s: int = 60) -> None:
        self.do(Kind.LEASE_GRANT, LeaseGrantRequest(ID=lease_id, TTL=ttl_s))

    def revoke(self, lease_id: int) -> int:
        return self.do(Kind.LEASE_REVOKE, LeaseRevokeRequest(ID=lease_id))[0]

    def txn(self, request: TxnRequest) -> TxnResponse:
        revision, body = self.do(Kind.TXN, request)
        response = TxnResponse.FromString(body)
        response.header.revision = revision
        return response

    def range(self, key: bytes, range_end: bytes = b"", **options: int) -> RangeResponse:
        request = RangeRequest(key=key, range_end=range_end, **options)  # type: ignore[arg-type]
        return RangeResponse.FromString(self.machine.range(request)[1])

    def values(self, revision: int = 0) -> dict[bytes, bytes]:
        return {kv.key: kv.value for kv in self.range(b"\0", b"\0", revision=revision).kvs}

    def turns(self) -> None:
        """Until there is nothing left to do."""
        for _ in range(10_000):
            if not self.machine.turn():
                return
        raise AssertionError("turn() never had enough")

    def reopen(self, *, crash: bool) -> None:
        if crash:
            self.machine.abandon()
        else:
            self.machine.flush_and_close()
        self.machine = open_machine(self.directory, self.backend)
        self.replay()

    def replay(self) -> None:
        for number, entry in enumerate(self.log, 1):
            self.machine.apply(number, self.term, entry)


@dataclass
class Model:
    """What the key space must hold: a whole copy of it at every revision."""

    revision: int = 1
    compacted: int = 0
    states: dict[int, dict[bytes, KeyValue]] = field(default_factory=lambda: {1: {}})
    events: list[tuple[int, Event]] = field(default_factory=list)

    @property
    def now(self) -> dict[bytes, KeyValue]:
        return self.states[self.revision]

    def write(self, puts: dict[bytes, tuple[bytes, int]], deletes: set[bytes]) -> None:
        """One command's changes: key -> (value, lease), and keys to delete where they are there."""
        doomed = sorted(key for key in deletes if key in self.now)
        if not puts and not doomed:
            return
        before = self.now
        after = dict(before)
        revision = self.revision + 1
        for key in doomed:
            del after[key]
            event = Event(type=Event.DELETE, kv=KeyValue(key=key, mod_revision=revision), prev_kv=before[key])
            self.events.append((revision, event))
        for key, (value, lease) in puts.items():
            old = before.get(key)
            kv = KeyValue(key=key, mod_revision=revision, value=value, lease=lease)
            kv.create_revision = old.create_revision if old else revision
            kv.version = old.version + 1 if old else 1
            after[key] = kv
            self.events.append((revision, Event(kv=kv, prev_kv=old)))
        self.revision = revision
        self.states[revision] = after

    def within(self, key: bytes, range_end: bytes, revision: int = 0) -> list[KeyValue]:
        state = self.states[revision or self.revision]
        return [state[each] for each in sorted(state) if matches(each, key, range_end)]


def matches(candidate: bytes, key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return candidate == key
    return candidate >= key and (range_end == b"\0" or candidate < range_end)


class RecordingSink:
    """Keeps what it is handed. Without room it refuses."""

    def __init__(self, *, ready: bool = True) -> None:
        self.is_ready = ready
        self.batches: list[tuple[int, list[Event]]] = []
        self.compacted_at: int | None = None

    def ready(self, watcher: Watcher) -> bool:
        return self.is_ready

    def events(self, watcher: Watcher, revision: int, encoded: bytes, count: int) -> None:
        assert self.is_ready, "handed over without room"
        assert self.compacted_at is None, "events after the end"
        events = list(WatchResponse.FromString(encoded).events)
        assert len(events) == count
        assert events[-1].kv.mod_revision == revision
        self.batches.append((revision, events))

    def compacted(self, watcher: Watcher, compact_revision: int) -> None:
        assert self.compacted_at is None, "told twice"
        self.compacted_at = compact_revision

    @property
    def received(self) -> list[Event]:
        return [event for _, events in self.batches for event in events]

    @property
    def keys(self) -> list[tuple[int, bytes]]:
        return [(event.kv.mod_revision, event.kv.key) for event in self.received]
