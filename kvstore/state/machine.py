"""The replicated state machine's face: entries in, outcomes and reads out, LMDB behind.

    apply(entry) ─► Applier ─► Keyspace/Lessor/… ─► overlay (generation being filled)
    turn()       ─► watch hub hands over · compaction takes a slice · a full or old generation goes to LMDB
    committed    ─► read transaction renewed, generation dropped from the overlay, durable_index moves

One thread, the event loop's, but for snapshot_to(). Invariants (DESIGN.md):
  1. What LMDB holds is the state after some whole entry, with that entry's index, in one transaction.
  2. durable_index <= applied_index; the write-ahead log keeps every entry above durable_index.
  3. A batch has its effect at most once: (incarnation, sequence) per origin only grows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence

from kvstore.commands import decode_commands, decode_header
from kvstore.pb.etcdserverpb_pb2 import RangeRequest, TxnRequest
from kvstore.pb.internal_pb2 import MemberRecord
from kvstore.state import ranges, snapshot, tables, txn
from kvstore.state.apply import Applier, Outcome
from kvstore.state.auth import AuthStore
from kvstore.state.backend import DATABASE, CallSoon, Failed, OpenBackend, open_backend
from kvstore.state.compaction import SLICE_EVERY_S, Compaction, Pace
from kvstore.state.kv_hash import HashTask
from kvstore.state.meters import StateMeter
from kvstore.state.mvcc import Keyspace
from kvstore.state.overlay import Overlay
from kvstore.state.quotas import Quotas
from kvstore.state.space import Space
from kvstore.state.storage_process import MEMBERS, META, QUOTAS, encode_frame
from kvstore.state.watch_hub import WatchHub

MAP_BYTES = 64 << 30
CEILING_SHARE = 0.9
"""Of the map, at which writes are refused also without a quota: a map that is full would stop the member."""
SUBMIT_RECORDS = 5_000
SUBMIT_BYTES = 16 << 20
SUBMIT_AFTER_S = 0.1
SEAL_RECORDS = 20_000
SEAL_BYTES = 32 << 20
"""A generation above either is closed; a larger one would make its transaction and its dropping long."""


CallLater = Callable[[float, Callable[[], None]], object]


def stored_conf(directory: str) -> bytes:
    """The configuration in a directory's database, without opening it for writing; b"" where there is none."""
    path = os.path.join(directory, DATABASE)
    return (snapshot.read_meta(path, tables.CONF_KEY) or b"") if os.path.exists(path) else b""


def _nothing() -> None:
    """The default wake: whoever drives the machine calls turn() often enough anyway."""


def _never_soon(call: Callable[[], None]) -> None:
    """The default call_soon_threadsafe: turn() asks the storage itself. Must not run the call here, on the
    storage thread."""


def _raise(problem: Exception) -> None:
    raise problem


