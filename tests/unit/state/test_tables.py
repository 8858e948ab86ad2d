"""Where leases' keys are stored."""

from __future__ import annotations

import hashlib

from kvstore.state.tables import attachment


def test_a_long_key_never_meets_a_short_one() -> None:
    long = b"k" * 600
    place, content = attachment(5, long)
    assert (len(place) <= 511, content) == (True, long)
    for kept in range(460, 480):
        short = long[:kept] + hashlib.sha256(long).digest()
        if len(short) <= 500:
            assert attachment(5, short) == (place[:8] + short, b"")
            assert attachment(5, short)[0] != place


def test_negative_ids_are_kept_apart() -> None:
    assert attachment(-1, b"k")[0] == b"\xff" * 8 + b"k"
