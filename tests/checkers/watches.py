"""Watches: what etcd promises of them (robustness tests' validate/watch.go), and a little more.

ordered       revisions never go back            filter       only what was asked for, and not what was not
unique        no event twice                     prev_kv      the version before, where it was asked for
atomic        a revision comes in one response   content      the version as it is, its counters included
reliable      no event is left out               start        nothing below the revision asked for
resumable     the first event asked for comes    bookmark     progress is never ahead of the events
fragments     reassemble to whole revisions      compaction   the cancellation says how far, rightly
end           nothing after the cancellation     created      first, and once
"""

from __future__ import annotations

from kvstore.pb.etcdserverpb_pb2 import WatchCreateRequest
from kvstore.pb.mvccpb_pb2 import Event
from tests.checkers.evaluate import interval, plain
from tests.checkers.history import History, KeyValue, Received, Violation, WatchRecord
from tests.checkers.timeline import Timeline


def check(history: History, timeline: Timeline) -> int:
    """How many events were checked. Raises Violation."""
    return sum(_Check(watch, history, timeline).run() for watch in history.watches)


class _Check:
    def __init__(self, watch: WatchRecord, history: History, timeline: Timeline) -> None:
        self.watch = watch
        self.history = history
        self.timeline = timeline
        self.start, self.end = interval(watch.request.key or b"\0", watch.request.range_end)
        self.puts = WatchCreateRequest.NOPUT not in watch.request.filters
        self.deletes = WatchCreateRequest.NODELETE not in watch.request.filters
        self.first = 0  # the lowest revision it may hear of
        self.next = 0  # the lowest it has not heard of
        self.ended = False
        self.count = 0
        self.gathered: list[Event] = []  # fragments of a response that is not whole yet

    def run(self) -> int:
        for at, received in enumerate(self.watch.responses):
            response = received.response
            if self.ended:
                self.fail("end", f"after the cancellation: {response}")
            if at == 0:
                self.created(received)
            elif response.created:
                self.fail("created", "created twice")
            elif response.canceled:
                self.canceled(received)
            elif response.events:
                self.events(received)
            else:
                self.progress(received)
        if self.watch.complete and not self.ended:
            if self.gathered:
                self.fail("fragments", "the last response is not whole")
            missing = self.expected(self.next, self.timeline.revision)
            if self.next and missing:
                self.fail("reliable", f"never heard of {missing[0]}")
        return self.count

    def fail(self, name: str, text: str) -> None:
        raise Violation(f"watch {name}", f"{self.watch.name} ({_short(self.watch.request)}): {text}")

    def created(self, received: Received) -> None:
        response = received.response
        if not response.created:
            self.fail("created", f"begins with {_short(response)}")
        if response.canceled:
            self.ended = True
            return
        self.first = self.next = self.watch.request.start_revision or response.header.revision + 1

    def canceled(self, received: Received) -> None:
        self.ended = True
        point = received.response.compact_revision
        if received.response.events:
            self.fail("end", "events in the cancellation")
        if not point:
            return  # because the client asked for it
        if point <= self.next:
            self.fail("compaction", f"cancelled for {point} and {self.next} is what it needs next")
        if not any(
            each.revision == point and each.order <= received.sent for each in self.history.compactions
        ):
            self.fail("compaction", f"cancelled for {point}, which was not compacted")

    def progress(self, received: Received) -> None:
        revision = received.response.header.revision
        if self.gathered:
            self.fail("fragments", "progress between two fragments")
        if revision < self.first - 1:
            self.fail("bookmark", f"progress {revision} of one that starts at {self.first}")
        missing = self.expected(self.next, revision)
        if missing:
            self.fail("bookmark", f"progress {revision} before {missing[0]}")
        if revision > self.timeline.revision:
            self.fail("bookmark", f"progress {revision} and the last revision is {self.timeline.revision}")
        self.next = max(self.next, revision + 1)

    def events(self, received: Received) -> None:
        response = received.response
        self.gathered += response.events
        if response.fragment:
            if not self.watch.request.fragment:
                self.fail("fragments", "without having asked for them")
            return
        events, self.gathered = self.gathered, []
        revisions = [event.kv.mod_revision for event in events]
        if sorted(revisions) != revisions:
            self.fail("ordered", f"{revisions}")
        if revisions[0] < self.first:
            self.fail("start", f"revision {revisions[0]}, starts at {self.first}")
        if revisions[0] < self.next:
            self.fail("unique", f"revision {revisions[0]} and expects {self.next}")
        last = revisions[-1]
        if response.header.revision < last:
            self.fail("ordered", f"the header says {response.header.revision} and an event {last}")
        wanted = self.expected(self.next, last)
        got = [plain(event.kv) for event in events]
        if got != wanted:
            self.differ(got, wanted)
        for event, kv in zip(events, wanted, strict=True):
            self.check_event(event, kv, received)
        self.next = last + 1
        self.count += len(events)

    def differ(self, got: list[KeyValue], wanted: list[KeyValue]) -> None:
        """Names what is wrong with the events of one response."""
        for kv in got:
            if got.count(kv) > 1:
                self.fail("unique", f"{kv} twice")
        ids = {(kv.mod_revision, kv.key) for kv in got}
        missing = [kv for kv in wanted if (kv.mod_revision, kv.key) not in ids]
        if missing:
            partly = any(kv.mod_revision == missing[0].mod_revision for kv in got)
            self.fail("atomic" if partly else "reliable", f"without {missing[0]}")
        known = {(kv.mod_revision, kv.key) for kv in wanted}
        extra = [kv for kv in got if (kv.mod_revision, kv.key) not in known]
        if extra:
            self.fail("filter", f"{extra[0]}")
        at = next(at for at, (one, other) in enumerate(zip(got, wanted, strict=True)) if one != other)
        self.fail("content", f"{got[at]} instead of {wanted[at]}")

    def check_event(self, event: Event, kv: KeyValue, received: Received) -> None:
        if (event.type == Event.DELETE) != kv.deleted:
            self.fail("content", f"{_short(event)} of {kv}")
        has_prev = event.HasField("prev_kv")
        if not self.watch.request.prev_kv:
            if has_prev:
                self.fail("prev_kv", f"{_short(event)} without having asked for it")
            return
        before = self.timeline.version_at(kv.key, kv.mod_revision - 1)
        if not has_prev:
            if before is not None and kv.mod_revision > self.compacted_by(received.sent):
                self.fail("prev_kv", f"{_short(event)} without {before}")
        elif plain(event.prev_kv) != before:
            self.fail("prev_kv", f"{_short(event)} instead of {before}")

    def compacted_by(self, order: int) -> int:
        return max((each.revision for each in self.history.compactions if each.order <= order), default=0)

    def expected(self, first: int, last: int) -> list[KeyValue]:
        """The versions it asked for from revision first to last."""
        found = []
        for revision in self.timeline.between(first, last):
            for kv in revision.events:
                if kv.key < self.start or (self.end is not None and kv.key >= self.end):
                    continue
                if self.deletes if kv.deleted else self.puts:
                    found.append(kv)
        return found


def _short(message: object) -> str:
    return " ".join(str(message).split())[:300]
