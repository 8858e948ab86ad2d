"""When a member raises its NOSPACE alarm, and when it takes it back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from kvstore.commands import Kind
from kvstore.errors import NoLeader
from kvstore.pb.etcdserverpb_pb2 import AlarmMember, AlarmRequest, AlarmType
from kvstore.pb.internal_pb2 import AuthorizedCommand
from kvstore.replication.driver import Driver
from kvstore.replication.outbox import Done
from kvstore.replication.space_alarm import SpaceAlarm
from kvstore.state.machine import StateMachine
from kvstore.state.space import Space

OWN = 5


class Member:
    """The parts an alarm looks at, with a log that is applied when told to."""

    def __init__(self, *, auto_disarm: bool = True) -> None:
        self.used = 0
        self.now = 100.0
        self.proposed: list[tuple[AlarmRequest, Done]] = []
        self.driver = SimpleNamespace(member_id=OWN, is_leader=False, propose=self._propose)
        self.machine = SimpleNamespace(
            space=Space(1000, 10**9), alarms=[], members={OWN: None, 6: None}, measure_space=self._measure
        )
        self.alarm = SpaceAlarm(
            cast(Driver, self.driver), cast(StateMachine, self.machine), auto_disarm=auto_disarm
        )

    def _measure(self) -> None:
        self.machine.space.measured(self.used)

    def _propose(self, kind: int, payload: bytes, done: Done) -> None:
        assert kind == Kind.AUTHORIZED
        command = AuthorizedCommand.FromString(payload)
        assert command.member and command.kind == Kind.ALARM
        self.proposed.append((AlarmRequest.FromString(command.payload), done))

    def tick(self, times: int = 1) -> list[AlarmRequest]:
        for _ in range(times):
            self.now += 0.1
            self.alarm.tick(self.now)
        return [request for request, _ in self.proposed]

    def apply(self) -> None:
        for request, done in self.proposed:
            told = AlarmMember(memberID=request.memberID, alarm=request.alarm)
            if request.action == AlarmRequest.ACTIVATE:
                self.machine.alarms.append(told)
            else:
                self.machine.alarms.remove(told)
            done((1, b""))
        self.proposed = []


def test_it_is_raised_once_and_again_only_after_a_failure() -> None:
    member = Member()
    assert member.tick(5) == []
    member.used = 1000
    (asked,) = member.tick(5)
    assert (asked.action, asked.memberID, asked.alarm) == (AlarmRequest.ACTIVATE, OWN, AlarmType.NOSPACE)
    member.proposed.pop()[1](NoLeader())
    assert len(member.tick(5)) == 1
    member.apply()
    assert member.tick(5) == []


def test_it_goes_when_there_has_been_space_for_a_second() -> None:
    member = Member()
    member.used = 1000
    member.tick()
    member.apply()
    member.used = 899
    assert member.tick(8) == []
    member.used = 901  # just above again
    assert member.tick(30) == []
    member.used = 899
    assert member.tick(8) == []
    (asked,) = member.tick(5)
    assert (asked.action, asked.memberID) == (AlarmRequest.DEACTIVATE, OWN)
    member.apply()
    assert member.tick(30) == []


def test_it_stays_where_it_is_to_be_disarmed_by_hand() -> None:
    member = Member(auto_disarm=False)
    member.used = 1000
    member.tick()
    member.apply()
    member.used = 0
    assert member.tick(50) == []


def test_others_alarms_are_theirs_unless_they_are_gone() -> None:
    member = Member()
    alarms: list[Any] = [AlarmMember(memberID=node, alarm=AlarmType.NOSPACE) for node in (6, 7)]
    member.machine.alarms = alarms
    assert member.tick(30) == []
    member.driver.is_leader = True
    assert [request.memberID for request in member.tick(5)] == [7]
    member.apply()
    assert member.tick(5) == []
