"""Every message comes back as it was, and no bytes do harm."""

from __future__ import annotations

import random
import struct
import tracemalloc
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.replication import codec
from kvstore.replication.codec import (
    PeerProtocolError,
    decode_conf_state,
    decode_message,
    encode_conf_state,
    encode_message,
)
from raft import messages as m
from raft.types import ConfState, Entry, EntryKind, SnapshotMeta

SENDER, TO = 0xA1, 0xB2
u64 = st.integers(0, 2**64 - 1)
ids = st.lists(st.integers(1, 2**64 - 1), max_size=4).map(tuple)
confs = st.builds(ConfState, ids, ids, ids, ids, st.booleans())
who = st.just(SENDER), st.just(TO), u64


@st.composite
def appends(draw: st.DrawFn) -> m.AppendEntries:
    count = draw(st.integers(0, 5))
    prev_term, *terms, term = sorted(draw(st.lists(u64, min_size=count + 2, max_size=count + 2)))
    prev_index = draw(st.integers(0, 2**63))
    entries = [
        Entry(prev_index + 1 + at, each, draw(st.binary(max_size=100)), draw(st.sampled_from(EntryKind)))
        for at, each in enumerate(terms)
    ]
    return m.AppendEntries(SENDER, TO, term, prev_index, prev_term, entries, draw(u64))


any_message: st.SearchStrategy[m.Message] = st.one_of(
    st.builds(m.PreVoteRequest, *who, u64, u64),
    st.builds(m.PreVoteResponse, *who, st.booleans()),
    st.builds(m.VoteRequest, *who, u64, u64, st.booleans()),
    st.builds(m.VoteResponse, *who, st.booleans()),
    appends(),
    st.builds(m.AppendResponse, *who, u64, st.booleans(), u64, u64),
    st.builds(m.Heartbeat, *who, u64, u64),
    st.builds(m.HeartbeatResponse, *who, u64),
    st.builds(m.CommitNotice, *who, u64),
    st.builds(m.InstallSnapshot, *who, st.builds(SnapshotMeta, u64, u64, confs)),
    st.builds(m.ReadIndexRequest, *who, u64),
    st.builds(m.ReadIndexResponse, *who, u64, u64, st.booleans()),
    st.builds(m.TimeoutNow, *who),
)

KNOWN_FIELDS = {
    "PreVoteRequest": "sender to term last_index last_term",
    "PreVoteResponse": "sender to term granted",
    "VoteRequest": "sender to term last_index last_term force",
    "VoteResponse": "sender to term granted",
    "AppendEntries": "sender to term prev_index prev_term entries commit",
    "AppendResponse": "sender to term index reject hint_index hint_term",
    "Heartbeat": "sender to term commit context",
    "HeartbeatResponse": "sender to term context",
    "CommitNotice": "sender to term commit",
    "InstallSnapshot": "sender to term meta",
    "ReadIndexRequest": "sender to term context",
    "ReadIndexResponse": "sender to term context index ok",
    "TimeoutNow": "sender to term",
}


def encoded(message: m.Message) -> bytes:
    parts: list[bytes] = []
    size = encode_message(message, parts)
    data = b"".join(parts)
    assert len(data) == size
    return data


def test_every_field_of_every_message_is_known_to_the_codec() -> None:
    """A field added to a message and forgotten here would be lost between members."""
    found = {cls.__name__: " ".join(f.name for f in fields(cls)) for cls in m.Message.__args__}
    assert found == KNOWN_FIELDS


@given(any_message, st.binary(max_size=5))
@settings(max_examples=500)
def test_messages_come_back_as_they_were(message: m.Message, around: bytes) -> None:
    data = encoded(message)
    start, end = len(around), len(around) + len(data)
    assert decode_message(around + data + around, start, end, sender=SENDER, to=TO) == message


def test_the_layout_is_what_it_was() -> None:
    """Golden: a change is a new protocol number."""
    entry = Entry(8, 3, b"data", EntryKind.CONFIG)
    append = m.AppendEntries(SENDER, TO, 4, prev_index=7, prev_term=2, entries=[entry], commit=6)
    assert encoded(append).hex() == (
        "05" + "0000000000000004" + "0000000000000007" + "0000000000000002" + "0000000000000006" + "00000001"
        "0000000000000003" + "01" + "00000004" + "64617461"
    )
    assert encoded(m.Heartbeat(SENDER, TO, 4, 6, 5)).hex() == "07" + f"{4:016x}{6:016x}{5:016x}"
    assert codec.PROTOCOL == 1


def test_entry_data_is_not_copied_before_the_join() -> None:
    entry = Entry(1, 1, b"x" * 1000)
    parts: list[bytes] = []
    encode_message(m.AppendEntries(SENDER, TO, 1, 0, 0, [entry]), parts)
    assert any(part is entry.data for part in parts)


@given(st.binary(max_size=300))
@settings(max_examples=2000)
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        decode_message(data, 0, len(data), sender=SENDER, to=TO)
    except PeerProtocolError:
        return


@given(any_message, st.randoms(use_true_random=False))
@settings(max_examples=1000)
def test_damaged_messages_are_a_message_or_an_error(message: m.Message, rng: random.Random) -> None:
    data = bytearray(encoded(message))
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    try:
        decode_message(bytes(data), 0, len(data), sender=SENDER, to=TO)
    except PeerProtocolError:
        return


def test_a_huge_count_allocates_nothing() -> None:
    data = struct.pack(">BQQQQI", codec.APPEND_ENTRIES, 1, 0, 0, 0, 2**32 - 1) + bytes(100)
    tracemalloc.start()
    with pytest.raises(PeerProtocolError, match="4294967295 entries in 100 bytes"):
        decode_message(data, 0, len(data), sender=SENDER, to=TO)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("terms", "message_term"),
    [([3, 2], 5), ([6], 5), ([0], 5)],
    ids=["falling", "above the sender's", "below the previous"],
)
def test_entries_of_impossible_terms_are_refused(terms: list[int], message_term: int) -> None:
    entries = [Entry(8 + at, term, b"") for at, term in enumerate(terms)]
    with pytest.raises(PeerProtocolError, match="after term"):
        data = encoded(m.AppendEntries(SENDER, TO, message_term, 7, 1, entries))
        decode_message(data, 0, len(data), sender=SENDER, to=TO)


@given(confs)
def test_conf_states_come_back_as_they_were(conf: ConfState) -> None:
    assert decode_conf_state(encode_conf_state(conf)) == conf


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"voters":[0],"voters_outgoing":[],"learners":[],"learners_next":[],"auto_leave":false}',
        b'{"voters":[true],"voters_outgoing":[],"learners":[],"learners_next":[],"auto_leave":false}',
        b'{"voters":[1],"voters_outgoing":[],"learners":[],"learners_next":[],"auto_leave":0}',
        b'{"voters":[18446744073709551616],"voters_outgoing":[],"learners":[],"learners_next":[],"auto_leave":false}',
        b'{"voters":[' + b"9" * 5000 + b"]}",
    ],
)
def test_what_is_no_conf_state_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_conf_state(data)
