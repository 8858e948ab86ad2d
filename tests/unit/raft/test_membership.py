"""raft/membership.py: what follows what, and what does not."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft import Change, ChangeKind, ConfState, InvalidChange
from raft.membership import MalformedConfig, changed, decode, encode, left, overlap
from raft.quorum import has_quorum, members_of

ADD, LEARN, REMOVE = ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER, ChangeKind.REMOVE
THREE = ConfState((1, 2, 3), learners=(7,))

changes = st.lists(
    st.builds(Change, st.sampled_from(ChangeKind), st.integers(1, 6)),
    min_size=1,
    max_size=4,
    unique_by=lambda c: c.node,
)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([Change(ADD, 4)], ConfState((1, 2, 3, 4), learners=(7,))),
        ([Change(ADD, 7)], ConfState((1, 2, 3, 7))),
        ([Change(REMOVE, 3)], ConfState((1, 2), learners=(7,))),
        ([Change(LEARN, 3)], ConfState((1, 2), learners=(3, 7))),
        ([Change(LEARN, 8), Change(REMOVE, 7)], ConfState((1, 2, 3), learners=(8,))),
        ([Change(REMOVE, 9)], THREE),
        (
            [Change(ADD, 4), Change(LEARN, 1)],
            ConfState((2, 3, 4), (1, 2, 3), learners=(7,), learners_next=(1,), auto_leave=True),
        ),
    ],
)
def test_what_follows(asked: list[Change], expected: ConfState) -> None:
    assert changed(THREE, asked) == expected


def test_leaving_a_joint_configuration() -> None:
    joint = changed(THREE, [Change(ADD, 4), Change(LEARN, 1)])
    assert left(joint) == ConfState((2, 3, 4), learners=(1, 7))
    with pytest.raises(InvalidChange, match="has to be left first"):
        changed(joint, [Change(ADD, 5)])


@pytest.mark.parametrize(
    "asked",
    [[], [Change(ADD, 4), Change(REMOVE, 4)], [Change(ADD, 0)], [Change(REMOVE, node) for node in (1, 2, 3)]],
)
def test_what_cannot_follow(asked: list[Change]) -> None:
    with pytest.raises(InvalidChange):
        changed(THREE, asked)


@given(st.sets(st.integers(1, 6), min_size=1, max_size=5), changes)
def test_every_majority_of_one_meets_every_majority_of_the_next(
    voters: set[int], asked: list[Change]
) -> None:
    old = ConfState(tuple(sorted(voters)))
    try:
        new = changed(old, asked)
    except InvalidChange:
        return
    row = [old, new, left(new)] if new.voters_outgoing else [old, new]
    for before, after in pairwise(row):
        assert overlap(before, after)
        nodes = sorted({*members_of(before), *members_of(after)})
        sides = [set(each) for size in range(len(nodes) + 1) for each in combinations(nodes, size)]
        for side in sides:
            assert not (has_quorum(before, side) and has_quorum(after, set(nodes) - side)), (
                before,
                after,
                side,
            )


def test_configurations_without_overlap_are_called_so() -> None:
    assert not overlap(ConfState((1, 2, 3)), ConfState((1, 4, 5)))
    assert not overlap(ConfState((1, 2, 3), (3, 4, 5)), ConfState((3, 4, 5)))
    assert not overlap(ConfState((1, 2, 3)), ConfState((4, 5), (1, 2)))


@given(st.sets(st.integers(1, (1 << 64) - 1), min_size=1, max_size=9), st.binary(max_size=30), st.booleans())
def test_encoded_and_back(voters: set[int], context: bytes, auto: bool) -> None:
    conf = ConfState(tuple(sorted(voters)), (1, 2), (3,), (), auto)
    assert decode(encode(conf, context)) == (conf, context)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_configuration_or_refused(data: bytes) -> None:
    try:
        conf, context = decode(data)
    except MalformedConfig:
        return
    assert encode(conf, context)[1:] == data[1:]


def test_what_is_no_configuration() -> None:
    good = encode(THREE)
    for data in (b"", good[:-1], good.replace(b"\0\x02", b"\0\x09", 1), encode(ConfState((2, 1)))):
        with pytest.raises(MalformedConfig):
            decode(data)
