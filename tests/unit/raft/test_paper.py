"""One test for each claim of the thesis that the core rests on, by section; and the bugs others have had."""

from __future__ import annotations

import pytest

from raft import (
    AppendEntries,
    AppendResponse,
    CommitNotice,
    Entry,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    PreVoteResponse,
    ProposalDropped,
    ReadIndexRequest,
    ReadIndexResponse,
    Role,
    SnapshotMeta,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.unit.raft.stage import Stage


def test_3_4_a_candidate_votes_for_itself_and_that_vote_waits_for_the_disk() -> None:
    """Counting it earlier could give it away twice after a crash."""
    stage = Stage(3)
    stage.hold(1)
    stage.step(1, "campaign")
    stage.deliver()
    stage.step(1, "step", VoteResponse(2, 1, stage.nodes[1].term, True))
    assert stage.nodes[1].raft.role == Role.CANDIDATE
    stage.release(1)
    assert stage.nodes[1].is_leader


def test_3_4_one_vote_a_term_first_come_first_served_over_a_restart() -> None:
    stage = Stage(3)
    stage.step(3, "step", VoteRequest(1, 3, 5, 0, 0))
    stage.crash(3)
    stage.start(3)
    stage.step(3, "step", VoteRequest(2, 3, 5, 0, 0))
    votes = [m for m in stage.network if isinstance(m, VoteResponse)]
    assert [(m.to, m.granted) for m in votes] == [(2, False)]
    assert stage.hard_states[3] == HardState(5, 1, 0)


def test_3_4_a_lone_voter_elects_itself() -> None:
    stage = Stage(1)
    stage.elect(1)
    stage.propose(1, "a")
    assert [entry.data for entry in stage.applied[1]] == [b"", b"a"]


def test_3_5_entries_with_a_gap_or_falling_terms_are_not_taken() -> None:
    stage = Stage(3)
    for bad in ([Entry(2, 1, b"")], [Entry(1, 2, b""), Entry(2, 1, b"")], [Entry(1, 9, b"")]):
        stage.step(2, "step", AppendEntries(1, 2, 2, 0, 0, bad, 0))
    assert stage.nodes[2].last_index == 0


def test_3_5_a_follower_commits_no_further_than_the_message_proves() -> None:
    """Catalogue 12."""
    stage = Stage(3)
    stage.step(2, "step", AppendEntries(1, 2, 1, 0, 0, [Entry(1, 1, b"a"), Entry(2, 1, b"b")], 0))
    stage.step(2, "step", AppendEntries(3, 2, 2, 1, 1, [], 2))
    assert stage.nodes[2].commit == 1


def test_3_6_1_a_shorter_log_gets_no_vote() -> None:
    stage = Stage(3)
    stage.step(2, "step", AppendEntries(1, 2, 1, 0, 0, [Entry(1, 1, b"a")], 0))
    stage.network.clear()
    for request in (VoteRequest(3, 2, 5, 0, 0), VoteRequest(3, 2, 6, 9, 0)):
        stage.nodes[2].raft.leader_id = 0
        stage.step(2, "step", request)
    assert [m.granted for m in stage.network if isinstance(m, VoteResponse)] == [False, False]


def test_3_6_2_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    """Figure 3.7. The stage gives n1 an entry of term 1, then makes it leader of term 2 without its no-op."""
    stage = Stage(3, pre_vote=False, check_quorum=False)
    stage.elect(1)
    stage.isolated = {2, 3}
    stage.propose(1, "old")
    stage.deliver()
    stage.crash(1)
    stage.start(1)
    stage.isolated = set()
    stage.step(1, "campaign")
    stage.deliver(rounds=2)
    raft = stage.nodes[1].raft
    assert raft.role == Role.LEADER and raft.term == 2
    committed = raft.log.committed
    stage.network.clear()
    for node in (2, 3):
        stage.step(1, "step", AppendResponse(node, 1, 2, 2))
    assert raft.log.committed == committed < 2
    for node in (2, 3):
        stage.step(1, "step", AppendResponse(node, 1, 2, 3))
    assert raft.log.committed == 3


def test_3_8_the_leader_counts_itself_only_when_its_disk_has_the_entry() -> None:
    stage = Stage(3)
    stage.elect(1)
    stage.hold(1)
    stage.isolated = {3}
    stage.propose(1, "a")
    stage.network.clear()
    assert stage.nodes[1].commit == 1
    stage.step(1, "step", AppendResponse(2, 1, 1, 2))
    assert stage.nodes[1].commit == 1
    stage.release(1)
    assert stage.nodes[1].commit == 2


def test_3_8_a_follower_acknowledges_only_what_its_disk_has() -> None:
    stage = Stage(3)
    stage.elect(1)
    stage.hold(2)
    stage.propose(1, "a")
    stage.deliver()
    assert stage.nodes[1].raft.progress[2].match == 1
    stage.release(2)
    stage.deliver()
    assert stage.nodes[1].raft.progress[2].match == 2


def test_3_10_handing_over_needs_a_complete_log_and_no_pre_vote() -> None:
    stage = Stage(3)
    stage.elect(1)
    stage.isolated = {3}
    stage.propose(1, "a")
    stage.deliver()
    stage.isolated = set()
    stage.step(1, "transfer_leadership", 3)
    assert not any(isinstance(m, TimeoutNow) for m in stage.network)
    with pytest.raises(ProposalDropped, match="handed over"):
        stage.nodes[1].propose([b"b"])
    stage.step(1, "tick")
    stage.deliver()
    stage.step(1, "tick")
    stage.deliver()
    assert stage.nodes[3].is_leader


def test_6_4_a_read_waits_for_a_round_that_began_after_it() -> None:
    """Catalogue 23: an answer to an older heartbeat confirms nothing newer."""
    stage = Stage(3)
    stage.elect(1)
    raft = stage.nodes[1].raft
    stage.step(1, "read_index", 70)
    first = next(m.context for m in stage.network if isinstance(m, Heartbeat))
    stage.network.clear()
    stage.step(1, "read_index", 71)
    second = next(m.context for m in stage.network if isinstance(m, Heartbeat))
    assert first != second
    stage.step(1, "step", HeartbeatResponse(2, 1, raft.term, first))
    assert stage.take_lines()[-1] == "n1 may read 70 at 1"
    stage.step(1, "step", HeartbeatResponse(3, 1, raft.term, first))
    assert stage.take_lines() == []
    stage.step(1, "step", HeartbeatResponse(3, 1, raft.term, second))
    assert stage.take_lines() == ["n1 may read 71 at 1"]


def test_6_4_a_new_leader_reads_nothing_before_its_own_commit() -> None:
    """Catalogue 22."""
    stage = Stage(3)
    stage.step(1, "campaign")
    stage.deliver(rounds=4)
    assert stage.nodes[1].is_leader and stage.nodes[1].commit == 0
    stage.step(1, "read_index", 70)
    assert not any(isinstance(m, Heartbeat) for m in stage.network)
    stage.deliver()
    assert "n1 may read 70 at 1" in stage.take_lines()


def test_6_4_reads_die_with_the_leadership() -> None:
    stage = Stage(3)
    stage.elect(1)
    stage.isolated = {1}
    stage.step(1, "read_index", 70)
    stage.network.clear()
    stage.step(1, "step", Heartbeat(2, 1, 9, 0))
    assert "n1 cannot read 70" in stage.take_lines()


def test_9_6_asking_first_changes_no_term_and_needs_no_log_entry() -> None:
    stage = Stage(3)
    stage.isolated = {1}
    for _ in range(100):
        stage.step(1, "tick")
    assert stage.nodes[1].term == 0
    assert stage.hard_states[1] == HardState()


def test_9_6_an_answer_to_an_older_question_is_not_counted() -> None:
    """Catalogue 9."""
    stage = Stage(3)
    stage.step(1, "step", Heartbeat(2, 1, 4, 0))
    for _ in range(40):
        stage.step(1, "tick")
    roles = []
    for term in (4, 5):
        stage.step(1, "step", PreVoteResponse(2, 1, term, True))
        roles.append(stage.nodes[1].raft.role)
    assert roles == [Role.PRE_CANDIDATE, Role.CANDIDATE]


def test_a_node_with_a_higher_term_is_not_ignored_for_ever() -> None:
    """Catalogue 5: the leader learns of the term from the answer to its heartbeat."""
    stage = Stage(3)
    stage.elect(1)
    stage.nodes[3].raft.become_follower(7, 0)
    stage.pump(3)
    for _ in range(60):
        for node in (1, 2, 3):
            stage.step(node, "tick")
        stage.deliver()
    leaders = [node for node, raw in stage.nodes.items() if raw.is_leader]
    assert len(leaders) == 1
    assert {raw.term for raw in stage.nodes.values()} == {stage.nodes[leaders[0]].term}
    assert stage.nodes[leaders[0]].term >= 7


def test_too_much_uncommitted_is_refused() -> None:
    """Catalogue 20."""
    stage = Stage(3)
    stage.elect(1)
    stage.isolated = {2, 3}
    raw = stage.nodes[1]
    raw.propose([b"x" * (200 << 20)])
    with pytest.raises(ProposalDropped, match="too much"):
        raw.propose([b"x" * (100 << 20)])


@pytest.mark.parametrize(
    "message",
    [
        Heartbeat(2, 2, 9, 9),
        AppendResponse(9, 1, 1, 5),
        AppendResponse(2, 1, 1, 10**9),
        AppendResponse(2, 1, 1, 10**9, True, 10**9, 10**9),
        CommitNotice(2, 1, 1, 10**9),
        HeartbeatResponse(2, 1, 1, 10**9),
        InstallSnapshot(2, 1, 1, SnapshotMeta(10**9, 1, Stage(3).conf)),
        ReadIndexRequest(9, 1, 1, 1),
        ReadIndexResponse(2, 1, 1, 1, 10**9, True),
        TimeoutNow(9, 1, 1),
        VoteResponse(9, 1, 1, True),
        PreVoteResponse(9, 1, 2, True),
        AppendEntries(2, 1, 1, -5, -5, [], 0),
        Heartbeat(1, 1, 99, 1),
        Heartbeat(-3, 1, 99, 1),
    ],
    ids=lambda message: f"{type(message).__name__}-{message.sender}",
)
def test_a_leader_takes_any_message_without_harm(message: object) -> None:
    """Catalogue 10: what a peer sends is validated, never asserted."""
    stage = Stage(3)
    stage.elect(1)
    stage.step(1, "step", message)
    raft = stage.nodes[1].raft
    assert raft.role == Role.LEADER and raft.term == 1
    stage.propose(1, "a")
    stage.deliver()
    assert raft.log.committed == 2
