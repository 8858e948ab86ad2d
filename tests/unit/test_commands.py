"""kvstore/commands.py: an entry's batch survives the round trip, and damage never passes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.commands import BATCH, MalformedBatch, decode_commands, decode_header, encode_batch

COMMANDS = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=20)


@given(COMMANDS, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_round_trip(commands: list[tuple[int, bytes]], origin: int, incarnation: int, sequence: int) -> None:
    data = encode_batch(commands, origin=origin, incarnation=incarnation, sequence=sequence)
    assert decode_header(data) == (origin, incarnation, sequence, len(commands))
    assert list(decode_commands(data)) == commands


@given(COMMANDS.filter(bool), st.data())
def test_a_cut_batch_is_malformed(commands: list[tuple[int, bytes]], data: st.DataObject) -> None:
    whole = encode_batch(commands, origin=1, incarnation=1, sequence=1)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(MalformedBatch):
        list(decode_commands(whole[:cut]))


def test_bytes_after_the_last_command_are_malformed() -> None:
    whole = encode_batch([(1, b"x")], origin=1, incarnation=1, sequence=1)
    with pytest.raises(MalformedBatch, match="1 bytes follow"):
        list(decode_commands(whole + b"\0"))


def test_the_header_layout_is_fixed() -> None:
    """Logs on disk hold it: a change of these bytes is a change of format."""
    data = encode_batch([(1, b"ab")], origin=2, incarnation=3, sequence=4)
    assert data.hex() == "0000000000000002000000000000000300000000000000040000000101000000026162"
    assert BATCH.size == 28
