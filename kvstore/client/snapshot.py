"""A snapshot of one member's database, as its server streams it: etcd's file, and its SHA-256 behind it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from kvstore.client.caller import Caller
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import ClientError
from kvstore.client.methods import SNAPSHOT
from kvstore.pb import etcdserverpb_pb2 as pb

DIGEST_BYTES = 32


class BadDigest(ClientError):
    """What came is not what was sent, or not all of it."""


async def snapshot(caller: Caller, endpoint: Endpoint) -> AsyncIterator[tuple[bytes, int]]:
    """(piece, bytes still to come) in order, the digest included. Raises BadDigest at the end, where the pieces
    are not what the digest says; ClientError where the stream breaks."""
    await caller.connect(endpoint, caller.settings.dial_timeout_s)
    stream = caller.open_server_stream(endpoint, SNAPSHOT, pb.SnapshotRequest())
    digest, total, done, tail = hashlib.sha256(), -1, 0, b""
    try:
        while (response := await stream.next(None)) is not None:
            blob = response.blob
            if total < 0:
                total = response.remaining_bytes + len(blob)
            of_file = blob[: max(total - done, 0)]
            digest.update(of_file)
            tail += blob[len(of_file) :]
            done += len(blob)
            yield blob, response.remaining_bytes
    finally:
        stream.cancel()
    if len(tail) != DIGEST_BYTES:
        raise BadDigest(f"sha256 checksum not found [bytes: {done}]")
    if tail != digest.digest():
        raise BadDigest(f"expected sha256 {tail.hex()}, got {digest.hexdigest()}")
