"""One HTTP/2 connection, server side, as a state machine: bytes in, handler calls and bytes out. No I/O, no clock.

receive(data, now) parses whole frames and calls services directly; what they reply, then or later, collects in
`output` until the protocol takes it, so a turn of the loop is one write. Windows are kept exactly, both ways, on
the fast path too. A peer that breaks the protocol or a bound raises ConnectionFault out of receive().

Invariants:
  1. Stream numbers are odd and grow; one that is not in `_streams` and not above `_last_stream` is closed.
  2. Every header block is decoded, of refused and closed streams too, or HPACK would fall out of step.
  3. Bytes on `output` were allowed by the connection's and the stream's window when they were put there.
  4. A stream in `_blocked` has something to send and is waiting for the connection's window or for the socket. One
     that waits for its own window is not there: every step through `_blocked` sends something, or takes one off.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from struct import Struct

from kvstore.rpc import Methods, Status, StreamMethod, UnaryHandler, UnaryMethod
from kvstore.wire import frames as h2
from kvstore.wire.frames import FRAME, FRAME_BYTES, ConnectionFault, frame
from kvstore.wire.headers import (
    FIELDS_FREE,
    OK_TRAILERS,
    REPLY_HEADERS,
    Head,
    HeadReader,
    literal,
    refusal,
    trailers,
)
from kvstore.wire.limits import Limits
from kvstore.wire.messages import PREFIX, PREFIX_BYTES, MessageFault, MessageReader
from kvstore.wire.pace import Bucket
from kvstore.wire.streams import Stream
from kvstore.wire.traffic import CODES, Traffic

# A whole small reply in two packs around the message: HEADERS, then DATA's header and the gRPC prefix …
_REPLY_HEAD = Struct(f">HBBBI{len(REPLY_HEADERS)}sHBBBIBI")
# … and the trailers.
_REPLY_TAIL = Struct(f">HBBBI{len(OK_TRAILERS)}s")
_HEADERS_SIZE, _TRAILERS_SIZE = len(REPLY_HEADERS), len(OK_TRAILERS)
_PING_STRIKES_MAX = 2
_WINDOW_UPDATE_AT = 1 << 20
_FIELDS_PER_CONTROL = 8  # so many fields above FIELDS_FREE cost as much to decode as a control frame
_CALL_FRAMES = 6  # what a call costs besides its frames, in frames …
_UNUSUAL_FRAMES = 10  # … and one whose head is new, or that is a stream, on top
_CONTROL_FRAMES = 2
_RESET_FRAMES = 20  # rare, but in a rapid reset: there it spreads calls that cost much over more turns
_DECODED_BYTES_PER_FRAME = 20  # a Huffman-coded byte takes 0.2 us, a small frame 4
_COPIED_BYTES_MAX = 1 << 20  # of a message: above it its prefix goes ahead, in a frame of its own
_STREAMS_PER_CONTROL = 100  # a change of the initial window costs one control frame for so many open streams


class Connection:
    def __init__(
        self,
        methods: Methods,
        limits: Limits,
        *,
        now: float,
        on_output: Callable[[], None],
        traffic: Traffic | None = None,
    ) -> None:
        """on_output is called when `output` gets its first bytes outside receive(). traffic: where calls are
        counted, for all connections of a member."""
        self.common_name = ""  # of the client's verified certificate, said by whoever drives this
        self.remote = ""  # the client's address, likewise
        self._limits = limits
        self._traffic = traffic or Traffic()
        self._heads = HeadReader(methods, limits, self._traffic)
        self._on_output = on_output
        self._partial = b""
        self._preface_seen = False
        self._streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._closing = False
        self.has_more = False  # that came and is not looked at yet
        self.is_overfull = False  # the peer does not take what it asked for: the protocol ends the connection
        self._receiving = False
        self.next_deadline: float | None = None
        # Sending
        self.output: list[bytes] = []
        self._window = h2.DEFAULT_WINDOW
        self._stream_window = h2.DEFAULT_WINDOW
        self._frame_bytes = h2.MAX_FRAME_BYTES
        self._blocked: OrderedDict[int, Stream] = OrderedDict()  # taken from the front in constant time
        self._queued_bytes = 0
        self._output_bytes = 0  # on `output`, about: not all of the small frames
        self._socket_full = False
        self._waiting: dict[int, Callable[[], None]] = {}  # what goes on when there is room, by stream
        # Receiving
        self._received = 0
        self._partial_bytes = 0  # in messages that are not complete, or complete and not yet the service's
        self._block: bytearray | None = None  # a header block waiting for its CONTINUATION frames
        self._block_stream = self._block_flags = 0
        # Pace
        self._resets = Bucket(per_s=limits.resets_per_s, burst=limits.resets_burst, now=now)
        self._controls = Bucket(per_s=limits.control_frames_per_s, burst=limits.control_frames_burst, now=now)
        self._pinged_at = float("-inf")
        self._ping_strikes = 0
        self._now = now
        self._greet()

    def _greet(self) -> None:
        limits = self._limits
        settings = (
            (h2.MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams),
            (h2.INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
            (h2.MAX_HEADER_LIST_SIZE, limits.header_list_bytes),
        )
        self.output.append(frame(h2.SETTINGS, 0, 0, b"".join(h2.SETTING.pack(*pair) for pair in settings)))
        more = limits.connection_window_bytes - h2.DEFAULT_WINDOW
        self.output.append(frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(more)))

    @property
    def is_idle(self) -> bool:
        return not self._streams

    @property
    def has_spoken(self) -> bool:
        """The client's preface has arrived."""
        return self._preface_seen

    def take_output(self) -> list[bytes]:
        """What is to be written, in order. It is the caller's from now on."""
        output, self.output = self.output, []
        self._output_bytes = 0
        return output

    # Receiving

    def receive(self, data: bytes, now: float) -> None:
        """Takes what the socket gave. Where that is much work, only a slice of it is done: has_more says so, and
        another call, be it with b"", goes on. Raises ConnectionFault; nothing may be received after that."""
        self._now = now
        self._receiving = True
        try:
            self._receive(self._partial + data if self._partial else data)
        finally:
            self._receiving = False

    def _receive(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._preface_seen:
            if end < len(h2.PREFACE):
                if not h2.PREFACE.startswith(data):
                    raise ConnectionFault(h2.PROTOCOL_ERROR, "this is not HTTP/2")
                self._partial = data
                return
            if not data.startswith(h2.PREFACE):
                raise ConnectionFault(h2.PROTOCOL_ERROR, "this is not HTTP/2")
            self._preface_seen, at = True, len(h2.PREFACE)
        left, seen = self._limits.slice_frames, self._heads.seen
        while end - at >= FRAME_BYTES and left > 0:
            high, low, kind, flags, number = FRAME.unpack_from(data, at)
            size = high << 8 | low
            if size > h2.MAX_FRAME_BYTES:
                raise ConnectionFault(h2.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            start = at + FRAME_BYTES
            stop = start + size
            if stop > end:
                break
            at = stop
            number &= 0x7FFF_FFFF
            if self._block is not None and kind != h2.CONTINUATION:
                raise ConnectionFault(h2.PROTOCOL_ERROR, "a header block was interrupted")
            if kind == h2.DATA:
                left -= 1
                self._data(number, flags, data[start:stop])
                continue
            if kind == h2.HEADERS:
                left -= _CALL_FRAMES
                if flags == h2.END_HEADERS:
                    head = seen.get(data[start:stop])
                    if head is not None and head.plain is not None:
                        after = self._plain_call(head, head.plain, number, data, stop)
                        if after:
                            at = after
                            left -= 1
                            continue
                left -= _UNUSUAL_FRAMES
                self._headers(number, flags, data[start:stop])
            else:
                left -= _RESET_FRAMES if kind == h2.RST_STREAM else _CONTROL_FRAMES
                self._control(kind, flags, number, data[start:stop])
            if self._heads.decoded_bytes:
                left -= self._heads.decoded_bytes // _DECODED_BYTES_PER_FRAME
                self._heads.decoded_bytes = 0
        self.has_more = left <= 0 and end - at >= FRAME_BYTES
        self._partial = data[at:]
        if self._received >= _WINDOW_UPDATE_AT:
            self.output.append(frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(self._received)))
            self._received = 0

    def _plain_call(self, head: Head, handler: UnaryHandler, number: int, data: bytes, at: int) -> int:
        """The usual call in one step: a head that was seen before, whose whole request is the frame at `at`. Returns
        where that frame ends; 0, with nothing done, where anything is out of the usual, for the long way to judge.
        One call instead of five and each frame looked at once: a tenth of a put's CPU on the leader."""
        if (
            len(data) - at < FRAME_BYTES + PREFIX_BYTES
            or number <= self._last_stream
            or not number & 1
            or self._closing
            or len(self._streams) >= self._limits.max_concurrent_streams
        ):
            return 0
        high, low, kind, flags, same = FRAME.unpack_from(data, at)
        size: int = high << 8 | low
        start = at + FRAME_BYTES
        stop = start + size
        if (
            kind != h2.DATA
            or flags != h2.END_STREAM
            or same & 0x7FFF_FFFF != number
            or stop > len(data)
            or not PREFIX_BYTES <= size <= h2.MAX_FRAME_BYTES
            or self._received + size > self._limits.connection_window_bytes
        ):
            return 0
        compressed, length = PREFIX.unpack_from(data, start)
        if compressed or length != size - PREFIX_BYTES:
            return 0
        self._received += size
        self._last_stream = number
        self._streams[number] = stream = Stream(self, number, head, self._stream_window, self._now)
        stream.open_bytes = size
        stream.remote_closed = True
        counts = head.counts
        counts.started += 1
        if not counts.started & self._traffic.time_mask:
            self._traffic.look_at(stream)
        handler(stream, data[start + PREFIX_BYTES : stop])
        return stop

    def _headers(self, number: int, flags: int, payload: bytes) -> None:
        if flags & (h2.PADDED | h2.PRIORITY_FLAG):
            payload = h2.unpadded(payload, flags)
            if flags & h2.PRIORITY_FLAG:
                if len(payload) < 5:
                    raise ConnectionFault(h2.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
                payload = payload[5:]
        if flags & h2.END_HEADERS:
            self._open(number, flags, payload)
            return
        if len(payload) > self._limits.header_block_bytes:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "header block too large")
        self._block, self._block_stream, self._block_flags = bytearray(payload), number, flags

    def _continuation(self, number: int, flags: int, payload: bytes) -> None:
        if self._block is None or number != self._block_stream:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        if not payload:
            self._count_control()
        self._block += payload
        if len(self._block) > self._limits.header_block_bytes:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "header block too large")
        if flags & h2.END_HEADERS:
            block, self._block = bytes(self._block), None
            self._open(number, self._block_flags, block)

    def _open(self, number: int, flags: int, block: bytes) -> None:
        head = self._heads.read(block)
        if len(head.fields) > FIELDS_FREE:
            self._count_control((len(head.fields) - FIELDS_FREE) / _FIELDS_PER_CONTROL)
        if not number & 1:
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"clients open odd streams, not {number}")
        if number <= self._last_stream:
            self._trailers_received(number, flags)
            return
        self._last_stream = number
        if self._closing or len(self._streams) >= self._limits.max_concurrent_streams:
            self._count_control()
            self.output.append(frame(h2.RST_STREAM, 0, number, h2.U32.pack(h2.REFUSED_STREAM)))
            return
        stream = Stream(self, number, head, self._stream_window, self._now)
        method = head.method
        if method is None:
            self._refuse(stream, flags)
            return
        counts, traffic = head.counts, self._traffic
        counts.started += 1
        if not counts.started & traffic.time_mask:
            traffic.look_at(stream)
        self._streams[number] = stream
        if head.timeout_s is not None:
            stream.deadline = deadline = self._now + head.timeout_s
            if self.next_deadline is None or deadline < self.next_deadline:
                self.next_deadline = deadline
        if isinstance(method, StreamMethod):
            stream.reader = MessageReader(self._limits.max_message_bytes, head.encoding)
            stream.handler = method.opener(stream)
        if flags & h2.END_STREAM:
            self._end_of_requests(stream)

    def _refuse(self, stream: Stream, flags: int) -> None:
        assert stream.head.refusal is not None, "a head without a method has its refusal"
        done = h2.END_HEADERS | h2.END_STREAM
        self._emit(frame(h2.HEADERS, done, stream.number, stream.head.refusal))
        if not flags & h2.END_STREAM:
            self._emit(frame(h2.RST_STREAM, 0, stream.number, h2.U32.pack(h2.NO_ERROR)))

    def _trailers_received(self, number: int, flags: int) -> None:
        """A second header block on a stream can only be its end."""
        stream = self._streams.get(number)
        if stream is None:
            return  # closed: the block was decoded, which is all it is owed
        if not flags & h2.END_STREAM or stream.remote_closed:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "HEADERS in the middle of a stream")
        self._end_of_requests(stream)

    def _data(self, number: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received > self._limits.connection_window_bytes:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "beyond the connection's window")
        if flags & h2.PADDED:
            payload = h2.unpadded(payload, flags)
        stream = self._streams.get(number)
        if stream is None:
            if number > self._last_stream or not number:
                raise ConnectionFault(h2.PROTOCOL_ERROR, f"DATA on idle stream {number}")
            return
        if stream.remote_closed:
            raise ConnectionFault(h2.STREAM_CLOSED, f"DATA after the end of stream {number}")
        if not size and not flags & h2.END_STREAM:
            self._count_control()
            return
        stream.open_bytes += size
        if stream.open_bytes > self._limits.stream_window_bytes:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, f"beyond the window of stream {number}")
        if stream.handler is None:
            self._unary_data(stream, flags, payload)
        else:
            self._stream_data(stream, flags, payload)

    def _unary_data(self, stream: Stream, flags: int, payload: bytes) -> None:
        if stream.reader is None:
            if flags & h2.END_STREAM and len(payload) >= PREFIX_BYTES:
                compressed, size = PREFIX.unpack_from(payload)
                if not compressed and size == len(payload) - PREFIX_BYTES:
                    stream.remote_closed = True  # the whole request in one frame, as nearly always
                    method = stream.head.method
                    assert isinstance(method, UnaryMethod), "stream methods have a handler"
                    method.handler(stream, payload[PREFIX_BYTES:])
                    return
            stream.reader = MessageReader(self._limits.max_message_bytes, stream.head.encoding)
        for message in self._feed(stream, payload):
            if stream.message is not None:
                self.finish(stream, Status.INTERNAL, "too many messages for a unary call")
                return
            stream.message = message
            self._hold(len(message))
        if not stream.cancelled:
            self._data_taken(stream, flags)

    def _stream_data(self, stream: Stream, flags: int, payload: bytes) -> None:
        handler = stream.handler
        assert handler is not None, "a streaming call has its handler from the start"
        for message in self._feed(stream, payload):
            if stream.cancelled:
                return
            stream.head.counts.received += 1
            handler.message(message)
        if not stream.cancelled:
            self._data_taken(stream, flags)

    def _data_taken(self, stream: Stream, flags: int) -> None:
        """The stream has ended, or may go on: also a unary one, whose message may be larger than its window."""
        if flags & h2.END_STREAM:
            self._end_of_requests(stream)
        elif stream.open_bytes > self._limits.stream_window_bytes // 2:
            self._emit(frame(h2.WINDOW_UPDATE, 0, stream.number, h2.U32.pack(stream.open_bytes)))
            stream.open_bytes = 0

    def _feed(self, stream: Stream, payload: bytes) -> list[bytes]:
        reader = stream.reader
        assert reader is not None, "the caller made one"
        before = reader.partial_bytes
        try:
            found = reader.feed(payload)
        except MessageFault as problem:
            self._partial_bytes -= before
            stream.reader = None
            self._end(stream, problem.status, problem.reason)
            return []
        self._hold(reader.partial_bytes - before)
        return found

    def _hold(self, more: int) -> None:
        self._partial_bytes += more
        if self._partial_bytes > self._limits.partial_bytes:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many unfinished messages")

    def _end_of_requests(self, stream: Stream) -> None:
        stream.remote_closed = True
        if stream.reader is not None and stream.reader.partial_bytes:
            self.finish(stream, Status.INTERNAL, "the request ended within a message")
        elif stream.handler is not None:
            stream.handler.half_closed()
        elif stream.message is None:
            self.finish(stream, Status.INTERNAL, "no message in a unary call")
        else:
            method = stream.head.method
            assert isinstance(method, UnaryMethod), "stream methods have a handler"
            message, stream.message = stream.message, None
            self._partial_bytes -= len(message)
            method.handler(stream, message)

    # Control frames

    def _control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == h2.WINDOW_UPDATE:
            self._window_update(number, payload)
        elif kind == h2.CONTINUATION:
            self._continuation(number, flags, payload)
        elif kind == h2.RST_STREAM:
            self._reset(number, payload)
        elif kind == h2.PING:
            self._ping(flags, number, payload)
        elif kind == h2.SETTINGS:
            self._settings(flags, number, payload)
        elif kind == h2.PUSH_PROMISE:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "clients do not push")
        elif kind == h2.GOAWAY:
            self._closing = True
        else:
            self._count_control()  # PRIORITY, and kinds this version does not know

    def _count_control(self, cost: float = 1) -> None:
        if not self._controls.take(self._now, cost):
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many control frames")

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "WINDOW_UPDATE is four bytes")
        more = h2.U32.unpack(payload)[0] & h2.WINDOW_MAX
        if not more:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "window update of nothing")
        if not number:
            self._window += more
            if self._window > h2.WINDOW_MAX:
                raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "window update out of range")
        else:
            stream = self._streams.get(number)
            if stream is None:
                if number > self._last_stream:
                    raise ConnectionFault(h2.PROTOCOL_ERROR, f"WINDOW_UPDATE on idle stream {number}")
                return
            self._widen(stream, more)
        if self._blocked:
            self._unblock()

    def _widen(self, stream: Stream, more: int) -> None:
        """Changes what the client lets us send on a stream; more may be negative (RFC 9113 6.9.2)."""
        stream.window += more
        if stream.window > h2.WINDOW_MAX:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "window update out of range")
        if stream.pending and stream.window > 0:
            self._blocked[stream.number] = stream

    def _reset(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "RST_STREAM is four bytes")
        if number > self._last_stream or not number:
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"RST_STREAM on idle stream {number}")
        if not self._resets.take(self._now):
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many streams reset")
        stream = self._streams.get(number)
        if stream is not None:
            self._cancel(stream)

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "PING is eight bytes")
        if number:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "PING on a stream")
        if flags & h2.ACK:
            return
        self._count_control()
        if self._now - self._pinged_at < self._limits.keepalive_min_time_s:
            self._ping_strikes += 1
            if self._ping_strikes > _PING_STRIKES_MAX:
                raise ConnectionFault(h2.ENHANCE_YOUR_CALM, h2.TOO_MANY_PINGS)
        self._pinged_at = self._now
        self.output.append(frame(h2.PING, h2.ACK, 0, payload))

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & h2.ACK and payload):
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "malformed SETTINGS")
        if flags & h2.ACK:
            return
        self._count_control()
        before = self._stream_window
        for setting, value in h2.SETTING.iter_unpack(payload):
            if setting == h2.INITIAL_WINDOW_SIZE:
                if value > h2.WINDOW_MAX:
                    raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "initial window out of range")
                self._stream_window = value
            elif setting == h2.MAX_FRAME_SIZE:
                if not h2.MAX_FRAME_BYTES <= value <= 0xFF_FFFF:
                    raise ConnectionFault(h2.PROTOCOL_ERROR, "frame size out of range")
                self._frame_bytes = min(value, 1 << 20)
        if self._stream_window != before:
            # Once a frame, whatever it says how often, and paid for: it goes over every stream.
            self._count_control(len(self._streams) / _STREAMS_PER_CONTROL)
            for stream in self._streams.values():
                self._widen(stream, self._stream_window - before)
        self.output.append(frame(h2.SETTINGS, h2.ACK, 0))
        if self._blocked:
            self._unblock()

    # Sending

    def _emit(self, data: bytes) -> None:
        if not self.output and not self._receiving:
            self._on_output()
        self.output.append(data)
        self._output_bytes += len(data)
        if self._output_bytes > self._limits.queued_bytes:
            self._overfill()

    def _overfill(self) -> None:
        """The peer has asked for more than it takes: nothing more is made for it, and the protocol ends it."""
        self.is_overfull = self._closing = True
        self.output.clear()
        self._output_bytes = 0
        self._on_output()

    def reply(self, stream: Stream, message: bytes) -> None:
        """Ends a unary call with OK: three frames in one go where the windows allow it. A reply above the smallest
        frame size goes the long way even where the peer takes larger frames: there its bytes are counted."""
        size = len(message) + PREFIX_BYTES
        number = stream.number
        if (
            size > self._window
            or size > stream.window
            or size > h2.MAX_FRAME_BYTES
            or self._socket_full
            or self._blocked
        ):
            prefix = PREFIX.pack(0, len(message))
            if size > _COPIED_BYTES_MAX:
                self.send_message(stream, prefix)
                self.send_message(stream, message)
            else:
                self.send_message(stream, prefix + message)
            self.finish(stream, 0, "")
            return
        if not self.output and not self._receiving:
            self._on_output()
        self._window -= size
        self._output_bytes += size
        self._ping_strikes = 0
        # fmt: off
        self.output += (
            _REPLY_HEAD.pack(
                0, _HEADERS_SIZE, h2.HEADERS, h2.END_HEADERS, number, REPLY_HEADERS,
                size >> 8, size & 0xFF, h2.DATA, 0, number, 0, len(message),
            ),
            message,
            _REPLY_TAIL.pack(0, _TRAILERS_SIZE, h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, OK_TRAILERS),
        )
        # fmt: on
        stream.head.counts.ok += 1
        if stream.opened_at < self._traffic.slow_before:
            self._traffic.looked_at(stream, 0, len(message))
        self._forget(stream)

    def send_message(self, stream: Stream, framed: bytes) -> None:
        """Sends or queues one message with its prefix."""
        if not stream.headers_sent:
            stream.headers_sent = True
            self._emit(frame(h2.HEADERS, h2.END_HEADERS, stream.number, REPLY_HEADERS))
        self._ping_strikes = 0
        size = len(framed)
        room = min(self._window, stream.window, self._frame_bytes)
        if size <= room and not self._socket_full and not stream.pending:
            self._window -= size
            stream.window -= size
            self._emit(FRAME.pack(size >> 8, size & 0xFF, h2.DATA, 0, stream.number) + framed)
            return
        if stream.pending is None:
            stream.pending = deque()
        stream.pending.append(framed)
        stream.pending_bytes += size
        self._queued_bytes += size
        self._traffic.queued_bytes += size
        self._blocked[stream.number] = stream
        self._send_pending(stream)
        if self._queued_bytes > self._limits.queued_bytes:
            self._overfill()
            self._abandon()

    def finish(self, stream: Stream, status: int, message: str) -> None:
        """Ends a call with trailers, after what is still queued."""
        block = OK_TRAILERS if not status and not message else trailers(status, message)
        if not stream.headers_sent:
            block = REPLY_HEADERS + block
            stream.headers_sent = True
        if stream.trailers is None:
            self._count_end(stream, status)
        stream.trailers = block
        if not stream.pending:
            self._send_trailers(stream)

    def _count_end(self, stream: Stream, status: int) -> None:
        stream.head.counts.codes[status if 0 <= status < CODES else Status.UNKNOWN] += 1
        if stream.handler is None and stream.opened_at < self._traffic.slow_before:
            self._traffic.looked_at(stream, status, stream.pending_bytes)

    def _send_trailers(self, stream: Stream) -> None:
        assert stream.trailers is not None, "finish() has set them"
        done = h2.END_HEADERS | h2.END_STREAM
        self._emit(frame(h2.HEADERS, done, stream.number, stream.trailers))
        if not stream.remote_closed:
            self._emit(frame(h2.RST_STREAM, 0, stream.number, h2.U32.pack(h2.NO_ERROR)))
        self._forget(stream)

    def _send_pending(self, stream: Stream) -> bool:
        """As much of a stream's queue as the windows take, a frame at a time. True where all of it went."""
        pending = stream.pending
        while pending and not self._socket_full:
            first = pending[0]
            room = min(self._window, stream.window, self._frame_bytes)
            if room <= 0:
                if stream.window <= 0:
                    self._blocked.pop(stream.number, None)  # _widen() brings it back
                return False
            piece = first[:room]
            size = len(piece)
            if size == len(first):
                pending.popleft()
            else:
                pending[0] = memoryview(first)[room:]  # a copy of the rest for each frame would be quadratic
            self._window -= size
            stream.window -= size
            stream.pending_bytes -= size
            self._queued_bytes -= size
            self._traffic.queued_bytes -= size
            self._ping_strikes = 0
            self._emit(FRAME.pack(size >> 8, size & 0xFF, h2.DATA, 0, stream.number) + piece)
        if pending:
            return False
        self._blocked.pop(stream.number, None)
        return True

    def _unblock(self) -> None:
        """Goes on with the waiting streams, first come first served; one that is done may be given more."""
        while self._blocked and self._window > 0 and not self._socket_full:
            stream = next(iter(self._blocked.values()))
            if self._send_pending(stream):
                if stream.trailers is not None:
                    self._send_trailers(stream)
                elif stream.handler is not None:
                    stream.handler.drained()

    def socket_full(self) -> None:
        self._socket_full = True

    def socket_ready(self) -> None:
        self._socket_full = False
        self._unblock()

    @property
    def is_congested(self) -> bool:
        limits, queued = self._limits, self._queued_bytes
        return queued + self._output_bytes > limits.congested_bytes or (
            queued > 0 and self._traffic.queued_bytes > limits.congested_bytes_of_all
        )

    @property
    def has_room(self) -> bool:
        """For one more answer that may be large: what was made in this turn is little, and so is what waits."""
        return self._output_bytes <= self._limits.turn_bytes and not self.is_congested

    def when_room(self, stream: Stream, go_on: Callable[[], None]) -> None:
        """A client that reads nothing gets no more of large answers made, and others have their turn in between."""
        self._waiting[stream.number] = go_on

    def resume(self) -> None:
        """Goes on with what waits for room, in the order it came; called whenever there may be some."""
        while self._waiting and self.has_room:
            self._waiting.pop(next(iter(self._waiting)))()

    # Ending

    def _forget(self, stream: Stream) -> None:
        stream.cancelled = True
        self._streams.pop(stream.number, None)
        if self._waiting:
            self._waiting.pop(stream.number, None)
        if stream.reader is not None:
            self._partial_bytes -= stream.reader.partial_bytes
            stream.reader = None
        if stream.message is not None:
            self._partial_bytes -= len(stream.message)
            stream.message = None

    def _drop_pending(self, stream: Stream) -> None:
        if stream.pending:
            self._queued_bytes -= stream.pending_bytes
            self._traffic.queued_bytes -= stream.pending_bytes
            stream.pending.clear()
            stream.pending_bytes = 0
        self._blocked.pop(stream.number, None)

    def _end(self, stream: Stream, status: int, message: str) -> None:
        """Ends a call from this side, ahead of what is queued. A service that has not finished it is told."""
        is_known = stream.trailers is not None
        self._drop_pending(stream)
        self.finish(stream, status, message)
        if stream.handler is not None and not is_known:
            stream.handler.cancelled()

    def _cancel(self, stream: Stream) -> None:
        self._drop_pending(stream)
        self._forget(stream)
        if stream.trailers is None:
            self._count_end(stream, Status.CANCELLED)
            if stream.handler is not None:
                stream.handler.cancelled()

    def check_deadlines(self, now: float) -> None:
        """Ends the calls whose time is up and finds the next deadline."""
        self._now = now
        self.next_deadline = None
        for stream in list(self._streams.values()):
            deadline = stream.deadline
            if deadline is None or stream.cancelled:  # the end of one call may have been that of another
                continue
            if deadline <= now:
                self._end(stream, Status.DEADLINE_EXCEEDED, "context deadline exceeded")
            elif self.next_deadline is None or deadline < self.next_deadline:
                self.next_deadline = deadline

    def begin_close(self) -> None:
        """Takes no new streams; the ones there may finish."""
        if not self._closing:
            self._closing = True
            self._emit(frame(h2.GOAWAY, 0, 0, h2.U32.pack(self._last_stream) + h2.U32.pack(h2.NO_ERROR)))

    def fail(self, fault: ConnectionFault) -> None:
        """The last thing said on a connection that broke the rules."""
        body = h2.U32.pack(self._last_stream) + h2.U32.pack(fault.code) + fault.reason.encode()
        self.output.append(frame(h2.GOAWAY, 0, 0, body))
        self._abandon()

    def lost(self) -> None:
        """The socket is gone: every call is."""
        self._abandon()

    def _abandon(self) -> None:
        self._closing = True
        for stream in list(self._streams.values()):
            if not stream.cancelled:  # the end of one call may have been that of another
                self._cancel(stream)

    def ping(self, payload: bytes) -> None:
        """The server's own keepalive."""
        self._emit(frame(h2.PING, 0, 0, payload))


__all__ = ["Connection", "Head", "literal", "refusal"]
