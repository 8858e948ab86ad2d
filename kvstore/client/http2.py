"""gRPC over HTTP/2, the client's side of one connection. Pure: bytes in, calls told, bytes out; no socket, no clock.

    open(), send(), cancel() ─┐                      ┌─► Sink.message(), ended(), drained()
    receive(bytes), expire(now), lost(text) ─► Http2 ┴─► output: bytes to write, in order

Invariants:
- What is on `output` was allowed by both of the server's windows, and by its limit of streams, when it was put there.
- A sink hears ended() once, and nothing after it; after cancel() it hears nothing.
- What a call's owner has not taken, held bytes, is not given back to the server's window for its stream: whoever reads
  slowly holds the server back. The part of a message that is not whole is given back, or it could never become whole.
- Every header block is decoded, those of calls that are gone too, or HPACK would fall out of step.
- Whatever the server sends, nothing but ConnectionFault comes out of receive().
"""

from __future__ import annotations

from kvstore.client.calls import Call, Sink
from kvstore.client.replies import Ending, Fate, HeadReader, code_name, reset_ending
from kvstore.rpc import Status
from kvstore.wire import frames as h2
from kvstore.wire.frames import FRAME, FRAME_BYTES, U32, ConnectionFault, frame, unpadded
from kvstore.wire.messages import PREFIX, PREFIX_BYTES, MessageFault, MessageReader

STREAM_WINDOW_BYTES = 4 << 20
CONNECTION_WINDOW_BYTES = 1 << 30
GIVE_BACK_BYTES = 1 << 28  # of the connection's window, in one go
HEADER_BLOCK_BYTES_MAX = 64 << 10  # a flood of CONTINUATION
ACKS_UNWRITTEN_MAX = 1000  # a flood of PING and SETTINGS from a server that reads nothing
STREAM_NUMBER_MAX = 0x7FFF_FFFF
_HEADER_TABLE_SIZE, _ENABLE_PUSH = 1, 2

GREETING = (
    h2.PREFACE
    + frame(
        h2.SETTINGS,
        0,
        0,
        h2.SETTING.pack(_HEADER_TABLE_SIZE, 0)
        + h2.SETTING.pack(_ENABLE_PUSH, 0)
        + h2.SETTING.pack(h2.INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES)
        + h2.SETTING.pack(h2.MAX_HEADER_LIST_SIZE, HEADER_BLOCK_BYTES_MAX),
    )
    + frame(h2.WINDOW_UPDATE, 0, 0, U32.pack(CONNECTION_WINDOW_BYTES - h2.DEFAULT_WINDOW))
)
_SETTINGS_ACK = frame(h2.SETTINGS, h2.ACK, 0)


