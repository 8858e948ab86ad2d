"""What one connection may cost. Every bound has its attack in the comment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds, rates per second."""

    max_message_bytes: int = (3 << 19) + (512 << 10)  # etcd: --max-request-bytes and 512 KiB on top
    max_concurrent_streams: int = 10_000  # etcd's is unlimited; this is above what its clients open
    stream_window_bytes: int = 4 << 20  # above any message, so that a unary call never waits for an update
    connection_window_bytes: int = 1 << 30
    slice_frames: int = 200  # of work in one go, under a millisecond; others have their turn before the rest
    header_block_bytes: int = 16 << 10  # CONTINUATION flood; Huffman-coded, it takes 3 ms to decode
    header_list_bytes: int = 64 << 10  # HPACK bomb
    partial_bytes: int = 40 << 20  # messages begun and not finished, all streams together
    turn_bytes: int = 512 << 10  # of answers made in one go, half a millisecond: many large calls at once
    queued_bytes: int = 256 << 20  # replies that the peer does not read, or opens no window for
    congested_bytes: int = 8 << 20  # of replies not taken: above it ranges wait, instead of being made …
    congested_bytes_of_all: int = 32 << 20  # … and above this, of all connections, on each that is behind
    resets_per_s: float = 200.0  # rapid reset (CVE-2023-44487)
    resets_burst: float = 1000.0
    control_frames_per_s: float = 1000.0  # PING, SETTINGS and empty-DATA floods
    control_frames_burst: float = 2000.0
    calm_s: float = 2.0  # for which new connections from the address of a flood are not read
    preface_timeout_s: float = 10.0  # a connection that says nothing
    keepalive_min_time_s: float = 5.0  # --grpc-keepalive-min-time
    keepalive_interval_s: float = (
        7200.0  # --grpc-keepalive-interval; 0, or a timeout of 0: clients are not pinged
    )
    keepalive_timeout_s: float = 20.0
    head_cache_entries: int = 1024
