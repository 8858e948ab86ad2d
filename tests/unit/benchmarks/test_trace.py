"""Members' traces put together: the follower that counts, and what is left out."""

from __future__ import annotations

import pytest

from benchmarks import trace
from benchmarks.trace import Member, read, took, ways

LEADER = """member a1
append 5 6 110
send 5 6 120
ack b2 4 90
ack c3 6 180
ack b2 6 200
sync 5 6 190
commit 5 6 210
put 5 40 100 105 220 230
put 6 41 101 106 225 230
put 0 0 1 2 3 4
"""
FAST = "member c3\nreceive 5 6 130\nsync 5 6 160\nreply 6 170\nwatch 40 240\n"
SLOW = "member b2\nreceive 5 6 135\nsync 5 6 175\nreply 4 80\nreply 6 195\nwatch 40 235\n"


def members(*texts: str) -> list[Member]:
    return [read(text.splitlines(keepends=True)) for text in texts]


def test_a_put_goes_by_the_follower_that_acknowledged_first() -> None:
    first, second = ways(members(LEADER, SLOW, FAST))
    assert [first[stage] for stage in trace.STAGES] == [100, 105, 110, 120, 130, 160, 170, 180, 210, 220, 230]
    assert (first["synced"], first["watched"]) == (190, 235)
    assert second["in"] == 101
    assert "watched" not in second
    assert took([first, second], "acked", "committed") == [0.03, 0.03]
    assert took([first, second], "applied", "watched") == [0.015]


def test_hops_add_up_to_the_whole() -> None:
    (way, _) = ways(members(LEADER, FAST))
    assert sum(took([way], *hop)[0] for hop in trace.HOPS) == pytest.approx(took([way], *trace.WHOLE)[0])


def test_only_puts_of_the_time_asked_for() -> None:
    assert [way["in"] for way in ways(members(LEADER, FAST), since=101, until=150)] == [101]


def test_a_put_whose_way_was_not_seen_whole_is_left_out() -> None:
    assert ways(members(LEADER)) == []
    assert ways(members(FAST, SLOW)) == []


def test_a_last_line_that_was_cut_off_is_not_read() -> None:
    assert read(["member a1\n", "commit 5 6 2"]).at == {}


def test_a_file_that_is_no_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="not a line of a trace"):
        read(["hello 1 2 3\n"])
