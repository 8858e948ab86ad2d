"""etcdserverpb.Maintenance: what of it needs no member."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.api.maintenance import MaintenanceService, is_learner
from kvstore.config import load
from kvstore.pb.etcdserverpb_pb2 import MoveLeaderRequest
from kvstore.rpc import Status
from raft import ConfState
from raft.membership import NOWHERE
from tests.unit.api.door import Call


def test_who_has_no_vote_is_a_learner() -> None:
    conf = ConfState(voters=(1, 2), voters_outgoing=(3,), learners=(4,), learners_next=(3,))
    assert [is_learner(conf, each) for each in (1, 2, 3, 4)] == [False, False, False, True]
    assert is_learner(NOWHERE, 5)  # added, and the log has not come yet


class Leader:
    """The service on member 1, which leads voters 1 to 3 and learner 4."""

    def __init__(self) -> None:
        self.now = 0.0
        self.later: list[Callable[[], None]] = []
        self.handed_to: list[int] = []
        self.driver = SimpleNamespace(
            is_leader=True,
            leader_id=1,
            member_id=1,
            node=SimpleNamespace(conf=ConfState((1, 2, 3), learners=(4,))),
            transfer_leadership=self.handed_to.append,
        )
        context: Any = SimpleNamespace(
            config=load([], {}),
            driver=self.driver,
            now=lambda: self.now,
            call_later=lambda delay_s, call: self.later.append(call),
            has_leader=lambda call: True,
        )
        self.service = MaintenanceService(context)

    def move(self, target: int) -> Call:
        call = Call({})
        self.service.move_leader(call, MoveLeaderRequest(targetID=target).SerializeToString())
        return call

    def look(self) -> None:
        later, self.later = self.later, []
        for call in later:
            call()


@pytest.fixture
def leader() -> Leader:
    return Leader()


def test_leadership_is_moved_when_the_other_leads(leader: Leader) -> None:
    call = leader.move(2)
    leader.look()
    assert leader.handed_to == [2] and call.ended is None
    leader.driver.leader_id = 2
    leader.look()
    assert call.ended == (0, "") and not leader.later


def test_it_is_there_already(leader: Leader) -> None:
    assert leader.move(1).ended == (0, "")
    assert not leader.handed_to


@pytest.mark.parametrize("target", [4, 5])
def test_a_learner_and_a_stranger_cannot_lead(leader: Leader, target: int) -> None:
    assert leader.move(target).ended == (Status.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
    assert not leader.handed_to


def test_who_does_not_lead_has_nothing_to_hand_over(leader: Leader) -> None:
    leader.driver.is_leader = False
    assert leader.move(2).ended == (Status.FAILED_PRECONDITION, "etcdserver: not leader")


def test_it_is_given_up_after_an_election_timeout(leader: Leader) -> None:
    call = leader.move(2)
    leader.now = 1.0
    leader.look()
    text = "etcdserver: request timed out, leader transfer took too long"
    assert call.ended == (Status.UNAVAILABLE, text)
