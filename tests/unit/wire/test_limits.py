"""kvstore/wire/limits.py: bounds that only make sense together."""

from __future__ import annotations

from kvstore.wire import frames as h2
from kvstore.wire.limits import Limits


def test_the_defaults_fit_each_other() -> None:
    limits = Limits()
    assert (
        limits.max_message_bytes == 1_572_864 + 524_288
    )  # etcd's --max-request-bytes and its 512 KiB on top
    assert limits.stream_window_bytes > limits.max_message_bytes + 5  # no update within a unary request
    assert limits.max_message_bytes > h2.MAX_FRAME_BYTES  # a message in one frame is not measured again
    assert h2.DEFAULT_WINDOW < limits.stream_window_bytes < limits.connection_window_bytes <= h2.WINDOW_MAX
    assert limits.connection_window_bytes > 1 << 20  # given back by the MiB: a smaller one would never be
    assert limits.header_block_bytes >= h2.MAX_FRAME_BYTES  # or a HEADERS frame could be too large by itself
    assert limits.partial_bytes > limits.max_message_bytes
    assert limits.queued_bytes > limits.max_message_bytes
    assert limits.keepalive_min_time_s < limits.keepalive_timeout_s < limits.keepalive_interval_s
