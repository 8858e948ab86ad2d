"""What the simulator found, as the shortest story that shows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

from kvstore import errors
from kvstore.api.watch import WatchStream
from kvstore.pb.etcdserverpb_pb2 import (
    LeaseGrantRequest,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    WatchRequest,
)
from raft import Heartbeat, Message
from tests.whole_member.calls import Answer, Listener
from tests.whole_member.member import SimulatedMember
from tests.whole_member.options import Options
from tests.whole_member.schedule import Schedule
from tests.whole_member.streams import WATCH

PUT = "/etcdserverpb.KV/Put"
GRANT = "/etcdserverpb.Lease/LeaseGrant"
TIME_TO_LIVE = "/etcdserverpb.Lease/LeaseTimeToLive"
CALM = replace(
    Options.draw(Random(1)),
    members=3,
    delay_s=0.002,
    disk_delay_s=0.001,
    storage_delay_s=0.002,
    loss=0.0,
    duplication=0.0,
    reorder=False,
    trim_commands=5,
    tail_commands=0,
    apply_bytes=1 << 20,
    seal_records=20_000,
    batch_bytes=1 << 20,
)


class Stage:
    """Three members, a leader, no clients but those of the test."""

    def __init__(self, directory: Path) -> None:
        self.schedule = Schedule(1, str(directory), options=CALM)
        self.answers: list[Answer] = []
        self.muted_for: set[int] = set()
        for member in self.schedule.members.values():
            member.start()
        self.run(2.0)
        members = list(self.schedule.members.values())
        self.leader = next(each for each in members if each.driver.is_leader)
        self.follower = next(each for each in members if not each.driver.is_leader)

    def run(self, seconds: float) -> None:
        self.schedule.world.run_until(self.schedule.world.now + seconds)

    def put(self, member: SimulatedMember, key: bytes, value: bytes) -> None:
        data = PutRequest(key=key, value=value).SerializeToString()
        self.schedule.unary(member.id, PUT, data, self.answers.append)

    def deafen(self, member: SimulatedMember) -> None:
        """It is heard and hears nobody."""
        self.schedule.network.cut = {(other, member.id) for other in self.schedule.members}

    def mute(self, member: SimulatedMember) -> None:
        """Its raft messages do not reach those in muted_for; its answers to requests do."""
        transport = member.driver._transport
        send = transport.send

        def to_others(messages: list[Message]) -> None:
            send([message for message in messages if message.to not in self.muted_for])

        transport.send = to_others  # type: ignore[method-assign]

    def values_written(self) -> list[bytes]:
        return [kv.value for revision in self.schedule.history.log for kv in revision.events]


def test_a_batch_that_a_snapshot_holds_is_not_applied_again(tmp_path: Path) -> None:
    """A follower's write is applied everywhere but at itself, and reaches it inside a snapshot. Its next write
    must not make the outbox believe that the first was overtaken and never applied."""
    stage = Stage(tmp_path)
    stage.deafen(stage.follower)
    stage.put(stage.follower, b"k", b"once")
    stage.run(0.02)
    for number in range(60):
        stage.put(stage.leader, b"other", b"%d" % number)
        stage.run(0.005)
    assert stage.values_written().count(b"once") == 1
    stage.schedule.network.cut = set()
    stage.run(1.0)
    assert stage.schedule.recorder.snapshots_installed == 1
    stage.put(stage.follower, b"next", b"v")
    stage.run(3.0)
    assert stage.values_written().count(b"once") == 1


def test_time_to_live_at_a_member_that_lags(tmp_path: Path) -> None:
    """A follower that has not applied a grant yet must not say that there is no such lease."""
    stage = Stage(tmp_path)
    stage.mute(stage.leader)
    grant = LeaseGrantRequest(ID=7, TTL=60).SerializeToString()
    stage.muted_for = {stage.follower.id}
    stage.schedule.unary(stage.leader.id, GRANT, grant, stage.answers.append)
    stage.run(0.1)
    assert [answer.error for answer in stage.answers] == [""]
    assert not stage.follower.machine.lessor.exists(7)
    ask = LeaseTimeToLiveRequest(ID=7).SerializeToString()
    stage.schedule.unary(stage.follower.id, TIME_TO_LIVE, ask, stage.answers.append)
    stage.run(0.1)
    stage.muted_for = set()
    stage.run(1.0)
    assert [answer.error for answer in stage.answers] == ["", ""]
    assert LeaseTimeToLiveResponse.FromString(stage.answers[1].message).TTL > 0


def test_a_stream_that_was_ended_watches_nothing_more(tmp_path: Path) -> None:
    """The client, which does not know yet that its stream is over, asks for one more watch."""
    stage = Stage(tmp_path)
    member = stage.follower
    ended: list[str] = []
    listener = Listener()
    listener.on_end = ended.append
    stream = stage.schedule.stream(member.id, WATCH, listener, read_s=0.1, scale=1)
    assert stream is not None
    create = WatchRequest()
    create.create_request.key = b"k"
    stream.tell(create.SerializeToString())
    stage.run(0.01)
    assert member.machine.hub.watcher_count == 1
    assert isinstance(stream.handler, WatchStream)
    stream.tell(create.SerializeToString())
    stream.handler.end(errors.NoLeader())
    stage.run(1.0)
    assert ended == ["NoLeader"]
    assert member.machine.hub.watcher_count == 0


def test_an_old_leader_expires_nothing_in_its_successors_term(tmp_path: Path) -> None:
    """It stood still, and when it goes on, the new leader's message and a tick come before the turn in which it
    would learn that it leads no more (seed 6136). What is due by its own clock has been renewed elsewhere."""
    stage = Stage(tmp_path)
    old = stage.leader
    grant = LeaseGrantRequest(ID=7, TTL=2).SerializeToString()
    stage.schedule.unary(old.id, GRANT, grant, stage.answers.append)
    stage.run(0.2)
    assert old.life is not None
    stage.schedule.network.cut = {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if old.id in (a, b)}
    old.life.paused_until = stage.schedule.world.now + 60
    stage.run(1.0)
    new = next(each for each in stage.schedule.members.values() if each is not old and each.driver.is_leader)
    renewed: list[int | None] = []
    for _ in range(4):
        new.keeper.renew(7, lambda ttl_ms, problem: renewed.append(ttl_ms))
        stage.run(0.5)
    assert renewed == [2000] * 4
    stage.schedule.network.cut = set()
    old.life.paused_until = 0.0
    old.driver.received([Heartbeat(new.id, old.id, new.driver.term, 0)])
    old.keeper.tick()
    stage.run(0.5)
    assert not stage.schedule.history.lease_ends
