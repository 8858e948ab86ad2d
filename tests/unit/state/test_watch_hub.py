"""The watch hub against the nine properties of etcd's own validators, with sinks that stop and go."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvstore.pb.mvccpb_pb2 import Event
from kvstore.state.watch_hub import Watcher
from tests.unit.state.harness import Model, RecordingSink, Replica, matches

KEYS = [b"a", b"a1", b"a2", b"b", b"b\xff", b"c", b"q" * 600, b"q" * 600 + b"1"]
RANGES = [
    *((key, b"") for key in KEYS),
    (b"\0", b"\0"),
    (b"a", b"b"),
    (b"a", b"b\xff"),
    (b"a1", b"\0"),
    (b"b", b"c"),
    (b"q" * 600, b"r"),
    (b"a", b"a2"),
]
STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.binary(max_size=3)),
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.binary(max_size=3)),
    st.tuples(st.just("delete"), st.sampled_from(RANGES)),
    st.tuples(st.just("compact"), st.integers(0, 12)),
    st.tuples(st.just("turn")),
    st.tuples(st.just("ready"), st.integers(0, 7), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(0, 7)),
    st.tuples(st.just("reopen")),
    st.tuples(
        st.just("watch"),
        st.sampled_from(RANGES),
        st.integers(-15, 6),
        st.booleans(),
        st.sampled_from([(False, False), (False, False), (True, False), (False, True)]),
    ),
)


class Watch:
    """One watcher, and when it was made: what it must receive follows from that and the model."""

    def __init__(self, sink: RecordingSink, watcher: Watcher, start: int) -> None:
        self.sink = sink
        self.watcher = watcher
        self.start = start
        self.cancelled_at: int | None = None

    def wanted(self, model: Model) -> list[Event]:
        watcher, events = self.watcher, []
        for revision, event in model.events:
            if revision < self.start or not matches(event.kv.key, watcher.key, watcher.range_end):
                continue
            if watcher.no_put if event.type == Event.PUT else watcher.no_delete:
                continue
            copy = Event()
            copy.CopyFrom(event)
            if not watcher.prev_kv:
                copy.ClearField("prev_kv")
            events.append(copy)
        return events

    def check(self, model: Model, *, complete: bool) -> None:
        """Filter, order, uniqueness, atomicity, prevKV and isCreate are all in "a prefix of what is wanted, cut
        between revisions"; reliability is in "the whole of it" once the sink has had room."""
        wanted, got = self.wanted(model), self.sink.received
        for event, right in zip(got, wanted):
            if event.prev_kv != right.prev_kv:
                assert not event.HasField("prev_kv"), "another version than the one before"
                assert event.kv.mod_revision <= model.compacted, "prev_kv missing, not compacted"
                event.prev_kv.CopyFrom(right.prev_kv)
        assert got == wanted[: len(got)]
        if len(got) < len(wanted) and got:
            assert got[-1].kv.mod_revision < wanted[len(got)].kv.mod_revision, "a revision was split"
        if complete and self.sink.compacted_at is None and self.cancelled_at is None:
            assert len(got) == len(wanted), "events are missing"


