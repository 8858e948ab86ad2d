"""kvstore/commands.py: an entry's batch survives the round trip, and damage never passes for one."""

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from kvstore.commands import (
    BATCH,
    EXPIRED_GRANTS_LEVEL,
    LEVEL,
    NEEDS_LEVEL,
    TAKE_OVER_LEVEL,
    Kind,
    MalformedBatch,
    decode_commands,
    decode_header,
    encode_batch,
)
from kvstore.pb import internal_pb2 as internal
from kvstore.pb import quota_pb2 as quota

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


# What is in the log, by the level of commands with which it came. 0: from before there were levels.
KINDS = {
    0: "PUT DELETE_RANGE TXN COMPACT LEASE_GRANT LEASE_REVOKE LEASE_EXPIRE MEMBER_PUBLISH ALARM MEMBER_UPDATE"
    " AUTHORIZED TOKEN_GRANT AUTH_ENABLE AUTH_DISABLE USER_ADD USER_DELETE USER_CHANGE_PASSWORD USER_GRANT_ROLE "
    "USER_REVOKE_ROLE ROLE_ADD ROLE_DELETE ROLE_GRANT_PERMISSION ROLE_REVOKE_PERMISSION ANNOUNCE ANNOUNCE_END",
    1: "LEASE_CHECKPOINT QUOTA_SET QUOTA_REMOVE",
}
FIELDS: dict[int, dict[type[Message], str]] = {
    0: {
        internal.LeaseExpire: "leader term IDs sessions",  # sessions came with Announce, which alone makes any
        internal.MemberRecord: "member data_id promote replaces",
        internal.ConfigContext: "added",
        internal.AuthorizedCommand: "user revision member kind payload",
        internal.TokenGrant: "user revision letters",
        internal.Announce: "lease_id ttl_ms session key value",
        internal.AnnounceEnd: "lease_id session grace_ms",
    },
    1: {
        internal.MemberRecord: "level",  # by which levels are told: an older member reads over it
        internal.Announce: "take_over",
        internal.LeaseCheckpoint: "term IDs remaining_ms grant_indexes",
        quota.QuotaSetRequest: "prefix bytes_max keys_max qps_max",
        quota.QuotaRemoveRequest: "prefix",
    },
    2: {internal.LeaseExpire: "grant_indexes"},
}


def test_what_came_with_a_level_waits_for_it() -> None:
    """A kind that is new here needs a level above those before, and so does a field that changes an effect: a member
    without it would apply the entry otherwise than the rest. Raise LEVEL, ask for it where it is proposed, and only
    then write it down here."""
    levels = {Kind[name]: level for level, names in KINDS.items() for name in names.split()}
    assert levels == {kind: NEEDS_LEVEL.get(kind, 0) for kind in Kind}
    assert max(*KINDS, *FIELDS) == LEVEL
    assert "take_over" in FIELDS[TAKE_OVER_LEVEL][internal.Announce]
    assert "grant_indexes" in FIELDS[EXPIRED_GRANTS_LEVEL][internal.LeaseExpire]
    known: dict[str, set[str]] = {}
    for messages in FIELDS.values():
        for message, names in messages.items():
            known.setdefault(message.DESCRIPTOR.full_name, set()).update(names.split())
    kinds = {message for each in FIELDS.values() for message in each}
    assert known == {
        message.DESCRIPTOR.full_name: {field.name for field in message.DESCRIPTOR.fields} for message in kinds
    }
