"""Literal times in, exact effects out."""

from random import Random

import pytest

from kvstore.readiness.health import BecameReady, BecameUnready, Health, Phase, Policy


def test_the_first_success_announces_at_once() -> None:
    health = Health(Policy(), now=10.0)
    assert health.next_probe_at == 10.0
    assert health.probed(False, 10.0, "refused") == []
    assert health.probed(True, 10.5) == [BecameReady(0.5)]
    assert health.phase is Phase.READY
    assert health.next_probe_at == 10.7


def test_probes_while_starting_begin_close_together_and_spread_to_a_ceiling() -> None:
    policy = Policy(first_interval_s=0.005, start_interval_s=0.02, growth=2.0)
    health = Health(policy, now=0.0)
    pauses = []
    for _ in range(5):
        health.probed(False, 1.0)
        assert health.next_probe_at is not None
        pauses.append(round(health.next_probe_at - 1.0, 6))
    assert pauses == [0.005, 0.01, 0.02, 0.02, 0.02]


def test_rise_counts_successes_in_a_row_without_waiting_long_between_them() -> None:
    health = Health(Policy(rise=3), now=0.0)
    assert health.probed(True, 0.0) == []
    assert health.next_probe_at == 0.005
    assert health.probed(False, 0.1) == []
    assert health.probed(True, 0.2) == []
    assert health.probed(True, 0.3) == []
    assert health.probed(True, 0.4) == [BecameReady(0.4)]


def test_fall_counts_failures_in_a_row() -> None:
    health = Health(Policy(fall=2, interval_s=0.2), now=0.0)
    health.probed(True, 0.0)
    assert health.probed(False, 1.0, "refused") == []
    assert health.probed(True, 1.2) == []
    assert health.probed(False, 1.4, "refused") == []
    assert health.probed(False, 1.6, "timed out") == [BecameUnready("check failed: timed out")]
    assert health.phase is Phase.FAILED
    assert health.probed(False, 1.8) == []
    assert health.probed(True, 2.0) == [BecameReady(0.3999999999999999)]


def test_the_end_withdraws_once_and_for_good() -> None:
    health = Health(Policy(), now=0.0)
    health.probed(True, 0.0)
    assert health.ended("the command exited with status 1", 1.0) == [
        BecameUnready("the command exited with status 1")
    ]
    assert health.next_probe_at is None
    assert health.ended("signal", 1.1) == []
    assert health.probed(True, 1.2) == []
    assert health.phase is Phase.STOPPED


def test_an_end_before_it_was_ready_withdraws_nothing() -> None:
    health = Health(Policy(), now=0.0)
    assert health.ended("signal", 0.1) == []
    assert health.phase is Phase.STOPPED


@pytest.mark.parametrize(
    "wrong",
    [{"rise": 0}, {"fall": 0}, {"interval_s": 0.0}, {"growth": 0.5}, {"jitter": 1.0}, {"hold_s": 0.0}],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|greater than 0|below 1"):
        Policy(**wrong)  # type: ignore[arg-type]


def flip(health: Health, at: float) -> float:
    """Ready at `at` and failed 0.1 s later; for how long it is held then."""
    assert health.probed(True, at) != []
    (effect,) = health.probed(False, at + 0.1)
    assert isinstance(effect, BecameUnready)
    assert health.next_probe_at is not None
    if effect.held_s:
        assert health.next_probe_at == pytest.approx(at + 0.1 + effect.held_s)
    return effect.held_s


def test_more_flips_than_are_borne_hold_it_longer_each_time() -> None:
    policy = Policy(fall=1, flips=2, flip_window_s=10.0, hold_s=1.0, hold_longest_s=3.0)
    health = Health(policy, now=0.0)
    held = [flip(health, at) for at in (1.0, 2.0, 3.0, 5.0, 8.0, 12.0)]
    assert held == [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]
    assert flip(health, 100.0) == 3.0  # it was away, not ready, for a long time


def test_flips_that_are_far_apart_are_borne_and_a_whole_window_of_being_ready_is_a_new_start() -> None:
    policy = Policy(fall=1, flips=1, flip_window_s=10.0, hold_s=1.0)
    health = Health(policy, now=0.0)
    assert [flip(health, at) for at in (0.0, 20.0, 40.0)] == [0.0, 0.0, 0.0]
    assert flip(health, 41.0) == 1.0
    health.probed(True, 50.0)
    (effect,) = health.probed(False, 61.0)
    assert effect == BecameUnready("check failed: ", 0.0)


def test_any_number_of_flips_is_borne_where_none_are_counted() -> None:
    health = Health(Policy(fall=1, flips=0), now=0.0)
    assert [flip(health, at) for at in range(1, 50)] == [0.0] * 49


def test_the_jitter_spreads_the_interval_about_itself_and_leaves_the_start_alone() -> None:
    health = Health(Policy(interval_s=1.0, jitter=0.1), 0.0, Random(1))
    health.probed(False, 0.0)
    assert health.next_probe_at == 0.005
    pauses = []
    for _ in range(200):
        health.probed(True, 5.0)
        assert health.next_probe_at is not None
        pauses.append(health.next_probe_at - 5.0)
    assert 0.9 <= min(pauses) < 0.92
    assert 1.08 < max(pauses) <= 1.1