class Run:
    def __init__(self, directory: str) -> None:
        self.replica = Replica(directory)
        self.model = Model()
        self.watches: list[Watch] = []

    def step(self, name: str, *arguments: object) -> None:
        getattr(self, name)(*arguments)

    def put(self, key: bytes, value: bytes) -> None:
        self.model.write({key: (value, 0)}, set())
        self.replica.put(key, value)

    def delete(self, bounds: tuple[bytes, bytes]) -> None:
        self.model.write({}, {kv.key for kv in self.model.within(*bounds)})
        self.replica.delete(*bounds)

    def compact(self, back: int) -> None:
        revision = self.model.revision - back
        if revision > self.model.compacted:
            self.replica.compact(revision)
            self.model.compacted = revision

    def turn(self) -> None:
        self.replica.machine.turn()

    def ready(self, number: int, room: bool) -> None:
        if number < len(self.watches):
            watch = self.watches[number]
            watch.sink.is_ready = room
            if room:
                self.replica.machine.hub.resume(watch.watcher)

    def cancel(self, number: int) -> None:
        if number < len(self.watches) and self.watches[number].cancelled_at is None:
            self.watches[number].cancelled_at = self.model.revision
            self.replica.machine.hub.cancel(self.watches[number].watcher)

    def reopen(self) -> None:
        """A snapshot of ourselves is installed, once everything is stored: nothing may be heard twice."""
        machine = self.replica.machine
        machine.flush()
        path = self.replica.directory + "/copy"
        machine.snapshot_to(path)
        machine.reopen_from(path)

    def watch(
        self, bounds: tuple[bytes, bytes], offset: int, prev_kv: bool, filters: tuple[bool, bool]
    ) -> None:
        if len(self.watches) >= 8:
            return
        start = max(self.model.revision + offset, 0)
        sink = RecordingSink()
        no_put, no_delete = filters
        watcher = self.replica.machine.hub.watch(
            *bounds, start, no_put=no_put, no_delete=no_delete, prev_kv=prev_kv, sink=sink
        )
        self.watches.append(Watch(sink, watcher, start or self.model.revision + 1))

    def check(self, *, complete: bool) -> None:
        hub = self.replica.machine.hub
        for watch in self.watches:
            watch.check(self.model, complete=complete)
            if hub.synced(watch.watcher):
                watch.check(self.model, complete=True)  # bookmarkable: progress promises all of it
                assert watch.start <= self.model.revision + 1, "a future watch has no progress to tell"
            if watch.sink.compacted_at is not None:
                seen = watch.sink.received
                resume = seen[-1].kv.mod_revision + 1 if seen else watch.start
                assert resume < watch.sink.compacted_at, "nothing it needs was compacted"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=60))
