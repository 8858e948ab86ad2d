"""One member: takes its directory, recovers, builds the parts, and lets go of them in order.

    client ─► wire ─► api ─► driver (raft, write-ahead log, peers) ─► state ─► watch hub ─► api ─► wire

Only this module knows every part. What each does stands in its own; what happens when it starts and when it
ends stands here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import uvloop

from kvstore import identity, log
from kvstore.api.cluster import ClusterService
from kvstore.api.context import Context
from kvstore.api.health import HealthService
from kvstore.api.kv import KvService
from kvstore.api.lease import LeaseService
from kvstore.api.maintenance import MaintenanceService
from kvstore.api.watch import WatchService
from kvstore.commands import Kind
from kvstore.config import Config, Url
from kvstore.data_dir import DataDir, DataDirError, acquire
from kvstore.http.server import HttpServer
from kvstore.pb.etcdserverpb_pb2 import CompactionRequest, Member
from kvstore.pb.internal_pb2 import MemberRecord, PeerHello, PeerWelcome
from kvstore.replication.auto_compaction import AutoCompaction
from kvstore.replication.disk import RealDisk
from kvstore.replication.driver import FORWARD, Driver, DriverOptions
from kvstore.replication.lease_keeper import RENEW, LeaseKeeper
from kvstore.replication.outbox import Outcome
from kvstore.replication.peer_protocol import probe
from kvstore.replication.peers import PeerCallbacks, PeerTransport
from kvstore.replication.recovery import Start, read_metadata, recover
from kvstore.replication.snapshot_transfer import SnapshotTransfers
from kvstore.replication.snapshots import SnapshotExchange
from kvstore.replication.wal import Wal, WalError, WalMetadata
from kvstore.replication.wal_writer import WalWriter
from kvstore.rpc import Methods
from kvstore.state.machine import StateMachine
from kvstore.version import CLUSTER_VERSION, ETCD_VERSION, VERSION
from kvstore.wire.limits import Limits
from kvstore.wire.server import Server, serve
from raft import Config as RaftConfig
from raft import RawNode, Role
from raft.membership import initial

SWITCH_INTERVAL_S = (
    0.0005  # the write-ahead log's thread needs the GIL for microseconds: do not keep it waiting 5 ms
)
STOP_GRACE_S = 0.5
TRANSFER_PATIENCE_S = 0.5
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class MemberFailed(Exception):
    """One line: what, and where. starting: it never served."""

    def __init__(self, reason: str, *, starting: bool = True) -> None:
        super().__init__(reason)
        self.starting = starting


def run(config: Config) -> int:
    """Runs a member until a signal ends it; returns that signal's number. Raises MemberFailed."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config))


async def _run(config: Config) -> int:
    member = MemberProcess(config)
    try:
        await member.start()
    except (WalError, DataDirError, OSError) as problem:
        raise MemberFailed(str(problem)) from None
    gc.freeze()  # what start-up made lives as long as the process: the collector need not look at it again
    return await member.serve_until_signal()