class Http2:
    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._heads = HeadReader()
        self._buffer = b""
        self._calls: dict[int, Call] = {}
        self._waiting: dict[Call, None] = {}  # for the server's limit of streams, in order
        self._blocked: dict[Call, None] = {}  # with something to send, and no window or no socket for it
        self._next = 1
        self._block: bytearray | None = None  # of a header block under way, with the next two
        self._block_stream = 0
        self._block_flags = 0
        self._unreturned = 0
        self._window = h2.DEFAULT_WINDOW
        self._initial_window = h2.DEFAULT_WINDOW
        self._frame_bytes_max = h2.MAX_FRAME_BYTES
        self._streams_max = STREAM_NUMBER_MAX
        self._socket_full = False
        self._acks_unwritten = 0
        self.output: list[bytes] = [GREETING]
        self.is_ready = False  # the server has sent its settings
        self.is_draining = False  # no call begins on it any more
        self.goodbye = ""  # what the server's GOAWAY said
        self.too_many_pings = False  # ... where it was that
        self.next_deadline: float | None = None

    @property
    def is_busy(self) -> bool:
        return bool(self._calls or self._waiting)

    # Calls

    def open(
        self,
        block: bytes,
        sink: Sink,
        *,
        message: bytes | None = None,
        ends: bool = False,
        deadline: float | None = None,
        holds: bool = False,
    ) -> Call:
        """Begins a call with this header block. message: the first; ends: and the last. deadline: by the clock of
        expire(). holds: the owner tells by taken() when it has taken a message."""
        assert not self.is_draining, "a call on a connection that ends"
        call = Call(block, sink, deadline, holds)
        if deadline is not None and (self.next_deadline is None or deadline < self.next_deadline):
            self.next_deadline = deadline
        if self._waiting or len(self._calls) >= self._streams_max:
            self._waiting[call] = None
        else:
            self._start(call)
        if message is not None:
            self.send(call, message, ends=ends)
        return call

    def send(self, call: Call, message: bytes, *, ends: bool = False) -> None:
        if call.has_ended:
            return
        size = len(message) + PREFIX_BYTES
        call.ends = ends
        is_free = call.number and not call.pending and not self._socket_full
        if is_free and size <= self._frame_bytes_max and size <= self._window and size <= call.window:
            self._window -= size
            call.window -= size
            call.end_sent = ends
            head = FRAME.pack(size >> 8, size & 0xFF, h2.DATA, h2.END_STREAM if ends else 0, call.number)
            self.output.append(b"".join((head, PREFIX.pack(0, len(message)), message)))
            return
        call.pending.append(memoryview(PREFIX.pack(0, len(message)) + message))
        if call.number:
            self._pump(call)

    def is_clogged(self, call: Call) -> bool:
        """Something that was given to send() still waits; drained() tells when nothing does."""
        return bool(call.pending)

    def taken(self, call: Call, message: bytes) -> None:
        """The owner has taken one message of a call that holds."""
        call.held -= len(message) + PREFIX_BYTES
        if not call.has_ended:
            self._give_back(call)

    def cancel(self, call: Call) -> None:
        if not call.has_ended:
            if call.number:
                self.output.append(frame(h2.RST_STREAM, 0, call.number, U32.pack(h2.CANCEL)))
            self._forget(call)
            self._start_waiting()

    def expire(self, now: float) -> None:
        """Ends the calls whose time is up, and finds the next deadline."""
        self.next_deadline = None
        for call in [*self._calls.values(), *self._waiting]:
            if call.deadline is None or call.has_ended:
                continue
            if call.deadline <= now:
                is_unsent = not call.number
                self.cancel(call)
                text = "the server allows no more streams" if is_unsent else "Deadline Exceeded"
                fate = Fate.UNSENT if is_unsent else Fate.SENT
                call.sink.ended(Ending(Status.DEADLINE_EXCEEDED, text, fate))
            elif self.next_deadline is None or call.deadline < self.next_deadline:
                self.next_deadline = call.deadline

    def _start(self, call: Call) -> None:
        call.number, self._next = self._next, self._next + 2
        if self._next > STREAM_NUMBER_MAX:
            self.is_draining = True
        call.window = self._initial_window
        self._calls[call.number] = call
        block, call.block = call.block, b""
        if len(block) <= self._frame_bytes_max:
            self.output.append(frame(h2.HEADERS, h2.END_HEADERS, call.number, block))
            return
        pieces = [
            block[at : at + self._frame_bytes_max] for at in range(0, len(block), self._frame_bytes_max)
        ]
        for index, piece in enumerate(pieces):
            flags = h2.END_HEADERS if index == len(pieces) - 1 else 0
            self.output.append(frame(h2.CONTINUATION if index else h2.HEADERS, flags, call.number, piece))

    def _start_waiting(self) -> None:
        while self._waiting and len(self._calls) < self._streams_max and not self.is_draining:
            call = next(iter(self._waiting))
            del self._waiting[call]
            self._start(call)
            self._pump(call)
        if self.is_draining and self._waiting:
            self._fail_waiting(self.goodbye or "the connection has no stream left")

    def _fail_waiting(self, text: str) -> None:
        for call in list(self._waiting):
            self._forget(call)
            call.sink.ended(Ending(Status.UNAVAILABLE, text, Fate.UNSENT))

    def _forget(self, call: Call) -> None:
        call.has_ended = True
        self._calls.pop(call.number, None)
        self._waiting.pop(call, None)
        self._blocked.pop(call, None)
        call.pending.clear()
        call.reader = None

    def _end(self, call: Call, ending: Ending, code: int = h2.NO_ERROR) -> None:
        """The call is over for the server, or is none that it keeps to the rules with: code tells it which."""
        if not call.end_sent or code:
            self.output.append(frame(h2.RST_STREAM, 0, call.number, U32.pack(code)))
        self._forget(call)
        self._start_waiting()
        call.sink.ended(ending)

    # Sending what waits

    def _pump(self, call: Call) -> None:
        """Sends of a call's pending bytes what may go; the rest is blocked, behind all others that are."""
        was_blocked = call in self._blocked
        if was_blocked:
            del self._blocked[call]
        while call.pending:
            piece = call.pending[0]
            size = min(len(piece), self._frame_bytes_max, self._window, call.window)
            if size <= 0 or self._socket_full:
                self._blocked[call] = None
                return
            if size == len(piece):
                call.pending.popleft()
            else:
                call.pending[0] = piece[size:]
            call.end_sent = call.ends and not call.pending
            self._window -= size
            call.window -= size
            flags = h2.END_STREAM if call.end_sent else 0
            self.output.append(frame(h2.DATA, flags, call.number, bytes(piece[:size])))
        if was_blocked:
            call.sink.drained()

    def _pump_all(self) -> None:
        for call in list(self._blocked):
            if self._window <= 0 or self._socket_full:
                return
            if call in self._blocked:
                self._pump(call)

    def socket_full(self) -> None:
        self._socket_full = True

    def socket_ready(self) -> None:
        self._socket_full = False
        self._acks_unwritten = 0
        self._pump_all()

    # The connection

    def ping(self, payload: bytes) -> None:
        self.output.append(frame(h2.PING, 0, 0, payload))

    def lost(self, text: str) -> None:
        """The connection is gone: so is every call."""
        self.is_draining = True
        self._fail_waiting(self.goodbye or text)
        for call in list(self._calls.values()):
            if not call.has_ended:
                self._forget(call)
                call.sink.ended(Ending(Status.UNAVAILABLE, self.goodbye or text))

    def fail(self, fault: ConnectionFault) -> None:
        """The last thing to say to a server that broke the rules; output it, then close."""
        self.output.append(
            frame(h2.GOAWAY, 0, 0, U32.pack(0) + U32.pack(fault.code) + fault.reason.encode()[:256])
        )
        self.lost(f"the server broke HTTP/2: {fault.reason}")

    def receive(self, data: bytes) -> None:
        """Raises ConnectionFault where the server breaks the protocol or a bound: fail() is next, then the end."""
        if self._buffer:
            data = self._buffer + data
        at, size = 0, len(data)
        while size - at >= FRAME_BYTES:
            high, low, kind, flags, number = FRAME.unpack_from(data, at)
            length = high << 8 | low
            if not self.is_ready and (kind != h2.SETTINGS or flags & h2.ACK or number):
                raise ConnectionFault(h2.PROTOCOL_ERROR, "its first bytes are no HTTP/2")
            if length > h2.MAX_FRAME_BYTES:
                raise ConnectionFault(h2.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = at + FRAME_BYTES + length
            if end > size:
                break
            self._frame(kind, flags, number & STREAM_NUMBER_MAX, data[at + FRAME_BYTES : end])
            at = end
        self._buffer = data[at:] if at < size else b""

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != h2.CONTINUATION or number != self._block_stream):
            raise ConnectionFault(h2.PROTOCOL_ERROR, "a header block was interrupted")
        if kind == h2.DATA:
            self._data(flags, number, payload)
        elif kind == h2.HEADERS:
            self._headers(flags, number, payload)
        elif kind == h2.CONTINUATION:
            self._continuation(flags, payload)
        elif kind == h2.WINDOW_UPDATE:
            self._window_update(number, payload)
        elif kind == h2.RST_STREAM:
            self._reset(number, payload)
        elif kind == h2.SETTINGS:
            self._settings(flags, number, payload)
        elif kind == h2.PING:
            _sized(payload, 8, number == 0)
            if not flags & h2.ACK:
                self._ack(frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.GOAWAY:
            self._goaway(number, payload)
        elif kind == h2.PUSH_PROMISE:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "a push, which was not asked for")

    def _ack(self, data: bytes) -> None:
        if self._socket_full:
            self._acks_unwritten += 1
            if self._acks_unwritten > ACKS_UNWRITTEN_MAX:
                raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "it asks and does not read the answers")
        self.output.append(data)

    def _call(self, number: int) -> Call | None:
        """The call that a frame is for; None where it is over. Raises ConnectionFault where there never was one."""
        call = self._calls.get(number)
        if call is None and (number >= self._next or not number & 1):
            raise ConnectionFault(h2.PROTOCOL_ERROR, f"a frame for stream {number}, which was never opened")
        return call

    # Answers

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._unreturned += size
        if self._unreturned >= GIVE_BACK_BYTES:
            self.output.append(frame(h2.WINDOW_UPDATE, 0, 0, U32.pack(self._unreturned)))
            self._unreturned = 0
        call = self._call(number)
        body = unpadded(payload, flags)
        if call is None:
            return
        call.unreturned += size
        if call.unreturned > STREAM_WINDOW_BYTES:
            raise ConnectionFault(h2.FLOW_CONTROL_ERROR, f"more than the window of stream {number} allows")
        if call.head is None:
            ending = Ending(Status.INTERNAL, "the server sent data before headers")
            self._end(call, ending, h2.PROTOCOL_ERROR)
            return
        if not self._messages(call, body):
            return
        if flags & h2.END_STREAM:
            self._end(call, Ending(Status.INTERNAL, "the server ended the stream without trailers"))
        else:
            self._give_back(call)

    def _messages(self, call: Call, body: bytes) -> bool:
        """Hands over the messages that end in body. False: the call is over."""
        size = len(body) - PREFIX_BYTES
        if call.reader is None:
            # The usual answer: one message, whole.
            if size >= 0 and PREFIX.unpack_from(body) == (0, size) and size <= self._max_message_bytes:
                self._deliver(call, body[PREFIX_BYTES:], size)
                return not call.has_ended
            assert call.head is not None, "a message before its head"
            call.reader = MessageReader(self._max_message_bytes, call.head.encoding)
        reader = call.reader
        before = reader.partial_bytes + len(body)
        try:
            found = reader.feed(body)
        except MessageFault as fault:
            ending = Ending(fault.status, f"the answer cannot be read: {fault.reason}")
            self._end(call, ending, h2.CANCEL)
            return False
        for message in found:
            # Unpacked it may be larger than what came: what is held is what is in memory.
            self._deliver(call, message, len(message))
            if call.has_ended:
                return False
        if before and not reader.partial_bytes:
            call.reader = None
        return True

    def _deliver(self, call: Call, message: bytes, size: int) -> None:
        if call.holds:
            call.held += size + PREFIX_BYTES
        call.sink.message(message)

    def _give_back(self, call: Call) -> None:
        size = call.unreturned - max(call.held, 0)
        if size >= STREAM_WINDOW_BYTES // 2:
            call.unreturned -= size
            self.output.append(frame(h2.WINDOW_UPDATE, 0, call.number, U32.pack(size)))

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        block = unpadded(payload, flags)
        if flags & h2.PRIORITY_FLAG:
            if len(block) < 5:
                raise ConnectionFault(h2.FRAME_SIZE_ERROR, "no room for the priority")
            block = block[5:]
        if flags & h2.END_HEADERS:
            self._head(flags, number, block)
        else:
            self._block, self._block_stream, self._block_flags = bytearray(block), number, flags

    def _continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "a CONTINUATION of nothing")
        self._block += payload
        if len(self._block) > HEADER_BLOCK_BYTES_MAX:
            raise ConnectionFault(h2.ENHANCE_YOUR_CALM, "header block too large")
        if flags & h2.END_HEADERS:
            block, self._block = bytes(self._block), None
            self._head(self._block_flags, self._block_stream, block)

    def _head(self, flags: int, number: int, block: bytes) -> None:
        head = self._heads.read(block)
        call = self._call(number)
        if call is None:
            return
        ends = flags & h2.END_STREAM
        if call.head is None:
            if head.http // 100 == 1 and not ends:
                return
            if head.http < 200:
                ending = Ending(Status.INTERNAL, "the server's headers have no status of HTTP")
                self._end(call, ending, h2.PROTOCOL_ERROR)
            elif ends:
                self._end(call, head.ending)
            elif head.refusal is not None:
                self._end(call, head.refusal, h2.CANCEL)
            else:
                call.head = head
        elif not ends:
            ending = Ending(Status.INTERNAL, "the server sent headers twice")
            self._end(call, ending, h2.PROTOCOL_ERROR)
        elif call.reader is not None and call.reader.partial_bytes and head.ending.status is Status.OK:
            self._end(call, Ending(Status.INTERNAL, "the server ended the call within a message"))
        else:
            self._end(call, head.ending)

    def _reset(self, number: int, payload: bytes) -> None:
        _sized(payload, 4, number != 0)
        call = self._call(number)
        if call is not None:
            self._forget(call)
            self._start_waiting()
            call.sink.ended(reset_ending(U32.unpack(payload)[0], answered=call.head is not None))

    # What the server says of the connection

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) % h2.SETTING.size or (flags & h2.ACK and payload):
            raise ConnectionFault(h2.FRAME_SIZE_ERROR, "malformed SETTINGS")
        if flags & h2.ACK:
            return
        window = self._initial_window
        for key, value in h2.SETTING.iter_unpack(payload):
            if key == h2.MAX_CONCURRENT_STREAMS:
                self._streams_max = value
            elif key == h2.INITIAL_WINDOW_SIZE:
                if value > h2.WINDOW_MAX:
                    raise ConnectionFault(h2.FLOW_CONTROL_ERROR, f"an initial window of {value}")
                window = value
            elif key == h2.MAX_FRAME_SIZE:
                if not h2.MAX_FRAME_BYTES <= value < 1 << 24:
                    raise ConnectionFault(h2.PROTOCOL_ERROR, f"frames of at most {value}")
                self._frame_bytes_max = value
        change, self._initial_window = window - self._initial_window, window
        if change:
            for call in self._calls.values():
                call.window += change
                if call.window > h2.WINDOW_MAX:
                    raise ConnectionFault(h2.FLOW_CONTROL_ERROR, "a window beyond all bounds")
        self.is_ready = True
        self._ack(_SETTINGS_ACK)
        self._start_waiting()
        self._pump_all()

    def _window_update(self, number: int, payload: bytes) -> None:
        _sized(payload, 4, True)
        more = U32.unpack(payload)[0] & h2.WINDOW_MAX
        call = self._call(number) if number else None
        if number:
            if call is None:
                return
            if not more or call.window + more > h2.WINDOW_MAX:
                ending = Ending(Status.INTERNAL, "the server's window for the stream is out of bounds")
                self._end(call, ending, h2.FLOW_CONTROL_ERROR if more else h2.PROTOCOL_ERROR)
                return
            call.window += more
            if call in self._blocked:
                self._pump(call)
            return
        if not more or self._window + more > h2.WINDOW_MAX:
            code = h2.FLOW_CONTROL_ERROR if more else h2.PROTOCOL_ERROR
            raise ConnectionFault(code, "its window for the connection is out of bounds")
        self._window += more
        self._pump_all()

    def _goaway(self, number: int, payload: bytes) -> None:
        if number or len(payload) < 8:
            raise ConnectionFault(h2.PROTOCOL_ERROR, "malformed GOAWAY")
        last = U32.unpack_from(payload)[0] & STREAM_NUMBER_MAX
        code = U32.unpack_from(payload, 4)[0]
        why = payload[8:264].decode("utf-8", "replace")
        self.is_draining = True
        self.too_many_pings = code == h2.ENHANCE_YOUR_CALM and why == "too_many_pings"
        self.goodbye = f"the server ended the connection: {why or code_name(code)}"
        self._fail_waiting(self.goodbye)
        for call in [call for call in self._calls.values() if call.number > last]:
            if not call.has_ended:
                self._forget(call)
                fate = Fate.REFUSED if call.head is None else Fate.SENT
                call.sink.ended(Ending(Status.UNAVAILABLE, self.goodbye, fate))


def _sized(payload: bytes, size: int, is_placed: bool) -> None:
    if len(payload) != size:
        raise ConnectionFault(h2.FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes where {size} belong")
    if not is_placed:
        raise ConnectionFault(h2.PROTOCOL_ERROR, "a frame for the wrong stream")
