"""What holds of a connection between any two calls: the sums agree, the bounds stand, nothing waits that could go."""

from __future__ import annotations

from kvstore.wire import frames as h2
from kvstore.wire.connection import Connection


def check(connection: Connection) -> None:
    """Looks inside on purpose: a sum that drifts shows up outside only when its bound is hit, hours later."""
    limits = connection._limits
    streams = connection._streams
    queued = partial = 0
    for number, stream in streams.items():
        assert number & 1 and number <= connection._last_stream, number
        assert not stream.cancelled, f"{number} has ended and is still here"
        pending = sum(map(len, stream.pending or ()))
        assert stream.pending_bytes == pending, (number, stream.pending_bytes, pending)
        if pending:
            assert number in connection._blocked or stream.window <= 0, f"{number} waits for nothing"
        queued += pending
        partial += stream.reader.partial_bytes if stream.reader is not None else 0
        partial += len(stream.message or b"")
    for number, stream in connection._blocked.items():
        assert streams.get(number) is stream and stream.pending, f"{number} is blocked with nothing to send"
    assert connection._queued_bytes == queued
    assert connection._partial_bytes == partial
    if connection._window > 0 and not connection._socket_full and not connection.is_overfull:
        assert not connection._blocked, "there is a window and a socket, and something waits"
    assert len(streams) <= limits.max_concurrent_streams
    assert len(connection._partial) < h2.MAX_FRAME_BYTES + h2.FRAME_BYTES
    assert len(connection._block or b"") <= limits.header_block_bytes
    assert partial <= limits.partial_bytes
    assert queued <= limits.queued_bytes
    assert connection._output_bytes <= limits.queued_bytes
