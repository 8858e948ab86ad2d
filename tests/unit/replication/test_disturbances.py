"""Why a write may have timed out."""

from __future__ import annotations

import pytest

from kvstore import errors
from kvstore.replication.disturbances import Disturbances

VOTERS = (1, 2, 3)


@pytest.fixture
def met() -> Disturbances:
    return Disturbances()


def why(met: Disturbances, *, leader_id: int, since: float = 10.0) -> type[errors.RequestTimeout]:
    return type(met.timeout(since, self_id=1, leader_id=leader_id, voters=VOTERS))


def test_nothing_is_known_to_have_happened(met: Disturbances) -> None:
    met.leader_changed(9.0)
    met.connection_broke(2, 9.0)
    met.connection_broke(3, 9.0)
    assert why(met, leader_id=1) == why(met, leader_id=2) == why(met, leader_id=0) == errors.RequestTimeout


def test_a_follower_lost_its_leader(met: Disturbances) -> None:
    met.connection_broke(3, 10.0)
    assert why(met, leader_id=2) is errors.RequestTimeout
    met.connection_broke(2, 10.0)
    assert why(met, leader_id=2) is errors.ConnectionLost


def test_a_leader_lost_its_majority(met: Disturbances) -> None:
    met.connection_broke(2, 11.0)
    assert why(met, leader_id=1) is errors.RequestTimeout
    met.connection_broke(3, 12.0)
    assert why(met, leader_id=1) is errors.ConnectionLost
    assert why(met, leader_id=1, since=11.5) is errors.RequestTimeout


def test_another_leader_comes_first(met: Disturbances) -> None:
    met.connection_broke(2, 11.0)
    met.leader_changed(12.0)
    assert why(met, leader_id=2) is errors.LeaderLost
