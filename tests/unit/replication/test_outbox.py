"""kvstore/replication/outbox.py: a write is answered once, whatever order batches come back in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore import errors
from kvstore.commands import decode_commands, decode_header
from kvstore.replication.outbox import Outbox


def make(**options: int) -> Outbox:
    return Outbox(origin=7, incarnation=2, timeout_s=5.0, **options)


def test_a_turns_writes_are_one_batch() -> None:
    outbox = make()
    outbox.add(1, b"a", lambda outcome: None)
    outbox.add(2, b"b", lambda outcome: None)
    (pending,) = outbox.seal(10.0)
    assert decode_header(pending.data) == (7, 2, 1, 2)
    assert list(decode_commands(pending.data)) == [(1, b"a"), (2, b"b")]
    assert pending.deadline == 15.0
    assert outbox.seal(10.0) == []


def test_a_large_turn_is_split() -> None:
    outbox = make(batch_bytes_max=100)
    for _ in range(5):
        outbox.add(1, b"x" * 60, lambda outcome: None)
    sealed = outbox.seal(0.0)
    assert [decode_header(each.data).command_count for each in sealed] == [1, 1, 1, 1, 1]
    assert [each.sequence for each in sealed] == [1, 2, 3, 4, 5]


def test_overtaken_batches_are_renumbered_above_everything_used() -> None:
    outbox = make()
    for payload in (b"1", b"2", b"3"):
        outbox.add(1, payload, lambda outcome: None)
        (pending,) = outbox.seal(0.0)
        pending.sent = True
    done, overtaken = outbox.applied(3)
    assert done is not None and done.sequence == 3
    assert [each.sequence for each in overtaken] == [4, 5]
    assert [decode_header(each.data).sequence for each in overtaken] == [4, 5]
    assert [list(decode_commands(each.data)) for each in overtaken] == [[(1, b"1")], [(1, b"2")]]
    assert not any(each.sent for each in overtaken)
    assert [each.sequence for each in outbox.pending()] == [4, 5]


def test_bounds_refuse_and_free() -> None:
    outbox = make(commands_max=2)
    outbox.add(1, b"", lambda outcome: None)
    outbox.add(1, b"", lambda outcome: None)
    with pytest.raises(errors.TooManyRequests):
        outbox.add(1, b"", lambda outcome: None)
    outbox.seal(0.0)
    outbox.applied(1)
    assert (outbox.commands_pending, outbox.bytes_pending) == (0, 0)
    outbox.add(1, b"", lambda outcome: None)


def test_overdue_takes_each_once() -> None:
    outbox = make()
    outbox.add(1, b"", lambda outcome: None)
    outbox.seal(0.0)
    assert outbox.overdue(4.9) == []
    assert len(outbox.overdue(5.0)) == 1
    assert outbox.overdue(9.0) == []
    assert outbox.applied(1) == (None, [])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_every_write_is_answered_at_most_once_and_applied_at_most_once(deliveries: list[int]) -> None:
    """A log that receives our batches in any order, with repeats, and the state machine's rule above it."""
    outbox, answered, applied = make(), dict[bytes, int](), dict[bytes, int]()
    last = 0
    for number in range(6):
        payload = bytes([number])
        outbox.add(1, payload, lambda outcome, p=payload: answered.update({p: answered.get(p, 0) + 1}))  # type: ignore[misc]
        outbox.seal(0.0)
    for choice in deliveries:
        waiting = list(outbox.pending())
        if not waiting:
            break
        batch = waiting[choice % len(waiting)].data
        header = decode_header(batch)
        if header.sequence <= last:
            continue
        last = header.sequence
        for _, payload in decode_commands(batch):
            applied[payload] = applied.get(payload, 0) + 1
        pending, _ = outbox.applied(header.sequence)
        assert pending is not None
        for done in pending.waiters:
            done((1, b""))
        assert all(each.sequence > last for each in outbox.pending())
    assert answered == applied
    assert set(applied.values()) <= {1}