class StateMachine:
    def __init__(
        self,
        directory: str,
        *,
        backend: str = "lmdb",
        map_bytes: int = MAP_BYTES,
        quota_bytes: int = 0,
        sync: bool = True,
        inherit_fds: Sequence[int] = (),
        on_failure: Failed = _raise,
        call_soon_threadsafe: CallSoon = _never_soon,
        now: Callable[[], float] | None = None,
        wake: Callable[[], None] = _nothing,
        call_later: CallLater | None = None,
        opener: OpenBackend = open_backend,
    ) -> None:
        """See open()."""
        if backend not in ("lmdb", "sync"):
            raise ValueError(f"backend is 'lmdb' or 'sync', not {backend!r}")
        self._directory = directory
        self._in_process = backend == "sync"
        self._map_bytes = map_bytes
        self._sync = sync
        self._inherit_fds = tuple(inherit_fds)
        self._on_failure = on_failure
        self._call_soon = call_soon_threadsafe
        self._now = now
        self._call_later = call_later
        self._opener = opener
        self.wake = wake
        self.on_durable: Callable[[int], None] | None = None
        self.auth = AuthStore()
        self.quotas = Quotas()
        self.on_auth: Callable[[], None] = _nothing
        """Called in the turn after users, roles or permissions changed, before watchers are handed anything."""
        self.meter = StateMeter()
        self.space = Space(quota_bytes, int(map_bytes * CEILING_SHARE))
        self._copying = threading.Lock()  # held while a snapshot reads the environment
        self._broken = False
        self._pace = Pace()
        self._slice_timed = False
        self._load()
        self.hub = WatchHub(self.keyspace, listening=self._listen, wake=self._wake)

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        backend: str = "lmdb",
        map_bytes: int = MAP_BYTES,
        quota_bytes: int = 0,
        sync: bool = True,
        inherit_fds: Sequence[int] = (),
        on_failure: Failed = _raise,
        call_soon_threadsafe: CallSoon = _never_soon,
        now: Callable[[], float] | None = None,
        wake: Callable[[], None] = _nothing,
        call_later: CallLater | None = None,
        opener: OpenBackend = open_backend,
    ) -> StateMachine:
        """Opens or creates the state in an existing directory. Blocks for the start of the storage process.

        backend: "lmdb" in production, through the storage process; "sync" commits in this process. map_bytes:
        address space, well above the quota. quota_bytes: 0 or less for none. inherit_fds: held open by the
        storage process as long as it lives. on_failure(problem): the storage failed, the member must stop.
        call_soon_threadsafe: runs a call on the loop. now: monotonic seconds; without it every turn submits
        what it can. wake: asks for a turn(). call_later(seconds, call): with it, and `now`, compaction keeps
        its pace; without, each turn takes a slice. opener: opens the database; the simulator has its own.
        """
        return cls(
            directory,
            backend=backend,
            map_bytes=map_bytes,
            quota_bytes=quota_bytes,
            sync=sync,
            inherit_fds=inherit_fds,
            on_failure=on_failure,
            call_soon_threadsafe=call_soon_threadsafe,
            now=now,
            wake=wake,
            call_later=call_later,
            opener=opener,
        )

    # Applying

    def apply(self, index: int, term: int, data: bytes, own: bool | None = None) -> list[Outcome] | None:
        """Applies one committed entry; b"" only moves the applied index.

        Returns each command's outcome, in order; None where the entry was applied before, or its batch was
        (commands.py). own is for the driver's sake: outcomes are the same whoever asks.
        """
        if index <= self.applied_index:
            return None
        if self._broken:
            raise RuntimeError("the state machine has failed before and applies nothing more")
        if not data:
            self._applied(index, term)
            return []
        origin, incarnation, sequence, _ = decode_header(data)
        mark = (incarnation, sequence)
        if mark <= self._batches.get(origin, (0, 0)):
            self._applied(index, term)
            return None
        self._broken = True  # until the entry is whole: half of one is never stored
        self._applier.begin(index)
        meter = self.meter
        began = meter.clock()
        commands = decode_commands(data)
        outcomes = self._applier.apply(commands, term)
        meter.applied([kind for kind, _ in commands], meter.clock() - began)
        self._batches[origin] = mark
        operations = self._overlay.filling.operations
        operations[META, tables.batch_key(origin)] = tables.BATCH_MARK.pack(incarnation, sequence)
        self._applied(index, term)
        self._broken = False
        return outcomes

    def apply_config(
        self, index: int, term: int, conf: bytes, *, members: Collection[int], added: Sequence[MemberRecord]
    ) -> None:
        """Applies one committed configuration: conf is kept as it is, added are the members it brings, and
        whoever is not in `members` by then is removed for good."""
        if index <= self.applied_index:
            return
        if self._broken:
            raise RuntimeError("the state machine has failed before and applies nothing more")
        operations = self._overlay.filling.operations
        for record in added:
            member_id = record.member.ID
            if member_id not in self.removed:
                self.members[member_id] = record
                operations[MEMBERS, tables.ID.pack(member_id)] = record.SerializeToString()
        for member_id in sorted(self.members.keys() - set(members)):
            del self.members[member_id]
            self.removed.add(member_id)
            operations[MEMBERS, tables.ID.pack(member_id)] = None
            operations[META, tables.removed_key(member_id)] = b""
        self.conf = operations[META, tables.CONF_KEY] = conf
        self._applied(index, term)

    def last_batch(self, origin: int) -> tuple[int, int]:
        """(incarnation, sequence) of the last batch applied from this member; (0, 0) where none was."""
        return self._batches.get(origin, (0, 0))

    def turn(self) -> bool:
        """What one turn of the loop owes after its applies. True: call it again soon."""
        if self._broken:
            return False
        self._backend.poll()
        if self.auth.changed:
            self.auth.changed = False
            self.on_auth()
        more = self.hub.turn()
        compaction = self._compaction
        if compaction.done:  # as nearly always
            self._submit(forced=False)
            return more
        self._compact_slice()
        self._submit(forced=False)
        return self._compaction_goes_on() or more

    def _compact_slice(self) -> None:
        compaction, committed = self._compaction, self.keyspace.committed_revision
        if not compaction.ready(committed, self._overlay.filling):
            return
        records = None
        if self._now is not None and self._call_later is not None:
            records = self._pace.due(self._now(), compaction.target - compaction.progress)
            if not records:
                return
        began, before = self.meter.clock(), compaction.removed
        compaction.step(self._reader, committed, self._overlay.filling, records)
        self.meter.compacting(self.meter.clock() - began, compaction.removed - before, compaction.done)

    def _compaction_goes_on(self) -> bool:
        """Whether it wants a turn soon. Where it keeps a pace it asks for one in time."""
        if not self._compaction.ready(self.keyspace.committed_revision, self._overlay.filling):
            return False  # _committed() wakes it
        if self._call_later is None:
            return True
        if not self._slice_timed:
            self._slice_timed = True
            self._call_later(SLICE_EVERY_S, self._slice_due)
        return False

    def _slice_due(self) -> None:
        self._slice_timed = False
        self.wake()

    # Reading

    def range(self, request: RangeRequest) -> tuple[int, bytes]:
        """(current revision, RangeResponse without its header). Raises Compacted, FutureRevision."""
        meter, single = self.meter, not request.range_end
        if not meter.times_read(single):
            return self.keyspace.revision, ranges.answer(self.keyspace, request)
        began, ok = meter.clock(), False
        try:
            answer = self.keyspace.revision, ranges.answer(self.keyspace, request)
            ok = True
        finally:
            meter.read(meter.clock() - began, ok, request.key, request.range_end)
        return answer

    def read_only_txn(self, request: TxnRequest) -> tuple[int, bytes]:
        """(current revision, TxnResponse without its header), for a transaction of ranges alone."""
        self.meter.txns += 1
        return self.keyspace.revision, txn.read_only(self.keyspace, request)

    def hash_kv(self, revision: int = 0) -> tuple[int, int, int]:
        """(CRC-32 of every version in (compaction point, revision], compaction point, revision); 0: now. All at
        once: members go in slices (kv_hash.py)."""
        return HashTask(self.keyspace, revision).finish()

    @property
    def revision(self) -> int:
        return self.keyspace.revision

    @property
    def compact_revision(self) -> int:
        return self.keyspace.compact_revision

    def below_level(self, level: int) -> list[int]:
        """Ids of the members that do not know all commands of this level. A member that has never started says
        nothing yet, and is not waited for: of an older version, it stops at what it does not know."""
        return [
            member_id
            for member_id, record in sorted(self.members.items())
            if record.data_id and record.level < level
        ]

    @property
    def physical_compact_revision(self) -> int:
        """Superseded versions are removed up to here; equal to compact_revision when compaction has finished
        (CompactionRequest.physical waits for that)."""
        return self._compaction.progress

    @property
    def backlog_records(self) -> int:
        return self._overlay.record_count

    @property
    def backlog_bytes(self) -> int:
        return self._overlay.byte_count

    @property
    def reader_count(self) -> int:
        """Transactions that read the database, of other processes too."""
        return int(self._reader.env.info()["num_readers"])

    def measure_space(self) -> None:
        self.space.measured(self.db_size_in_use + self.backlog_bytes)

    @property
    def over_quota(self) -> bool:
        """Whether writes that take space are refused: the quota is reached, or the alarm says it was."""
        self.measure_space()
        return self.space.alarmed or self.space.used >= self.space.quota

    # Storing

    def flush(self) -> None:
        """Blocks until everything applied is in LMDB. Raises StorageFailed."""
        while not self._broken and (self._under_way or not self._overlay.filling.empty):
            if not self._under_way:
                self._submit(forced=True)
            if self._under_way:
                self._backend.drain()

    def flush_and_close(self) -> None:
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Closes without storing what is pending, as a crash would; a commit under way still ends."""
        with self._copying:
            self._broken = True
            self._backend.close()

    def snapshot_to(self, path: str) -> tuple[int, int, int]:
        """Writes a consistent, durable copy of what is in LMDB to a new file and returns the (index, term,
        revision) it stands for. Blocks; may be called in a thread, where it holds up no write."""
        with self._copying:
            began = self.meter.clock()
            written = snapshot.write(self._reader.env, path)
            self.meter.snapshot_seconds.observe(self.meter.clock() - began)
            return written

    @property
    def map_bytes(self) -> int:
        return self._map_bytes

    def release_dead_readers(self) -> None:
        """After a process that read the database beside this one was killed: its pages may be used again."""
        self._reader.env.reader_check()

    @staticmethod
    def snapshot_conf(path: str) -> bytes:
        """The configuration a snapshot stands for. Raises BadSnapshot."""
        return snapshot.read_meta(path, tables.CONF_KEY) or b""

    @staticmethod
    def install(directory: str, path: str) -> None:
        """Makes the snapshot at `path` (same file system) the directory's database, durably and in one step.
        No machine may have the directory open."""
        snapshot.install(directory, path)

    def reopen_from(self, path: str) -> None:
        """Replaces the state by a snapshot. Returns when that is durable. Watchers go on from where they
        were; leases lose their deadlines until the next promote()."""
        revision_before, began = self.keyspace.revision, self.meter.clock()
        self.abandon()
        snapshot.install(self._directory, path)
        self._broken = False
        self._load()
        self.hub.replaced(self.keyspace, revision_before)
        self._listen(self.hub.listening)
        self.meter.install_seconds.observe(self.meter.clock() - began)
        if self.on_durable is not None:
            self.on_durable(self.durable_index)

    def _load(self) -> None:
        self._under_way = False
        self._submitted_at = 0.0
        self._pending_since: float | None = None
        self._backend = self._opener(
            self._directory,
            in_process=self._in_process,
            map_bytes=self._map_bytes,
            sync=self._sync,
            inherit_fds=self._inherit_fds,
            call_soon=self._call_soon,
            committed=self._committed,
            failed=self._failed,
        )
        reader = self._reader = self._backend.reader
        applied = tables.load_applied(reader)
        self.applied_index = self.durable_index = applied.entry_index
        self.applied_term = applied.term
        self._overlay = Overlay()
        self.keyspace = Keyspace(
            reader,
            self._overlay,
            revision=applied.revision,
            compact_revision=applied.compact_revision,
            key_count=tables.load_key_count(reader),
            meter=self.meter,
        )
        self._compaction = Compaction(target=applied.compact_revision, progress=applied.compacted_to)
        self._batches = tables.load_batches(reader)
        self.lessor = tables.load_leases(reader)
        self.members = tables.load_members(reader)
        self.removed = tables.load_removed(reader)
        self.conf = reader.get(META, tables.CONF_KEY) or b""
        self.alarms = tables.load_alarms(reader)
        self.auth.load(reader)
        self.quotas.load(reader)
        self.keyspace.quotas = self.quotas if self.quotas else None
        self._applier = Applier(
            self.keyspace,
            self._overlay,
            self.lessor,
            self.members,
            self.alarms,
            self._compaction,
            self.auth,
            self.quotas,
            self.space,
        )
        self.db_size, self.db_size_in_use = reader.sizes()
        self.measure_space()

    def _applied(self, index: int, term: int) -> None:
        self.applied_index, self.applied_term = index, term
        filling = self._overlay.filling
        filling.applied_index = index
        if len(filling.records) >= SEAL_RECORDS or filling.record_bytes >= SEAL_BYTES:
            self._seal()

    def _seal(self) -> None:
        """Closes the generation with the mark of how far the state is, and begins another."""
        filling = self._overlay.filling
        filling.applied_index = self.applied_index
        filling.operations[META, tables.APPLIED_KEY] = tables.APPLIED.pack(
            self.applied_index,
            self.applied_term,
            self.keyspace.revision,
            self.keyspace.compact_revision,
            self._compaction.progress,
        )
        filling.operations[META, tables.KEY_COUNT_KEY] = self.keyspace.key_count.to_bytes(8, "big")
        for prefix, record in self.quotas.take_changed():
            filling.operations[QUOTAS, prefix] = record
        filling.last_revision = self.keyspace.revision
        self._overlay.seal()

    def _submit(self, *, forced: bool) -> None:
        """Gives the writer the next generation when it is free and there is enough, or enough time passed."""
        if self._under_way or self._broken:
            return
        first = self._overlay.generations[0]
        if first is self._overlay.filling:
            if first.empty or not (forced or self._is_due(first.record_bytes, len(first.records))):
                return
            self._seal()
        self._pending_since = None
        self._under_way = True
        self._submitted_at = self.meter.clock()
        self._backend.submit(
            encode_frame(first.number, first.records, first.drops, first.forgets, first.operations)
        )

    def _is_due(self, record_bytes: int, records: int) -> bool:
        if self._now is None or records >= SUBMIT_RECORDS or record_bytes >= SUBMIT_BYTES:
            return True
        now = self._now()
        if self._pending_since is None:
            self._pending_since = now
        return now - self._pending_since >= SUBMIT_AFTER_S

    def _committed(self, number: int) -> None:
        """The writer stored a generation: read it from LMDB from now on."""
        self._under_way = False
        self.meter.commit_seconds.observe(self.meter.clock() - self._submitted_at)
        self._reader.renew()
        first = self._overlay.drop_first(number)
        self.keyspace.committed_revision = first.last_revision
        self.durable_index = first.applied_index
        self.db_size, self.db_size_in_use = self._reader.sizes()
        self.measure_space()
        if self.on_durable is not None:
            self.on_durable(self.durable_index)
        if not self._compaction.done or self._overlay.generations[0] is not self._overlay.filling:
            self.wake()

    def _failed(self, problem: Exception) -> None:
        self._under_way = False
        self._broken = True
        self._on_failure(problem)

    def _wake(self) -> None:
        self.wake()

    def _listen(self, wanted: bool) -> None:
        self.keyspace.listener = self.hub.written if wanted else None
