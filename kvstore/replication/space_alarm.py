"""Raises this member's NOSPACE alarm when its quota is reached, and takes it back when there is space again.

The alarm is replicated: while it is up, every member refuses writes that take space. etcd leaves it up until somebody
disarms it by hand, also when compaction or deletes have made room long ago (etcd 9992); with auto_disarm it goes when
less than nine tenths of the quota have been in use for a second. Each member answers for its own alarm, and the leader
for those of members that are gone.
"""

from __future__ import annotations

from kvstore import log
from kvstore.commands import Kind, own_command
from kvstore.pb.etcdserverpb_pb2 import AlarmRequest, AlarmType
from kvstore.replication.driver import Driver
from kvstore.replication.outbox import Outcome
from kvstore.state.machine import StateMachine

CALM_S = 1.0


class SpaceAlarm:
    def __init__(self, driver: Driver, machine: StateMachine, *, auto_disarm: bool) -> None:
        self._driver = driver
        self._machine = machine
        self._auto_disarm = auto_disarm
        self._calm_since: float | None = None
        self._asking = False

    def tick(self, now: float) -> None:
        machine, own = self._machine, self._driver.member_id
        machine.measure_space()
        space = machine.space
        is_full, is_calm = space.is_full, space.is_calm
        space.looked()
        if not is_calm:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        if self._asking:
            return
        raised = {alarm.memberID for alarm in machine.alarms if alarm.alarm == AlarmType.NOSPACE}
        if is_full and own not in raised:
            log.warn(
                "alarm raised",
                alarm="NOSPACE",
                used_bytes=space.used,
                quota_bytes=space.quota,
                member=f"{own:x}",
            )
            self._ask(AlarmRequest.ACTIVATE, own)
        elif self._auto_disarm and raised:
            if own in raised and self._calm_since is not None and now - self._calm_since >= CALM_S:
                log.warn("alarm disarmed", alarm="NOSPACE", used_bytes=space.used, quota_bytes=space.quota)
                self._ask(AlarmRequest.DEACTIVATE, own)
            elif self._driver.is_leader:
                for gone in sorted(raised - machine.members.keys() - {0})[:1]:
                    self._ask(AlarmRequest.DEACTIVATE, gone)

    def _ask(self, action: AlarmRequest.AlarmAction, member_id: int) -> None:
        """What fails is asked again by a later tick, if it is still wanted then."""
        self._asking = True
        request = AlarmRequest(action=action, memberID=member_id, alarm=AlarmType.NOSPACE)

        def done(outcome: Outcome) -> None:
            self._asking = False

        self._driver.propose(*own_command(Kind.ALARM, request.SerializeToString()), done)
