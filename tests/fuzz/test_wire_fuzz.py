"""Any bytes at all into a connection: it answers, or ends with a declared fault; it never breaks or grows."""

from __future__ import annotations

from random import Random

import pytest

from kvstore.wire import frames as h2
from kvstore.wire.frames import ConnectionFault
from kvstore.wire.limits import Limits
from tests.unit.wire.peer import CHAT, ECHO, HOLD, Peer, framed

SMALL = Limits(partial_bytes=1 << 20, queued_bytes=1 << 20)


def conversation(random: Random) -> bytes:
    """A valid one, of several calls."""
    peer = Peer(SMALL, greet=False)
    parts = [h2.PREFACE, h2.frame(h2.SETTINGS, 0, 0)]
    for number in range(1, random.randrange(4, 20), 2):
        path = random.choice((ECHO, HOLD, CHAT, "/no/such"))
        data = framed(random.randbytes(random.randrange(2000)))
        cut = random.randrange(len(data))
        parts += [
            h2.frame(h2.HEADERS, h2.END_HEADERS, number, peer.head(path, note=str(random.randrange(3)))),
            h2.frame(h2.DATA, 0, number, data[:cut]),
            h2.frame(h2.DATA, h2.END_STREAM, number, data[cut:]),
        ]
        if random.random() < 0.3:
            parts.append(h2.frame(h2.RST_STREAM, 0, number, h2.U32.pack(h2.CANCEL)))
        if random.random() < 0.3:
            parts.append(h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.U32.pack(random.randrange(1, 1 << 20))))
    return b"".join(parts)


def damaged(data: bytes, random: Random) -> bytes:
    """With some bytes changed, a piece missing, doubled or foreign."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(h2.PREFACE), len(changed))
        kind = random.randrange(4)
        if kind == 0:
            changed[at] = random.randrange(256)
        elif kind == 1:
            del changed[at : at + random.randrange(30)]
        elif kind == 2:
            changed[at:at] = changed[at : at + random.randrange(30)]
        else:
            changed[at:at] = h2.frame(
                random.randrange(12), random.randrange(256), random.randrange(9), random.randbytes(8)
            )
    return bytes(changed)


def fed(data: bytes, random: Random) -> Peer:
    peer = Peer(SMALL, greet=False)
    try:
        while data:
            size = random.randrange(1, 3000)
            peer.feed(data[:size])
            data = data[size:]
    except ConnectionFault as fault:
        peer.connection.fail(fault)
    peer.take()  # whole frames, and nothing but frames
    assert len(peer.connection._partial) < h2.MAX_FRAME_BYTES + h2.FRAME_BYTES
    peer.connection.lost()
    assert peer.connection.is_idle
    return peer


@pytest.mark.parametrize("seed", range(20))
def test_damaged_conversations(seed: int) -> None:
    random = Random(seed)
    for _ in range(60):
        fed(damaged(conversation(random), random), random)


@pytest.mark.parametrize("seed", range(10))
def test_arbitrary_bytes_behind_the_preface(seed: int) -> None:
    random = Random(seed)
    for _ in range(150):
        fed(h2.PREFACE + random.randbytes(random.randrange(400)), random)


def test_a_valid_conversation_is_the_same_however_it_is_cut() -> None:
    for seed in range(30):
        random = Random(seed)
        data = conversation(random)
        whole = Peer(SMALL, greet=False)
        whole.feed(data)
        expected = [frame for frame in whole.take() if frame.kind != h2.WINDOW_UPDATE]
        cut = fed(data, random)
        assert [frame for frame in cut.received if frame.kind != h2.WINDOW_UPDATE][1:] == expected
