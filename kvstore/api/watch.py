"""etcdserverpb.Watch: many watches on one stream, each fed by the hub (kvstore/state/watch_hub.py).

    created ─► events* ─► canceled          ids are the client's, or 0, 1, 2, … per stream

Created responses go out in the order of the requests, because clients pair them by order. A revision is never
split over two responses unless the client asked for fragments. A slow client costs bounded memory: above
BUFFER_BYTES_MAX the hub is told to wait and reads history again when the stream has drained.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from time import perf_counter

from google.protobuf.message import DecodeError

from kvstore import errors
from kvstore.api.context import Context
from kvstore.api.errors import status_of
from kvstore.meters import WatchMeter
from kvstore.pb.etcdserverpb_pb2 import WatchCreateRequest, WatchRequest
from kvstore.rpc import Methods, Status, StreamCall, StreamMethod
from kvstore.state.auth import Access, Identity
from kvstore.state.varint import varint
from kvstore.state.watch_hub import Watcher

BUFFER_BYTES_MAX = 4 << 20
WATCHES_PER_STREAM_MAX = 100_000
NO_ID = -1
SENDS_PER_SAMPLE = 16
_CREATED, _CANCELED, _FRAGMENT = b"\x18\x01", b"\x20\x01", b"\x38\x01"
_EVENT_TAG = 0x5A
CODE_NAMES = {
    Status.INVALID_ARGUMENT: "InvalidArgument",
    Status.PERMISSION_DENIED: "PermissionDenied",
    Status.UNAUTHENTICATED: "Unauthenticated",
}
"""grpc-go's, as etcd words the refusal of a watch."""


class WatchService:
    def __init__(self, context: Context, random: Random) -> None:
        self.context = context
        self._random = random
        self._streams: dict[int, WatchStream] = {}
        self._next_stream = 0
        self._leaderless_since: float | None = None
        self.fragment_bytes = context.config.max_request_bytes + (512 << 10)
        self._progress_interval_s = context.config.watch_progress_notify_interval_s
        self._patience_s = 3 * context.config.election_timeout_ms / 1000
        self.meter = WatchMeter()
        self.sends = 0
        context.guard.changed.append(self._permissions_changed)

    def methods(self) -> Methods:
        return {"/etcdserverpb.Watch/Watch": StreamMethod(self.open)}

    def open(self, call: StreamCall) -> WatchStream:
        self._next_stream += 1
        stream = WatchStream(self, call, self._next_stream)
        self._streams[self._next_stream] = stream
        if stream.needs_leader and not self.context.driver.leader_id:
            stream.end(errors.NoLeader())
        return stream

    def closed(self, number: int) -> None:
        self._streams.pop(number, None)

    def _permissions_changed(self) -> None:
        if self.context.auth.enabled:
            for stream in list(self._streams.values()):
                stream.check_permissions()

    def tick(self) -> None:
        """Ends the streams that asked for a leader once there has been none for three election timeouts."""
        now = self.context.now()
        if self.context.driver.leader_id:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = now
        elif now - self._leaderless_since >= self._patience_s:
            for stream in list(self._streams.values()):
                if stream.needs_leader:
                    stream.end(errors.NoLeader())
        for stream in list(self._streams.values()):
            stream.notify_progress(now)

    def progress_after(self, now: float) -> float:
        """When an idle watch tells its progress next: after the configured interval and up to a tenth more."""
        return now + self._progress_interval_s * (1 + 0.1 * self._random.random())

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    @property
    def watchers(self) -> int:
        return sum(len(stream.watches) for stream in self._streams.values())


class Watch:
    """One watch of a stream, as the hub's sink knows it."""

    __slots__ = ("created", "fragment", "id", "key", "progress_at", "range_end", "watcher")

    def __init__(
        self, watch_id: int, key: bytes, range_end: bytes, *, fragment: bool, progress_at: float | None
    ) -> None:
        self.id = watch_id
        self.key = key
        self.range_end = range_end
        self.fragment = fragment
        self.progress_at = progress_at
        self.watcher: Watcher | None = None
        self.created = False


