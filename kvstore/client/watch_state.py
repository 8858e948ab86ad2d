"""What one watch knows: where it stands, what to deliver, when to give up. Pure.

Feed it every response of the current stream; it answers with batches to deliver and whether the watch has
failed. When a stream is lost, create_request() gives the request that resumes it on the next.

Invariants, whatever streams come and go:
- next_revision is the first revision of which nothing has been delivered (0: not known yet);
- a batch holds every event of the revisions it holds, and revisions only grow: nothing lost, nothing twice;
- next_revision is known from the first `created` on, so a watch for "from now on" misses nothing that
  happens while its stream is being replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kvstore.client.errors import ClientError, Compacted, NoLeader, WatchCanceled, from_reason
from kvstore.client.results import Event, Header, WatchBatch, event, header
from kvstore.pb import etcdserverpb_pb2 as pb

NO_LEADER = "etcdserver: no leader"
COMPACTED = "etcdserver: mvcc: required revision has been compacted"


@dataclass(slots=True)
class Step:
    """What follows from one response. failure ends the watch, unless failure.elsewhere: then resume it."""

    batches: Sequence[WatchBatch] = ()
    failure: ClientError | None = None


@dataclass(slots=True)
class WatchState:
    """request: what the user asked for; start_revision 0 means from now on."""

    request: pb.WatchCreateRequest
    next_revision: int = field(init=False)
    created_revision: int = field(init=False, default=0)
    """The store's revision when the watch was first created; 0 before that."""
    is_created: bool = field(init=False, default=False)
    """The current stream has confirmed the watch."""
    _held: list[Event] = field(init=False, default_factory=list)
    """Events of one revision whose other fragments are still to come."""

    def __post_init__(self) -> None:
        self.next_revision = self.request.start_revision

    def create_request(self) -> pb.WatchRequest:
        """For a new stream. Whatever was half received on the old one is forgotten and will come again."""
        self._held.clear()
        self.is_created = False
        request = pb.WatchCreateRequest()
        request.CopyFrom(self.request)
        request.start_revision = self.next_revision
        request.fragment = True
        return pb.WatchRequest(create_request=request)

    def feed(self, response: pb.WatchResponse) -> Step:
        if response.canceled:
            return Step(failure=_cancellation(response))
        if response.created:
            self.is_created = True
            if not self.created_revision:
                self.created_revision = response.header.revision
            if not self.next_revision:
                self.next_revision = response.header.revision + 1
            return Step()
        head = header(response.header)
        if response.events or self._held:
            return Step(self._events(response, head))
        return Step(self._progress(head))

    def _events(self, response: pb.WatchResponse, head: Header) -> Sequence[WatchBatch]:
        """Delivers all revisions that are complete: with more fragments to come, all but the last."""
        events = self._held
        events += [event(e) for e in response.events if e.kv.mod_revision >= self.next_revision]
        self._held = []
        if response.fragment and events:
            last = events[-1].kv.mod_revision
            split = next(i for i, e in enumerate(events) if e.kv.mod_revision == last)
            events, self._held = events[:split], events[split:]
        if not events:
            return ()
        # The header's revision may be ahead of the events sent (a watch that is catching up), so it is no
        # place to resume from; the last event's is.
        revision = events[-1].kv.mod_revision
        self.next_revision = revision + 1
        return (WatchBatch(revision, events, header=head),)

    def _progress(self, head: Header) -> Sequence[WatchBatch]:
        """A notification below what was delivered comes from a member that lags: it says nothing new."""
        if head.revision < self.next_revision - 1 or not self.is_created:
            return ()
        self.next_revision = head.revision + 1
        return (WatchBatch(head.revision, [], is_progress=True, header=head),)


def _cancellation(response: pb.WatchResponse) -> ClientError:
    reason = response.cancel_reason
    if response.compact_revision or COMPACTED in reason:
        return Compacted(reason, compact_revision=response.compact_revision, header=header(response.header))
    if NO_LEADER in reason:
        return NoLeader(reason)
    refusal = from_reason(reason)
    if refusal is not None:
        return refusal
    return WatchCanceled(reason, refused=response.created, header=header(response.header))
