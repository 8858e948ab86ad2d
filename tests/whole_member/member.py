"""One member from disk to services, wired as kvstore/member.py wires it, on a simulated disk, network and clock.

What differs from production is only what stands at the constructors: the disk, the storage process, the
transport, call_soon, call_later and now; and the log's writer, which has no thread but a delay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from random import Random

from kvstore.api.context import Context
from kvstore.api.kv import KvService
from kvstore.api.lease import LeaseService
from kvstore.api.quota import QuotaService
from kvstore.api.watch import WatchService
from kvstore.commands import LEVEL, Kind
from kvstore.config import PROGRESS_FLAG, Config, load
from kvstore.pb.etcdserverpb_pb2 import Member
from kvstore.pb.internal_pb2 import MemberRecord
from kvstore.replication.driver import FORWARD, Driver, DriverOptions
from kvstore.replication.lease_keeper import RENEW, LeaseKeeper
from kvstore.replication.outbox import Outcome
from kvstore.replication.recovery import decode_conf, found, recover
from kvstore.replication.wal import Wal, WalError, WalFailed, WalMetadata
from kvstore.replication.wal_writer import IDLE_S, WalWriter
from kvstore.rpc import Methods
from kvstore.state.machine import StateMachine
from raft import Config as RaftConfig
from raft import Entry, HardState, InstallSnapshot, Message, RawNode, Role, SnapshotMeta
from raft.membership import initial
from tests.unit.replication.simulated_disk import PowerCut, SimulatedDisk
from tests.whole_member.network import Connections, Network
from tests.whole_member.options import Options
from tests.whole_member.recorder import Recorder
from tests.whole_member.storage import Storage
from tests.whole_member.world import Life, World

HEARTBEAT_S = 0.05
ELECTION_S = 0.5
TURN_S = 0.001
CLOCK_OFFSET_S = 1e5
WAL = "/wal"
CLUSTER_ID = 0xC0FFEE


def config_of(name: str) -> Config:
    """As the command line would make it."""
    flags = [
        *("--name", name),
        *("--heartbeat-interval", str(int(HEARTBEAT_S * 1000))),
        *("--election-timeout", str(int(ELECTION_S * 1000))),
        *(f"--{PROGRESS_FLAG}", "300ms"),
    ]
    return load(flags, {})


class SimulatedDriver(Driver):
    """Remembers places to trim the log at more often than once in a thousand commands."""

    MARK_COMMANDS = 5

    def _mark(self, index: int) -> None:
        previous = self._marks[-1][1] if self._marks else 0
        if self._commands_applied - previous >= self.MARK_COMMANDS:
            self._marks.append((index, self._commands_applied, self._bytes_applied))


class DelayedLog:
    """The log's writer without its thread: what is queued is flushed after a delay, and sealed after rest."""

    def __init__(
        self, writer: WalWriter, life: Life, *, delay: Callable[[], float], power_cut: Callable[[], None]
    ) -> None:
        """power_cut: the disk's power failed in the middle of a write."""
        self.writer = writer
        self._life = life
        self._delay = delay
        self._power_cut = power_cut
        self._armed = False
        self._idle_at = 0.0

    def submit(
        self,
        number: int,
        hard_state: HardState | None,
        snapshot: SnapshotMeta | None,
        entries: Sequence[Entry],
        sync: bool,
    ) -> None:
        self.writer.submit(number, hard_state, snapshot, entries, sync)
        self._arm()

    def note(self, number: int, hard_state: HardState) -> None:
        self.writer.note(number, hard_state)

    def release(self, index: int) -> None:
        self.writer.release(index)
        self._arm()

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._life.later(self._delay(), self._flush)

    def _flush(self) -> None:
        self._armed = False
        try:
            self.writer.flush()
        except PowerCut:
            self._power_cut()
            return
        self._idle_at = self._life.world.now + IDLE_S
        self._life.later(IDLE_S, self._idle)

    def _idle(self) -> None:
        if self._life.world.now >= self._idle_at and not self._armed:
            try:
                self.writer.idle()
            except PowerCut:
                self._power_cut()


