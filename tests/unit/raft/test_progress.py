"""raft/progress.py: match only grows, and a stale answer moves nothing."""

from raft.progress import Progress, ProgressState


def replicating(match: int, next_index: int) -> Progress:
    progress = Progress(match + 1)
    progress.accepted(match)
    progress.become_replicate()
    progress.sent(next_index - 1, 10)
    return progress


def test_an_old_answer_does_not_move_match_back() -> None:
    """Catalogue 13."""
    progress = replicating(5, 9)
    assert progress.accepted(8)
    assert not progress.accepted(6)
    assert (progress.match, progress.next) == (8, 9)


def test_a_stale_rejection_is_ignored_and_a_real_one_probes() -> None:
    progress = replicating(5, 9)
    assert not progress.rejected(4, 0)
    assert progress.rejected(8, 5)
    assert (progress.state, progress.next) == (ProgressState.PROBE, 6)


def test_probing_goes_back_no_further_than_match() -> None:
    progress = Progress(20)
    progress.accepted(3)
    progress.next = 20
    assert progress.rejected(19, 0)
    assert progress.next == 4
    assert not progress.rejected(19, 0)


def test_the_window_fills_by_count_and_bytes_and_drains_by_answers() -> None:
    progress = Progress(1)
    progress.become_replicate()
    for index in range(1, 5):
        progress.sent(index, 100)
    assert progress.is_paused(messages_max=4, bytes_max=1000)
    assert progress.is_paused(messages_max=9, bytes_max=400)
    progress.accepted(2)
    assert not progress.is_paused(messages_max=4, bytes_max=400)
    assert progress.inflight_bytes == 200


def test_a_snapshot_pauses_and_is_followed_by_a_probe_behind_it() -> None:
    progress = Progress(1)
    progress.become_snapshot(50)
    assert progress.is_paused(messages_max=9, bytes_max=9)
    progress.become_probe()
    assert progress.next == 51