def test_against_the_model(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run = Run(directory)
        for name, *arguments in steps:
            run.step(str(name), *arguments)
            run.check(complete=False)
        for number in range(len(run.watches)):
            run.ready(number, True)
        run.replica.turns()
        run.check(complete=True)
        run.replica.machine.abandon()


def watched(replica: Replica, key: bytes, end: bytes = b"", start: int = 0) -> tuple[RecordingSink, Watcher]:
    sink = RecordingSink()
    return sink, replica.machine.hub.watch(key, end, start, sink=sink)


def test_a_watch_from_the_past_catches_up_in_the_next_turn_and_asks_for_it(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    woken: list[int] = []
    replica.machine.wake = lambda: woken.append(1)
    replica.put(b"k", b"1")
    replica.turns()
    sink, watcher = watched(replica, b"k", start=2)
    assert woken and not sink.batches, "nothing is handed over from within watch()"
    replica.machine.turn()
    assert sink.keys == [(2, b"k")]
    assert replica.machine.hub.synced(watcher)


def test_a_future_watch_is_silent_until_its_revision(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    sink, watcher = watched(replica, b"k", start=4)
    for _ in range(2):
        replica.put(b"k")
        replica.turns()
        assert not sink.batches
    assert replica.machine.hub.synced(watcher), "everything below its start is none of its business"
    replica.put(b"k")
    replica.turns()
    assert sink.keys == [(4, b"k")]


def test_the_delete_at_the_compaction_revision_is_delivered_and_below_it_is_refused(tmp_path: Path) -> None:
    """etcd 18089, 19179."""
    replica = Replica(str(tmp_path))
    replica.put(b"k")
    replica.delete(b"k")
    replica.put(b"other")
    replica.compact(3)
    replica.turns()
    at, _ = watched(replica, b"k", start=3)
    below, _ = watched(replica, b"k", start=2)
    replica.turns()
    assert [event.type for event in at.received] == [Event.DELETE]
    assert below.compacted_at == 3 and not below.batches


def test_the_pair_before_is_told_unless_it_is_compacted_and_alike_on_every_member(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    for value in (b"1", b"2", b"3"):
        replica.put(b"k", value)
    replica.compact(3)  # and no turn yet: the version at 2 is still stored
    sink = RecordingSink()
    replica.machine.hub.watch(b"k", b"", 3, prev_kv=True, sink=sink)
    replica.machine.hub.turn()
    at, after = sink.received
    assert not at.HasField("prev_kv"), "a read at revision 2 would be refused as compacted"
    assert after.prev_kv.value == b"2"


def test_a_slow_watcher_is_kept_as_one_number(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    slow, watcher = watched(replica, b"k")
    slow.is_ready = False
    fast, _ = watched(replica, b"k")
    for _ in range(3000):
        replica.put(b"k", b"x")
        replica.machine.turn()
    assert watcher.group is not None and not watcher.group.pending
    assert len(fast.received) == 3000 and not slow.received
    assert replica.machine.hub.behind_count == 1
    slow.is_ready = True
    replica.machine.hub.resume(watcher)
    replica.turns()
    assert slow.keys == fast.keys
    assert max(len(events) for _, events in slow.batches) <= 1000


def test_one_encoding_serves_all_watchers_of_a_group(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    seen: list[bytes] = []

    class Keeping(RecordingSink):
        def events(self, watcher: Watcher, revision: int, encoded: bytes, count: int) -> None:
            seen.append(encoded)

    for _ in range(3):
        replica.machine.hub.watch(b"a", b"b", 0, sink=Keeping())
    replica.put(b"ab", b"1")
    replica.turns()
    assert len(seen) == 3 and len({id(each) for each in seen}) == 1


def test_a_sink_may_cancel_and_watch_while_it_is_handed_events(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path))
    hub = replica.machine.hub
    later = RecordingSink()

    class Fickle(RecordingSink):
        def events(self, watcher: Watcher, revision: int, encoded: bytes, count: int) -> None:
            super().events(watcher, revision, encoded, count)
            hub.cancel(watcher)
            hub.watch(b"k", b"", revision, sink=later)

    first = Fickle()
    hub.watch(b"k", b"", 0, sink=first)
    replica.put(b"k")
    replica.put(b"k")
    replica.turns()
    assert first.keys == [(2, b"k"), (3, b"k")]
    assert later.keys == [(3, b"k")]
    assert hub.watcher_count == 1


def test_installing_a_later_snapshot_never_goes_back_in_time(tmp_path: Path) -> None:
    """etcd 15271, 20221: a lagging follower takes over its leader's state under its watchers."""
    (tmp_path / "leader").mkdir()
    (tmp_path / "follower").mkdir()
    leader, follower = Replica(str(tmp_path / "leader")), Replica(str(tmp_path / "follower"))
    for replica in (leader, follower):
        replica.put(b"k", b"1")
    current, _ = watched(follower, b"k")
    future, _ = watched(follower, b"k", start=6)
    old, _ = watched(follower, b"k", start=2)
    follower.turns()
    stale, stale_watcher = watched(follower, b"k")
    stale.is_ready = False
    follower.put(b"k", b"2")
    leader.put(b"k", b"2")
    follower.turns()
    for number in range(3, 7):
        leader.put(b"k", b"%d" % number)
    leader.compact(4)
    leader.machine.flush()
    leader.machine.snapshot_to(str(tmp_path / "copy"))
    follower.machine.reopen_from(str(tmp_path / "copy"))
    follower.turns()
    assert [revision for revision, _ in current.keys] == [3, 4, 5, 6, 7]
    assert [revision for revision, _ in future.keys] == [6, 7]
    assert [revision for revision, _ in old.keys] == [2, 3, 4, 5, 6, 7]
    stale.is_ready = True
    follower.machine.hub.resume(stale_watcher)
    follower.turns()
    assert stale.compacted_at == 4 and not stale.received
    leader.machine.abandon()
    follower.machine.abandon()