class WatchStream:
    def __init__(self, service: WatchService, call: StreamCall, number: int) -> None:
        self._service = service
        self._context = service.context
        self._hub = service.context.machine.hub
        self._call = call
        self._number = number
        self._next_id = 0
        self._fragment_bytes = service.fragment_bytes
        self.needs_leader = call.metadata.get("hasleader") == "true"
        self._ended = False  # by this side: what the client sends before it knows is not heard
        self.watches: dict[int, Watch] = {}
        self._by_watcher: dict[Watcher, Watch] = {}
        self._identity: Identity | None = None  # whose it is, found out once

    # From the client

    def message(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            request = WatchRequest.FromString(data)
        except DecodeError as problem:
            self._finish(Status.INTERNAL, f"grpc: error unmarshalling request: {problem}")
            return
        kind = request.WhichOneof("request_union")
        began = perf_counter()
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            self._cancel(request.cancel_request.watch_id)
        elif kind == "progress_request":
            self._progress()
            self._service.meter.progress.observe(perf_counter() - began)
            return
        self._service.meter.control.observe(perf_counter() - began)

    def half_closed(self) -> None:
        """Only ends the sending of requests: the client goes on listening, as curl through the gateway does."""

    def cancelled(self) -> None:
        self._close()

    def drained(self) -> None:
        for watch in list(self.watches.values()):
            if watch.watcher is not None:
                self._hub.resume(watch.watcher)

    def _create(self, request: WatchCreateRequest) -> None:
        key, range_end = request.key or b"\0", request.range_end
        watch_id, reason = request.watch_id, ""
        if range_end and range_end != b"\0" and key >= range_end:
            reason = "mvcc: watcher range is empty"
        elif request.start_revision < 0:
            reason = status_of(errors.Compacted())[1]
        elif self._context.auth.enabled and (refusal := self._refusal(key, range_end)) is not None:
            status, text = status_of(refusal)
            reason = f"rpc error: code = {CODE_NAMES[status]} desc = {text}"
        elif watch_id and watch_id in self.watches:
            reason = "mvcc: duplicate watch ID provided on the WatchStream"
        elif len(self.watches) >= WATCHES_PER_STREAM_MAX:
            reason = status_of(errors.TooManyRequests())[1]
        revision = self._context.machine.revision
        if reason:
            tail = _CREATED + _CANCELED + b"\x32" + varint(len(reason)) + reason.encode()
            self._send(NO_ID, revision, tail)
            return
        if not watch_id:
            while self._next_id in self.watches:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        now = self._context.now()
        progress_at = self._service.progress_after(now) if request.progress_notify else None
        watch = Watch(watch_id, key, range_end, fragment=request.fragment, progress_at=progress_at)
        self.watches[watch_id] = watch
        self._send(watch_id, revision, _CREATED)
        filters = request.filters
        watcher = self._hub.watch(
            key,
            range_end,
            request.start_revision,
            no_put=WatchCreateRequest.NOPUT in filters,
            no_delete=WatchCreateRequest.NODELETE in filters,
            prev_kv=request.prev_kv,
            sink=self,
        )
        watch.watcher = watcher
        self._by_watcher[watcher] = watch

    def _access(self) -> Access | errors.StoreError:
        """What the caller may do, or why nothing. It stays their stream for as long as it is open, however long
        their token lasts, and they that user."""
        guard = self._context.guard
        try:
            if self._identity is None:
                self._identity = guard.identity(self._call)
            return guard.access(self._identity)
        except errors.StoreError as problem:
            return problem

    def _refusal(self, key: bytes, range_end: bytes) -> errors.StoreError | None:
        """Why the caller may not watch this; None: they may."""
        access = self._access()
        if isinstance(access, errors.StoreError):
            return access
        return None if access.may_read(key, range_end) else errors.PermissionDenied()

    def check_permissions(self) -> None:
        """Cancels the watches that the caller might not create now, those from before anybody asked among them."""
        access = self._access()
        if isinstance(access, errors.StoreError):
            lost, text = list(self.watches.values()), status_of(access)[1]
        else:
            text = status_of(errors.PermissionDenied())[1]
            lost = [each for each in self.watches.values() if not access.may_read(each.key, each.range_end)]
        for watch in lost:
            del self.watches[watch.id]
            self._drop(watch)
            tail = _CANCELED + b"\x32" + varint(len(text)) + text.encode()
            self._send(watch.id, self._context.machine.revision, tail)

    def _cancel(self, watch_id: int) -> None:
        watch = self.watches.pop(watch_id, None)
        if watch is None:
            return
        self._drop(watch)
        self._send(watch_id, self._context.machine.revision, _CANCELED)

    def _progress(self) -> None:
        """One answer for the whole stream, and only when every watch on it has been sent everything up to the
        revision it names (etcd 15220); otherwise none, and the client asks again."""
        if all(w.watcher is not None and self._hub.synced(w.watcher) for w in self.watches.values()):
            self._send(NO_ID, self._context.machine.revision, b"")

    # From the hub

    def ready(self, watcher: Watcher) -> bool:
        return self._call.buffered_bytes < BUFFER_BYTES_MAX

    def events(self, watcher: Watcher, revision: int, encoded: bytes, count: int) -> None:
        watch = self._by_watcher.get(watcher)
        if watch is None:
            return
        service = self._service
        if watch.progress_at is not None:
            watch.progress_at = service.progress_after(self._context.now())
        if watcher.behind:
            # As etcd: of a stretch of history the header tells how far the store is. Clients take a revision
            # below that of `created` for a store that was set back.
            revision = self._context.machine.revision
        service.sends += 1
        if service.sends % SENDS_PER_SAMPLE:
            self._send_events(watch, revision, encoded)
            return
        began = perf_counter()
        self._send_events(watch, revision, encoded)
        seconds = perf_counter() - began
        service.meter.events.observe(seconds, SENDS_PER_SAMPLE)
        service.meter.per_event.observe(seconds / max(1, count), SENDS_PER_SAMPLE)

    def _send_events(self, watch: Watch, revision: int, encoded: bytes) -> None:
        if watch.fragment and len(encoded) > self._fragment_bytes:
            pieces = list(_fragments(encoded, self._fragment_bytes))
            for piece in pieces[:-1]:
                self._send(watch.id, revision, _FRAGMENT + piece)
            self._send(watch.id, revision, pieces[-1])
        else:
            self._send(watch.id, revision, encoded)

    def compacted(self, watcher: Watcher, compact_revision: int) -> None:
        """etcd sends this one without a revision in the header and without a reason."""
        watch = self._by_watcher.pop(watcher, None)
        if watch is None:
            return
        self.watches.pop(watch.id, None)
        self._send(watch.id, 0, _CANCELED + b"\x28" + varint(compact_revision))

    # From the service

    def notify_progress(self, now: float) -> None:
        for watch in self.watches.values():
            if watch.progress_at is None or watch.progress_at > now or watch.watcher is None:
                continue
            if self._hub.synced(watch.watcher):
                watch.progress_at = self._service.progress_after(now)
                self._send(watch.id, self._context.machine.revision, b"")

    def end(self, error: errors.StoreError) -> None:
        self._finish(*status_of(error))

    def _finish(self, status: int, text: str) -> None:
        self._close()
        self._ended = True
        self._call.finish(status, text)

    def _send(self, watch_id: int, revision: int, tail: bytes) -> None:
        number = b"\x10" + varint(watch_id) if watch_id else b""
        self._call.send(self._context.header(revision) + number + tail)

    def _drop(self, watch: Watch) -> None:
        if watch.watcher is not None:
            self._by_watcher.pop(watch.watcher, None)
            self._hub.cancel(watch.watcher)

    def _close(self) -> None:
        self._service.closed(self._number)
        for watch in self.watches.values():
            self._drop(watch)
        self.watches.clear()


def _fragments(encoded: bytes, size_max: int) -> Iterator[bytes]:
    """Cuts concatenated event fields between events, so that each piece is at most size_max where it can be."""
    start = at = 0
    while at < len(encoded):
        assert encoded[at] == _EVENT_TAG, f"byte {encoded[at]:#x} at {at} begins no event"
        size, shift, cursor = 0, 0, at + 1
        while True:
            byte = encoded[cursor]
            cursor += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        following = cursor + size
        if at > start and following - start > size_max:
            yield encoded[start:at]
            start = at
        at = following
    yield encoded[start:]