class SimulatedMember:
    """Outlives its crashes; each start is a Life with parts of its own."""

    def __init__(
        self,
        world: World,
        options: Options,
        network: Network,
        recorder: Recorder,
        member_id: int,
        directory: str,
    ) -> None:
        self.world = world
        self.options = options
        self.network = network
        self.recorder = recorder
        self.id = member_id
        self.directory = directory
        self.random = Random(world.random.getrandbits(64))
        self.clock_rate = self.random.uniform(1 - options.clock_skew, 1 + options.clock_skew)
        self.disk = SimulatedDisk()
        self.life: Life | None = None
        self.slow_until = 0.0
        self.starts = 0
        self.failures: list[str] = []
        self.on_end: list[Callable[[], None]] = []  # of this life: what hangs on it and must hear of its end
        self.gone: Callable[[SimulatedMember], None] = lambda member: None
        network.peers[member_id] = self
        os.makedirs(directory)
        os.mkdir(self._snap)

    @property
    def _snap(self) -> str:
        return os.path.join(self.directory, "snap")

    # Starting

    def start(self) -> None:
        """Recovers and begins. Where the disk refuses, the power fails once more and it is tried again later."""
        assert self.life is None, f"n{self.id} runs already"
        try:
            self._start()
        except (WalFailed, PowerCut) as problem:
            self.world.tell(f"n{self.id} does not start: {problem}")
            self._power_off()
            self.gone(self)

    def _start(self) -> None:
        """As kvstore/member.py's start() and _build() do it."""
        life = Life(
            self.world,
            f"n{self.id}",
            clock_rate=self.clock_rate,
            clock_offset=self.random.uniform(0, CLOCK_OFFSET_S),
        )
        self.starts += 1
        self.disk.fsync_broken = False
        for name in os.listdir(self._snap):
            os.unlink(os.path.join(self._snap, name))
        segment_bytes = self.options.segment_bytes
        if not Wal.exists(WAL, self.disk):
            metadata = WalMetadata(CLUSTER_ID, self.id, self.id + 1000, 0)
            conf = initial(tuple(range(1, self.options.members + 1)))
            Wal.create(WAL, metadata, conf, self.disk, segment_bytes).close()
        self.storage = Storage(later=lambda call: life.later(self._storage_delay(), call), random=self.random)
        self.machine = StateMachine.open(
            self.directory,
            sync=False,
            on_failure=self._fail,
            now=life.now,
            wake=self._wake,
            call_later=life.call_later,
            opener=self.storage.open,
        )
        self._driver: SimulatedDriver | None = None
        wal, start = recover(WAL, self.disk, self.machine, segment_bytes=segment_bytes)
        if start.founders:
            records = [
                MemberRecord(member=Member(ID=node, name=f"n{node}", peerURLs=[f"http://n{node}:2380"]))
                for node in start.founders
            ]
            start = found(wal, start, records)
        self.life = life
        node = RawNode(
            RaftConfig(id=self.id, election_ticks=int(ELECTION_S / HEARTBEAT_S)),
            hard_state=start.hard_state,
            snapshot=start.base,
            entries=start.entries,
            applied=start.applied,
            random=self.random,
        )
        node.raft.trace = self._trace
        self._wal_writer = WalWriter(
            wal,
            post=lambda call, argument: life.later(0.0, lambda: call(argument)),
            on_persisted=lambda number: self.driver.persisted(number),
            on_failure=self._fail,
            threaded=False,
        )
        self._received: dict[int, str] = {}
        self._transport = Connections(self.network, self.id, life)
        self._driver = SimulatedDriver(
            node,
            self.recorder.watched(self.id, self.machine),
            DelayedLog(self._wal_writer, life, delay=self._disk_delay, power_cut=self._power_cut),
            self._transport,
            member_id=self.id,
            incarnation=start.incarnation,
            options=DriverOptions(
                request_timeout_s=self.options.request_timeout_s,
                election_timeout_s=ELECTION_S,
                trim_commands=self.options.trim_commands,
                tail_commands=self.options.tail_commands,
            ),
            now=life.now,
            call_soon=lambda call: life.later(self.random.uniform(0, TURN_S), call),
            send_snapshot=self._send_snapshot,
            install_snapshot=self._install_snapshot,
            first_read_context=start.incarnation << 40,
            report=self._report,
        )
        self._driver.outbox._batch_bytes_max = self.options.batch_bytes
        self._driver.on_role.append(self._role_changed)
        self._led = False
        self._published = False
        self._serve(life)
        self._begin(node)
        self.world.tell(
            f"n{self.id} starts: incarnation {start.incarnation}, applied {start.applied}, "
            f"log {start.base.index}..{start.entries[-1].index if start.entries else start.base.index}"
        )

    @property
    def driver(self) -> SimulatedDriver:
        assert self._driver is not None
        return self._driver

    def _serve(self, life: Life) -> None:
        self.keeper = LeaseKeeper(
            self.driver,
            self.machine,
            self._transport,
            now=life.now,
            call_later=life.call_later,
            timeout_s=self.options.request_timeout_s,
        )
        context = Context(
            config=config_of(f"n{self.id}"),
            driver=self.driver,
            machine=self.machine,
            cluster_id=CLUSTER_ID,
            member_id=self.id,
            now=life.now,
            call_later=life.call_later,
        )
        self.watches = WatchService(context, self.random)
        self.watches.fragment_bytes = self.options.fragment_bytes
        self.methods: Methods = {
            **KvService(context).methods(),
            **self.watches.methods(),
            **LeaseService(context, self.keeper, self.random).methods(),
            **QuotaService(context).methods(),
        }

    def _begin(self, node: RawNode) -> None:
        if node.conf.voters == (self.id,):
            node.campaign()
        else:
            for _ in range(node.raft.config.election_ticks - 2):
                node.tick()
        self.driver.tick()
        self._schedule_tick()

    def _schedule_tick(self) -> None:
        assert self.life is not None
        self.life.call_later(HEARTBEAT_S * self.random.uniform(0.95, 1.05), self._tick)

    def _tick(self) -> None:
        self._schedule_tick()
        self.driver.tick()
        self.keeper.tick()
        self.watches.tick()
        self._publish()

    def _publish(self) -> None:
        if self._published or not self.driver.leader_id:
            return
        self._published = True
        record = MemberRecord(
            member=Member(ID=self.id, name=f"n{self.id}", clientURLs=[f"http://n{self.id}:{self.starts}"]),
            data_id=self.id + 1000,
            level=LEVEL,
        )
        self.driver.propose(Kind.MEMBER_PUBLISH, record.SerializeToString(), self._publish_answered)

    def _publish_answered(self, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            self._published = False

    def _wake(self) -> None:
        if self._driver is not None:
            self._driver.wake()

    def _role_changed(self, role: Role, leader_id: int) -> None:
        leads = role == Role.LEADER
        if leads and not self._led:
            self.recorder.leader_elected()
        self._led = leads

    def _trace(self, event: object) -> None:
        if self.world.telling:
            self.world.tell(str(event))

    def _report(self, problem: Exception) -> None:
        raise AssertionError(f"n{self.id}: a waiter failed: {problem!r}") from problem

    # Delays

    def _disk_delay(self) -> float:
        if self.network.healed:
            return self.random.uniform(0.0001, 0.002)
        slow = 10 if self.world.now < self.slow_until else 1
        return self.random.uniform(0.0001, self.options.disk_delay_s) * slow

    def _storage_delay(self) -> float:
        return self.random.uniform(0.0005, 0.002 if self.network.healed else self.options.storage_delay_s)

    # From the network

    def received(self, messages: list[Message]) -> None:
        self.driver.received(messages)

    def notified(self, kind: int, payload: bytes) -> None:
        if kind == FORWARD:
            self.driver.forwarded(payload)

    def requested(self, kind: int, payload: bytes, reply: Callable[[bytes], None]) -> None:
        if kind >= RENEW:
            self.keeper.serve(kind, payload, reply)

    def unreachable(self, node_id: int) -> None:
        self.driver.report_unreachable(node_id)

    def refused_by(self, node_id: int) -> None:
        self.driver.report_gone(node_id)

    # Snapshots, as kvstore/replication/snapshots.py carries them

    def _send_snapshot(self, message: InstallSnapshot) -> None:
        assert self.life is not None
        self.life.later(self.random.uniform(0.001, 0.05), lambda: self._make_snapshot(message))

    def _make_snapshot(self, message: InstallSnapshot) -> None:
        life, to = self.life, message.to
        assert life is not None
        path = os.path.join(self._snap, f"out-{self.world.order()}.db")
        index, term, _ = self.machine.snapshot_to(path)
        conf = decode_conf(self.machine.snapshot_conf(path))
        whole = InstallSnapshot(self.id, to, message.term, SnapshotMeta(index, term, conf))
        self.world.tell(f"n{self.id} sends n{to} a snapshot of {index}@{term}")
        lost = not self.network.healed and self.random.random() < self.options.loss

        def arrive() -> None:
            ok = index > 0 and not lost and self.network.up(self.id, to)
            if ok:
                peer = self.network.peers[to]
                assert isinstance(peer, SimulatedMember)
                peer._take_snapshot(whole, path)
            os.unlink(path)
            life.later(0.001, lambda: self.driver.report_snapshot(to, ok))

        life.later(self.random.uniform(0.01, 0.2), arrive)

    def _take_snapshot(self, message: InstallSnapshot, path: str) -> None:
        life, own = self.life, os.path.join(self._snap, f"in-{self.world.order()}.db")
        assert life is not None
        shutil.copyfile(path, own)

        def received() -> None:
            self._received[message.meta.index] = own
            self.driver.received([message])

        life.later(0.0, received)

    def _install_snapshot(self, meta: SnapshotMeta) -> None:
        self.world.tell(f"n{self.id} installs a snapshot of {meta}")
        self.machine.reopen_from(self._received.pop(meta.index))
        self.recorder.installed(self.id, self.machine, meta)

    # Ending

    def _fail(self, problem: Exception) -> None:
        """Log or storage failed: the member stops and acknowledges nothing more."""
        self.failures.append(str(problem))
        self.world.tell(f"n{self.id} fails: {problem}")
        self.crash()

    def crash(self) -> None:
        """The power fails, perhaps in the middle of a write of the log."""
        if self.life is None:
            return
        self._end()
        if self.random.random() < 0.5:
            self.disk.crash_at = self.disk.steps + self.random.randint(1, 3)
            with contextlib.suppress(PowerCut, WalError):
                self._wal_writer.flush()
        self._power_off()

    def crash_at_next_write(self) -> None:
        """The power fails while the log is written next."""
        if self.life is not None:
            self.disk.crash_at = self.disk.steps + self.random.randint(1, 4)

    def _power_cut(self) -> None:
        if self.life is not None:
            self._end()
            self._power_off()

    def _power_off(self) -> None:
        self.world.tell(f"n{self.id} loses power")
        self.disk.crash(self.random, self.random.choice(("none", "all", "prefix", "random", "random")))
        self.storage.lose_power()

    def stop(self) -> None:
        """As told to: everything is written out. An error of the disk goes to nobody, who hears no more."""
        if self.life is None:
            return
        self.world.tell(f"n{self.id} stops")
        self.driver.stop()
        self._end()
        try:
            self._wal_writer.close()
        except PowerCut:
            self._power_off()
            return
        if self._wal_writer.failed:
            self._power_off()
        else:
            self.machine.flush_and_close()

    def _end(self) -> None:
        assert self.life is not None
        self.life.ended = True
        self.life = None
        hanging, self.on_end = self.on_end, []
        for call in hanging:
            call()
        self.gone(self)
