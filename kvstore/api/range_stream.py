"""etcdserverpb.KV.RangeStream, of etcd 3.7: a range of any size, in chunks, at one revision, for as long as it takes.

    request ─► read index ─► chunk ─► chunk ─► … ─► the rest is counted ─► last chunk: header, more, count
                                │ the client has not read the last ones
                                └──► waits until it has

A chunk is read in one turn of the loop and is small; between two of them others have theirs. Only the revision is
held, and nothing of the store: should it be compacted meanwhile, the stream ends with that error.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from kvstore import errors
from kvstore.api.context import Context
from kvstore.api.errors import status_of
from kvstore.pb.etcdserverpb_pb2 import RangeRequest
from kvstore.rpc import Status, StreamCall
from kvstore.state import checks, ranges
from kvstore.state.varint import field, varint

FIRST_KEYS = 10
"""So that a client that wants to see something sees it early."""
KEYS_MAX, BYTES_MAX = 2_000, 256 << 10
"""Of a chunk: a few milliseconds of the loop. Above BYTES_MAX it holds one pair."""
COUNTED_KEYS = 20_000
BUFFER_BYTES_MAX = 1 << 20
_RANGE_RESPONSE, _MORE, _COUNT = b"\x0a", b"\x18\x01", b"\x20"


class RangeStream:
    def __init__(self, context: Context, call: StreamCall) -> None:
        self._context = context
        self._call = call
        self._request = RangeRequest()
        self._revision = 0  # that is read, 0 before the first chunk
        self._header_revision = 0
        self._next: bytes | None = b""  # where the next chunk begins; None: nothing is left
        self._sent = 0
        self._counted = 0
        self._keys = FIRST_KEYS
        self._waiting = False  # for the client to read
        self._ended = False

    def message(self, data: bytes) -> None:
        try:
            self._request = RangeRequest.FromString(data)
            checks.check_range(self._request)
            if self._context.machine.quotas.rated:
                self._context.rates.admit((self._request.key,), self._context.now())
        except DecodeError as malformed:
            self._finish(Status.INTERNAL, f"grpc: error unmarshalling request: {malformed}")
            return
        except errors.StoreError as problem:
            self._finish(*status_of(problem))
            return
        request = self._request
        if request.sort_order or request.sort_target or ranges.is_filtered(request):
            self._finish(Status.UNIMPLEMENTED, "etcdserver: a range stream is in key order and not filtered")
        elif request.serializable:
            self._begin(None)
        else:
            self._context.driver.read(self._begin)

    def _begin(self, problem: errors.StoreError | None) -> None:
        if problem is not None:
            self._finish(*status_of(problem))
            return
        keyspace, request = self._context.machine.keyspace, self._request
        self._header_revision = keyspace.revision
        self._revision = request.revision if request.revision > 0 else keyspace.revision
        self._next = request.key
        self._go_on()

    def _go_on(self) -> None:
        if self._ended:
            return
        try:
            chunk = self._read()
        except errors.StoreError as problem:
            self._finish(*status_of(problem))
            return
        if self._next is None:
            self._end(chunk)
            return
        if chunk:
            self._call.send(field(_RANGE_RESPONSE, chunk))
        if self._call.buffered_bytes > BUFFER_BYTES_MAX:
            self._waiting = True
        else:
            self._context.call_later(0.0, self._go_on)

    def _read(self) -> bytes:
        """The next pairs, or b"" while those beyond the limit are counted."""
        request, machine = self._request, self._context.machine
        assert self._next is not None, "nothing is read after the end"
        left = request.limit - self._sent if request.limit > 0 else KEYS_MAX
        if request.count_only or left <= 0:
            count, self._next = ranges.count_from(
                machine.keyspace, request, self._next, self._revision, COUNTED_KEYS
            )
            self._counted += count
            return b""
        chunk = ranges.chunk(
            machine.keyspace, request, self._next, self._revision, min(self._keys, left), BYTES_MAX
        )
        self._sent += chunk.key_count
        self._counted += chunk.key_count
        self._next = chunk.next_key
        self._keys = KEYS_MAX
        return chunk.pairs

    def _end(self, pairs: bytes) -> None:
        tail = _MORE if 0 < self._request.limit < self._counted and not self._request.count_only else b""
        if self._counted:
            tail += _COUNT + varint(self._counted)
        header = self._context.header(self._header_revision)
        self._call.send(field(_RANGE_RESPONSE, header + pairs + tail))
        self._finish(Status.OK, "")

    def _finish(self, status: int, text: str) -> None:
        if not self._ended:
            self._ended = True
            self._call.finish(status, text)

    def half_closed(self) -> None:
        """Its one request has come."""

    def cancelled(self) -> None:
        self._ended = True

    def drained(self) -> None:
        if self._waiting:
            self._waiting = False
            self._go_on()