class MemberProcess:
    """The parts of one member, in the order they are built."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._loop = asyncio.get_running_loop()
        self._random = random.Random(secrets.randbits(128))
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._servers: list[Server] = []
        self._published = False
        self._tick_timer: asyncio.TimerHandle | None = None
        self._no_space_raised = False

    # Starting

    async def start(self) -> None:
        config = self.config
        log.info(
            "starting a kvstore member",
            version=VERSION,
            etcd_version=ETCD_VERSION,
            name=config.name,
            data_dir=config.data_dir,
            listen_client_urls=[str(url) for url in config.listen_client_urls],
            listen_peer_urls=[str(url) for url in config.listen_peer_urls],
        )
        client_sockets = [bind(url) for url in config.listen_client_urls]
        peer_sockets = [bind(url) for url in config.listen_peer_urls]
        self._ids = identity.initial_members(config.initial_cluster, config.initial_cluster_token)
        self._directory = acquire(config.data_dir)
        disk = RealDisk()
        new = not Wal.exists(self._directory.wal, disk)
        if new:
            await self._check_bootstrap()
        else:
            self._check_cluster(read_metadata(self._directory.wal, disk))
        self._directory.create()
        self.machine = self._open_machine(self._directory)
        if new:
            self._create_log(disk)
        wal, start = recover(self._directory.wal, disk, self.machine)
        self._settle(start)
        self._build(wal, start)
        await self.transport.start(sockets=[(sock, False) for sock in peer_sockets])
        await self._serve_clients(client_sockets)
        self._begin(start)

    def _settle(self, start: Start) -> None:
        self.member_id = start.metadata.member_id
        self.cluster_id = start.metadata.cluster_id
        self.data_id = start.metadata.data_id
        self.incarnation = start.incarnation
        self._configured = self._configured_members()
        log.info(
            "starting local member",
            local_member_id=f"{self.member_id:x}",
            cluster_id=f"{self.cluster_id:x}",
            incarnation=self.incarnation,
            applied_index=self.machine.applied_index,
            revision=self.machine.revision,
        )

    async def _check_bootstrap(self) -> None:
        """A member without a log must be new. Its peers know whether somebody has lived under its id before:
        such a member has lost its vote, and voting again could elect two leaders."""
        config, own = self.config, self._ids[self.config.name]
        if config.initial_cluster_state == "existing":
            raise MemberFailed(
                f"--initial-cluster-state=existing and no log in {config.data_dir}: "
                "joining a running cluster is not supported yet"
            )
        for name, urls in config.initial_cluster.items():
            if name == config.name:
                continue
            hello = PeerHello(
                cluster_id=identity.cluster_id(self._ids.values()),
                from_id=own,
                to_id=self._ids[name],
                data_id=0,
                channel="probe",
            )
            for url in urls:
                welcome = await probe(url, hello)
                if welcome is not None and welcome.code == "already-bootstrapped":
                    raise MemberFailed(bootstrapped_text(own, config.data_dir))

    def _open_machine(self, directory: DataDir) -> StateMachine:
        return StateMachine.open(
            directory.db,
            quota_bytes=self.config.quota_backend_bytes,
            inherit_fds=(directory.lock_fd,),
            on_failure=lambda problem: self.fail(f"storage: {problem}"),
            call_soon_threadsafe=self._loop.call_soon_threadsafe,
            now=self._loop.time,
            wake=self._wake,
        )

    def _create_log(self, disk: RealDisk) -> None:
        own = self._ids[self.config.name]
        metadata = WalMetadata(
            cluster_id=identity.cluster_id(self._ids.values()),
            member_id=own,
            data_id=secrets.randbits(63) | 1,
            created_ms=int(time.time() * 1000),
        )
        Wal.create(self._directory.wal, metadata, initial(tuple(self._ids.values())), disk).close()

    def _check_cluster(self, found: WalMetadata) -> None:
        """A directory of another cluster or member must not be taken for this one's."""
        if not self.config.initial_cluster_given:
            return
        cluster_id = identity.cluster_id(self._ids.values())
        own = self._ids[self.config.name]
        if (found.cluster_id, found.member_id) != (cluster_id, own):
            raise MemberFailed(
                f"data directory {self._directory.path} belongs to member {found.member_id:x} of "
                f"cluster {found.cluster_id:x}, not to member {own:x} of cluster {cluster_id:x} "
                "that the flags describe"
            )

    def _configured_members(self) -> dict[int, Member]:
        if self.member_id not in self._ids.values():
            return {}
        return {
            self._ids[name]: Member(ID=self._ids[name], name=name, peerURLs=urls)
            for name, urls in self.config.initial_cluster.items()
        }

    def _peer_urls(self) -> dict[int, list[str]]:
        """Of every other member: as published, else as configured."""
        urls = {member_id: list(member.peerURLs) for member_id, member in self._configured.items()}
        for member_id, record in self.machine.members.items():
            urls[member_id] = list(record.member.peerURLs)
        urls.pop(self.member_id, None)
        return urls

    def _build(self, wal: Wal, start: Start) -> None:
        config, loop = self.config, self._loop
        node = RawNode(
            RaftConfig(
                id=self.member_id,
                election_ticks=max(2, config.election_timeout_ms // config.heartbeat_interval_ms),
            ),
            hard_state=start.hard_state,
            snapshot=start.base,
            entries=start.entries,
            applied=start.applied,
            random=self._random,
        )
        self._log_writer = WalWriter(
            wal,
            post=loop.call_soon_threadsafe,
            on_persisted=self._guarded(lambda number: self.driver.persisted(number)),
            on_failure=lambda problem: self.fail(str(problem)),
        )
        self._transfers = transfers = SnapshotTransfers(
            self_id=self.member_id,
            directory=self._directory.snap,
            disk=RealDisk(),
            on_snapshot=lambda from_id, message, path: self.snapshots.received(message, path),
        )
        self.transport = PeerTransport(
            self_id=self.member_id,
            cluster_id=self.cluster_id,
            data_id=self.data_id,
            incarnation=self.incarnation,
            peers=self._peer_urls(),
            entropy=self._random,
            callbacks=PeerCallbacks(
                on_messages=self._guarded(lambda messages: self.driver.received(messages)),
                on_notify=self._notified,
                on_request=self._requested,
                on_unreachable=self._guarded(lambda node_id: self.driver.report_unreachable(node_id)),
                on_refused=self._refused,
                check_hello=self._check_hello,
                snapshot_channel=transfers.channel,
            ),
        )
        self.snapshots = SnapshotExchange(self.machine, transfers, self.transport, self._directory.snap)
        self.driver = Driver(
            node,
            self.machine,
            self._log_writer,
            self.transport,
            member_id=self.member_id,
            incarnation=self.incarnation,
            options=DriverOptions(
                request_timeout_s=config.request_timeout_s,
                election_timeout_s=config.election_timeout_ms / 1000,
                trim_commands=config.snapshot_count,
            ),
            now=loop.time,
            call_soon=lambda call: loop.call_soon(self._guarded_call, call),
            send_snapshot=self.snapshots.send,
            install_snapshot=self.snapshots.install,
            first_read_context=self.incarnation << 40,
            report=lambda problem: log.error("a request's reply failed", error=repr(problem)),
        )
        self.snapshots.driver = self.driver
        self.driver.on_role.append(self._role_changed)
        self.keeper = LeaseKeeper(
            self.driver,
            self.machine,
            self.transport,
            now=loop.time,
            call_later=loop.call_later,
            timeout_s=config.request_timeout_s,
        )
        mode, retention = config.auto_compaction
        self._auto_compaction = AutoCompaction(mode, retention, now=loop.time())

    async def _serve_clients(self, sockets: list[socket.socket]) -> None:
        context = Context(
            config=self.config,
            driver=self.driver,
            machine=self.machine,
            cluster_id=self.cluster_id,
            member_id=self.member_id,
            now=self._loop.time,
            call_later=self._loop.call_later,
        )
        self.watches = WatchService(context, self._random)
        methods: Methods = {
            **KvService(context).methods(),
            **self.watches.methods(),
            **LeaseService(context, self.keeper, self._random).methods(),
            **ClusterService(context, self._configured).methods(),
            **MaintenanceService(context).methods(),
            **HealthService().methods(),
        }
        self._http = HttpServer(context)
        limits = Limits(max_message_bytes=self.config.max_request_bytes + (512 << 10))
        for sock in sockets:
            server = await serve(sock, methods, limits=limits, http1_factory=self._http.protocol)
            self._servers.append(server)

    def _begin(self, start: Start) -> None:
        """Time starts. A lone voter elects itself at once; others, as etcd does, start close to an election,
        which pre-vote makes harmless where there is a leader already."""
        node = self.driver.node
        if len(start.base.conf_state.voters) == 1:
            node.campaign()
        else:
            for _ in range(node.raft.config.election_ticks - 2):
                node.tick()
        self.driver.tick()
        self._schedule_tick(self._loop.time())

    # Time

    def _schedule_tick(self, last: float) -> None:
        interval = self.config.heartbeat_interval_ms / 1000
        due = max(last + interval, self._loop.time() + interval / 2)
        self._tick_timer = self._loop.call_at(due, self._guarded_call, lambda: self._tick(due))

    def _tick(self, due: float) -> None:
        self._schedule_tick(due)
        self.driver.tick()
        self.keeper.tick()
        self.watches.tick()
        self._publish()
        if self.driver.is_leader:
            target = self._auto_compaction.tick(self._loop.time(), self.machine.revision)
            if target is not None and target > self.machine.compact_revision:
                request = CompactionRequest(revision=target)
                self.driver.propose(Kind.COMPACT, request.SerializeToString(), _ignore)

    def _wake(self) -> None:
        """The machine asks for a turn: from the loop's own thread."""
        driver = getattr(self, "driver", None)
        if driver is not None:
            driver.wake()

    # Telling the cluster who this is

    def _publish(self) -> None:
        if self._published or not self.driver.leader_id:
            return
        self._published = True
        config = self.config
        record = MemberRecord(
            member=Member(
                ID=self.member_id,
                name=config.name,
                peerURLs=[str(url) for url in config.initial_advertise_peer_urls],
                clientURLs=[str(url) for url in config.advertise_client_urls],
            ),
            data_id=self.data_id,
        )
        self.driver.propose(Kind.MEMBER_PUBLISH, record.SerializeToString(), self._publish_answered)

    def _publish_answered(self, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            self._published = False
            return
        config = self.config
        log.info("enabled capabilities for version", cluster_version=CLUSTER_VERSION.rpartition(".")[0])
        urls = " ".join(str(url) for url in config.advertise_client_urls)
        log.info(
            "published local member to cluster through raft",
            local_member_id=f"{self.member_id:x}",
            local_member_attributes=f"{{Name:{config.name} ClientURLs:[{urls}]}}",
            cluster_id=f"{self.cluster_id:x}",
        )
        log.info("ready to serve client requests")
        for url in config.listen_client_urls:
            log.info("serving client traffic insecurely; this is strongly discouraged!", address=str(url))
        notify_systemd()

    # Peers

    def _check_hello(self, hello: PeerHello) -> PeerWelcome:
        """Refuses who lives under an id that another data directory was published for."""
        known = self.machine.members.get(hello.from_id)
        if known is not None and known.data_id and known.data_id != hello.data_id:
            text = f"member {hello.from_id:x} has already been bootstrapped"
            return PeerWelcome(refusal=text, code="already-bootstrapped")
        return PeerWelcome()

    def _refused(self, node_id: int, welcome: PeerWelcome) -> None:
        log.warn("a peer refuses this member", peer=f"{node_id:x}", reason=welcome.refusal)
        if welcome.code == "already-bootstrapped":
            self.fail(bootstrapped_text(self.member_id, self.config.data_dir))

    def _notified(self, from_id: int, kind: int, payload: bytes) -> None:
        if kind == FORWARD:
            self.driver.forwarded(payload)

    def _requested(
        self, from_id: int, kind: int, payload: bytes, reply: Callable[[bytes | None], None]
    ) -> None:
        if kind >= RENEW:
            self.keeper.serve(kind, payload, reply)
        else:
            reply(None)

    def _role_changed(self, role: Role, leader_id: int) -> None:
        log.info(
            "raft: role changed",
            local_member_id=f"{self.member_id:x}",
            role=role.name.lower(),
            term=self.driver.term,
            leader=f"{leader_id:x}" if leader_id else "none",
        )

    # Ending

    def fail(self, reason: str) -> None:
        """The member can no longer keep its promises: nothing more is acknowledged, and the process ends."""
        log.fatal("member stopped", error=reason)
        log.close()
        os._exit(1)

    def _guarded_call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as problem:
            self._fatal(problem)

    def _guarded(self, call: Callable[[Any], None]) -> Callable[[Any], None]:
        def guarded(argument: Any) -> None:
            try:
                call(argument)
            except Exception as problem:
                self._fatal(problem)

        return guarded

    def _fatal(self, problem: Exception) -> None:
        """An error in applying or driving is not one request's: going on could let members differ."""
        import traceback

        log.error("internal error", traceback=traceback.format_exception(problem))
        self.fail(f"internal error: {problem!r}")

    async def serve_until_signal(self) -> int:
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._signalled, number)
        ended_by = await self._ended
        await self._stop()
        return ended_by

    def _signalled(self, number: int) -> None:
        if self._ended.done():
            return
        name = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupt"}[signal.Signals(number)]
        log.info("received signal; shutting down", signal=name)
        self._ended.set_result(int(number))

    async def _stop(self) -> None:
        """Hands leadership over, lets calls finish, then writes everything out."""
        await self._hand_over()
        for server in self._servers:
            await server.close(STOP_GRACE_S)
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self.driver.stop()
        await self._http.close()
        await self.snapshots.close()
        await self._transfers.close()
        await self.transport.close()
        self._log_writer.close()
        self.machine.flush_and_close()
        log.info("closed kvstore member", name=self.config.name, data_dir=self.config.data_dir)

    async def _hand_over(self) -> None:
        """To the follower with the longest log, so that the others need not wait for an election timeout."""
        driver = self.driver
        progress = driver.node.status().progress
        others = [(each.match, node_id) for node_id, each in progress.items() if node_id != self.member_id]
        if not driver.is_leader or not others:
            return
        driver.transfer_leadership(max(others)[1])
        deadline = self._loop.time() + TRANSFER_PATIENCE_S
        while driver.is_leader and self._loop.time() < deadline:  # noqa: ASYNC110  bounded, at the very end
            await asyncio.sleep(0.005)


def bind(url: Url) -> socket.socket:
    """A listening socket's address taken. Raises OSError that says which."""
    family = socket.AF_INET6 if ":" in url.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((url.host or "0.0.0.0", url.port))
        sock.listen(1024)
    except OSError as problem:
        sock.close()
        raise OSError(f"listen tcp {url.host}:{url.port}: bind: {problem.strerror or problem}") from None
    sock.setblocking(False)
    return sock


def bootstrapped_text(member_id: int, data_dir: str) -> str:
    return (
        f"member {member_id:x} has already been bootstrapped: its data directory is gone or is not {data_dir}. "
        "Bring the old directory back, or remove the member from the cluster and add it as a new one"
    )


def notify_systemd(environment: Mapping[str, str] = os.environ) -> None:
    """READY=1 to the service manager, where there is one (sd_notify(3))."""
    path = environment.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"READY=1", address)
        except OSError as problem:
            log.warn("cannot notify the service manager", error=str(problem))


def _ignore(outcome: Outcome) -> None:
    """A compaction that was not needed any more is no news."""
