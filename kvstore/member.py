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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uvloop

from kvstore import identity, log
from kvstore.api.auth import AuthService
from kvstore.api.cluster import ClusterService
from kvstore.api.context import Context, simple_tokens
from kvstore.api.election import ElectionService
from kvstore.api.health import HealthService
from kvstore.api.kv import KvService
from kvstore.api.leader import LeaderDoor
from kvstore.api.lease import LeaseService
from kvstore.api.lock import LockService
from kvstore.api.maintenance import MaintenanceService
from kvstore.api.passwords import PasswordThread
from kvstore.api.quota import QuotaService
from kvstore.api.readiness import ReadinessService
from kvstore.api.reflection import ReflectionService
from kvstore.api.snapshot import SnapshotService
from kvstore.api.tokens import TokenOptions, Tokens, open_jwt, parse_options
from kvstore.api.watch import WatchService
from kvstore.commands import LEVEL, Kind, UnknownCommand, own_command
from kvstore.config import Config, Url, parse_duration
from kvstore.data_dir import DataDir, DataDirError, acquire
from kvstore.http.server import HttpServer
from kvstore.pb.etcdserverpb_pb2 import CompactionRequest, Member
from kvstore.pb.internal_pb2 import ConfigContext, MemberRecord, PeerHello, PeerWelcome
from kvstore.replication.auto_compaction import AutoCompaction
from kvstore.replication.corruption import gather
from kvstore.replication.disk import RealDisk
from kvstore.replication.driver import FORWARD, Driver, DriverOptions
from kvstore.replication.lease_keeper import RENEW, LeaseKeeper
from kvstore.replication.member_changes import CHANGE_MEMBERS, MemberChanges
from kvstore.replication.outbox import Outcome
from kvstore.replication.peer_protocol import probe
from kvstore.replication.peers import PeerCallbacks, PeerTransport
from kvstore.replication.recovery import Start, decode_conf, found, go_on_alone, read_metadata, recover
from kvstore.replication.snapshot_transfer import SnapshotTransfers
from kvstore.replication.snapshots import SnapshotExchange
from kvstore.replication.wal import Wal, WalError, WalMetadata
from kvstore.replication.wal_writer import WalWriter
from kvstore.rpc import Methods
from kvstore.state.kv_hash import KvHash
from kvstore.state.machine import MAP_BYTES, StateMachine, stored_conf
from kvstore.tls.contexts import TlsError
from kvstore.tls.dialing import Dialing
from kvstore.tls.door import Door
from kvstore.tls.keeper import open_side
from kvstore.upkeep import Upkeep, open_traffic
from kvstore.version import CLUSTER_VERSION, COMPILED, ETCD_VERSION, VERSION
from kvstore.wire.limits import Limits
from kvstore.wire.server import Server, serve
from raft import Config as RaftConfig
from raft import ConfState, EntryKind, InstallSnapshot, RawNode, Role
from raft.membership import NOWHERE, decode, initial
from raft.quorum import members_of

SWITCH_INTERVAL_S = (
    0.0005  # the write-ahead log's thread needs the GIL for microseconds: do not keep it waiting 5 ms
)
STOP_GRACE_S = 0.5
TRANSFER_PATIENCE_S = 0.5
JOIN_PATIENCE_S = 10.0  # for somebody of the cluster to answer a member that is new
REMOVED = 17  # one-way between members: you were removed
REMOVED_GRACE_S = 2.0
REMOVED_TEXT = (
    "the member has been permanently removed from the cluster; its data directory is of no more use here. "
    "To bring the machine back, add it as a new member and start it with an empty directory"
)
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
    except (WalError, DataDirError, TlsError, OSError) as problem:
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
        self._told_ready = False
        self._incarnations: dict[int, int] = {}  # of the other members, when they last connected
        self._tick_timer: asyncio.TimerHandle | None = None
        self._upkeep: Upkeep | None = None  # peers may ask before there is one
        self._removed_at: dict[int, float] = {}
        self._removals: set[asyncio.Task[None]] = set()

    # Starting

    async def start(self) -> None:
        config = self.config
        log.info(
            "starting a kvstore member",
            version=VERSION,
            etcd_version=ETCD_VERSION,
            compiled=COMPILED,
            name=config.name,
            data_dir=config.data_dir,
            listen_client_urls=[str(url) for url in config.listen_client_urls],
            listen_peer_urls=[str(url) for url in config.listen_peer_urls],
        )
        self._token_options = token_options(config.auth_token)
        client_sockets = [bind(url) for url in config.listen_client_urls]
        self._metrics_sockets = [bind(url) for url in config.listen_metrics_urls]
        peer_sockets = [bind(url) for url in config.listen_peer_urls]
        self._ids = identity.initial_members(config.initial_cluster, config.initial_cluster_token)
        self._directory = acquire(config.data_dir)
        self._open_tls()
        disk = RealDisk()
        born: tuple[WalMetadata, ConfState] | None = None
        if Wal.exists(self._directory.wal, disk):
            self._check_cluster(read_metadata(self._directory.wal, disk))
        elif config.initial_cluster_state == "existing":
            born = await self._join(), NOWHERE
        else:
            born = await self._found()
        self._directory.create()
        self.machine = self._open_machine(self._directory)
        if born is not None:
            Wal.create(self._directory.wal, *born, disk).close()
        wal, start = recover(self._directory.wal, disk, self.machine)
        if start.founders:
            start = found(wal, start, self._founding_members(start))
        if config.force_new_cluster:
            log.warn("forcing a new cluster of this member alone", member_id=f"{start.metadata.member_id:x}")
            start = go_on_alone(wal, start)
        self._settle(start)
        self._seeds: list[Member] = []
        if not self.machine.conf and not start.entries:
            # Nothing has reached this member yet, and without the others' addresses it could not even answer.
            self._seeds = list((await self._ask_cluster()).members)
        self._build(wal, start)
        if trace := os.environ.get("KVSTORE_TRACE"):
            self._trace(trace)
        schemes = [url.scheme == "https" for url in config.listen_peer_urls]
        await self.transport.start(sockets=list(zip(peer_sockets, schemes)))
        await self._serve_clients(client_sockets)
        self._begin(start)

    def _open_tls(self) -> None:
        """Reads the certificates, before anybody is spoken to."""
        config, path = self.config, self._directory.path
        clients = open_side(config.client_tls, path, config.listen_client_urls)
        peers = open_side(config.peer_tls, path, config.listen_peer_urls)
        self._client_door = Door(clients) if clients is not None else None
        self._peer_door = Door(peers) if peers is not None else None
        self._security = Dialing(peers) if peers is not None else None

    def _settle(self, start: Start) -> None:
        self.member_id = start.metadata.member_id
        self.cluster_id = start.metadata.cluster_id
        self.data_id = start.metadata.data_id
        self.incarnation = start.incarnation
        log.info(
            "starting local member",
            local_member_id=f"{self.member_id:x}",
            cluster_id=f"{self.cluster_id:x}",
            incarnation=self.incarnation,
            applied_index=self.machine.applied_index,
            revision=self.machine.revision,
        )

    async def _found(self) -> tuple[WalMetadata, ConfState]:
        """A member without a log must be new. Its peers know whether somebody has lived under its id before:
        such a member has lost its vote, and voting again could elect two leaders."""
        config, own = self.config, self._ids[self.config.name]
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
                welcome = await probe(url, hello, self._security)
                if welcome is not None and welcome.code == "already-bootstrapped":
                    raise MemberFailed(bootstrapped_text(own, config.data_dir))
                if welcome is not None and welcome.code == "removed":
                    raise MemberFailed(REMOVED_TEXT)
        cluster_id = identity.cluster_id(self._ids.values())
        return self._metadata(cluster_id, own), initial(tuple(self._ids.values()))

    async def _join(self) -> WalMetadata:
        """Asks the members of a running cluster who they are. This member is the one among them that has its
        peer URLs and has not started yet; its log begins empty, and it waits for the leader to fill it."""
        config = self.config
        own_urls = sorted(str(url) for url in config.initial_advertise_peer_urls)
        welcome = await self._ask_cluster()
        for member in welcome.members:
            if sorted(member.peerURLs) == own_urls:
                if member.name:
                    raise MemberFailed(bootstrapped_text(member.ID, config.data_dir))
                return self._metadata(welcome.cluster_id, member.ID)
        known = "; ".join(",".join(member.peerURLs) for member in welcome.members)
        raise MemberFailed(
            f"no member of the cluster has the peer URLs {','.join(own_urls)} (they have: {known}): "
            "add it first, with `kvctl member add`"
        )

    async def _ask_cluster(self) -> PeerWelcome:
        """Who the running cluster is, from whichever of its members answers first. One that is just being started,
        stopped or starved does not answer at once."""
        config, hello = self.config, PeerHello(channel="members")
        asked = [u for name, urls in config.initial_cluster.items() if name != config.name for u in urls]
        deadline, pause_s = self._loop.time() + JOIN_PATIENCE_S, 0.05
        while asked:
            for url in asked:
                welcome = await probe(url, hello, self._security)
                if welcome is not None and welcome.members:
                    return welcome
            if self._loop.time() + pause_s > deadline:
                break
            if pause_s == 0.05:
                log.info("waiting for a member of the cluster to answer", urls=asked)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)
        raise MemberFailed(
            f"could not retrieve cluster information from the given URLs: {', '.join(asked) or 'none given'}"
        )

    def _open_machine(self, directory: DataDir) -> StateMachine:
        return StateMachine.open(
            directory.db,
            quota_bytes=self.config.quota_backend_bytes,
            map_bytes=max(MAP_BYTES, 2 * self.config.quota_backend_bytes),
            inherit_fds=(directory.lock_fd,),
            on_failure=lambda problem: self.fail(f"storage: {problem}"),
            call_soon_threadsafe=self._loop.call_soon_threadsafe,
            now=self._loop.time,
            wake=self._wake,
            call_later=self._loop.call_later,
        )

    def _metadata(self, cluster_id: int, member_id: int) -> WalMetadata:
        return WalMetadata(
            cluster_id=cluster_id,
            member_id=member_id,
            data_id=secrets.randbits(63) | 1,
            created_ms=int(time.time() * 1000),
        )

    def _founding_members(self, start: Start) -> list[MemberRecord]:
        names = {self._ids[name]: name for name in self.config.initial_cluster}
        if set(names) != set(start.founders):
            raise MemberFailed(
                f"the log in {self._directory.wal} was made for a cluster of other members and has no entry: "
                "give the same --initial-cluster as at first"
            )
        return [
            MemberRecord(
                member=Member(ID=node, name=names[node], peerURLs=self.config.initial_cluster[names[node]])
            )
            for node in start.founders
        ]

    def _check_cluster(self, found: WalMetadata) -> None:
        """A directory of another cluster or member must not be taken for this one's. Flags that name the
        members of today, where they are not the founding ones any more, are no sign of that."""
        if not self.config.initial_cluster_given or self.config.initial_cluster_state == "existing":
            return
        cluster_id = identity.cluster_id(self._ids.values())
        own = self._ids[self.config.name]
        if (found.cluster_id, found.member_id) != (cluster_id, own):
            stored = stored_conf(self._directory.db)
            if stored and identity.cluster_id(members_of(decode_conf(stored))) != found.cluster_id:
                return
            raise MemberFailed(
                f"data directory {self._directory.path} belongs to member {found.member_id:x} of "
                f"cluster {found.cluster_id:x}, not to member {own:x} of cluster {cluster_id:x} "
                "that the flags describe"
            )

    def _peer_urls(self, start: Start) -> dict[int, list[str]]:
        """Of every other member, those whose addition is in the log and not applied yet among them."""
        records = list(self.machine.members.values())
        for entry in start.entries:
            if entry.kind == EntryKind.CONFIG and entry.index > start.applied:
                records += ConfigContext.FromString(decode(entry.data)[1]).added
        urls = {member.ID: list(member.peerURLs) for member in self._seeds}
        urls |= {record.member.ID: list(record.member.peerURLs) for record in records}
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
            on_snapshot=self._snapshot_received,
            bytes_per_s=config.snapshot_send_bytes_per_s,
            security=self._security,
        )
        self.transport = PeerTransport(
            self_id=self.member_id,
            cluster_id=self.cluster_id,
            data_id=self.data_id,
            incarnation=self.incarnation,
            peers=self._peer_urls(start),
            entropy=self._random,
            guard=self._peer_door.guard if self._peer_door is not None else None,
            security=self._security,
            callbacks=PeerCallbacks(
                on_messages=self._guarded(lambda messages: self.driver.received(messages)),
                on_notify=self._notified,
                on_request=self._requested,
                on_unreachable=self._guarded(lambda node_id: self.driver.report_unreachable(node_id)),
                on_gone=self._guarded(lambda node_id: self.driver.report_gone(node_id)),
                on_refused=self._refused,
                check_hello=self._check_hello,
                members=self._known_members,
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
        self.changes = MemberChanges(
            self.driver,
            self.machine,
            self.transport,
            strict=config.strict_reconfig_check,
            learners_max=config.max_learners,
            token=config.initial_cluster_token,
            now=loop.time,
            wall_s=time.time,
            call_later=loop.call_later,
            timeout_s=config.request_timeout_s,
        )
        self.driver.on_config.append(self._config_in_log)
        mode, retention = config.auto_compaction
        self._auto_compaction = AutoCompaction(mode, retention, now=loop.time())

    def _trace(self, given: str) -> None:
        """Nothing of it is on a put's way where it is not asked for."""
        from kvstore import tracing

        if COMPILED:
            raise MemberFailed(
                "KVSTORE_TRACE: this is the compiled build, whose functions nothing can be put around"
            )
        path = tracing.path_of(given, self.config.name)
        log.warn("tracing every put: the file grows with each", file=path)
        try:
            tracing.install(path, self.driver, self._log_writer)
        except OSError as problem:
            raise MemberFailed(f"KVSTORE_TRACE: {path}: {problem.strerror}") from None

    async def _compare_with_the_others(self) -> None:
        """--experimental-initial-corrupt-check: a member whose data differ from another's serves nobody."""
        loop, deadline = self._loop, self._loop.time() + self.config.request_timeout_s
        peers = self.transport.peer_ids
        while loop.time() < deadline and not all(map(self.transport.connected, peers)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # those that are down are left out
        asked: asyncio.Future[dict[int, KvHash]] = loop.create_future()
        gather(self.machine, self.transport, self.member_id, loop.call_soon, asked.set_result)
        found = await asked
        own = found.pop(self.member_id, None)
        others = [each for each in found.values() if own and each.compact_revision == own.compact_revision]
        if own is not None and any(each.value != own.value for each in others):
            self.fail(
                f"{self.member_id:x} found data inconsistency with peers: at revision {own.revision} it holds"
                f" {own.value:08x}, others hold {', '.join(sorted(f'{each.value:08x}' for each in others))};"
                f" remove the member and its data directory {self.config.data_dir}, and add it again"
            )
        log.info("initial corruption checking passed; no corruption", compared_with=len(others))

    async def _serve_clients(self, sockets: list[socket.socket]) -> None:
        if self.config.initial_corrupt_check:
            await self._compare_with_the_others()
        context = Context(
            config=self.config,
            driver=self.driver,
            machine=self.machine,
            cluster_id=self.cluster_id,
            member_id=self.member_id,
            now=self._loop.time,
            call_later=self._loop.call_later,
            tokens=self._tokens(),
            certificates=self.config.client_tls.client_cert_auth,
        )
        self._passwords = PasswordThread(self.config.bcrypt_cost, self._loop)
        self._guard = context.guard
        self.watches = WatchService(context, self._random)
        leases = LeaseService(context, self.keeper, self._random)
        services: Methods = {
            **KvService(context).methods(),
            **self.watches.methods(),
            **leases.methods(),
            **LockService(context, leases.new_id).methods(),
            **ElectionService(context, leases.new_id).methods(),
            **ReadinessService(context, self.keeper, self._random).methods(),
            **QuotaService(context).methods(),
            **ClusterService(context, self.changes).methods(),
            **MaintenanceService(context).methods(),
            **AuthService(context, self._passwords.passwords, self._passwords.run).methods(),
            **SnapshotService(context).methods(),
            **HealthService().methods(),
        }
        self._leader_door = LeaderDoor(context)
        reflection = ReflectionService(services).methods()
        methods = context.guard.wrap(self._leader_door.wrap({**services, **reflection}))
        self._http = HttpServer(context, methods)
        traffic = open_traffic(self.config)
        self._upkeep = Upkeep(
            context,
            methods=methods,
            traffic=traffic,
            transport=self.transport,
            log_writer=self._log_writer,
            keeper=self.keeper,
            changes=self.changes,
            watches=self.watches,
        )
        await self._upkeep.serve(self._http, self._metrics_sockets)
        limits = Limits(
            max_message_bytes=self.config.max_request_bytes + (512 << 10),
            max_concurrent_streams=self.config.max_concurrent_streams,
            keepalive_min_time_s=self.config.keepalive_min_time_s,
            keepalive_interval_s=self.config.keepalive_interval_s,
            keepalive_timeout_s=self.config.keepalive_timeout_s,
        )
        for url, sock in zip(self.config.listen_client_urls, sockets):
            guard = self._client_door.guard if self._client_door and url.scheme == "https" else None
            server = await serve(
                sock,
                methods,
                limits=limits,
                http1_factory=self._http.protocol,
                guard=guard,
                traffic=traffic,
            )
            self._servers.append(server)

    def _tokens(self) -> Tokens:
        try:
            if self._token_options.kind == "jwt":
                return open_jwt(self._token_options, self.machine.auth, wall_s=time.time)
        except OSError as problem:
            raise MemberFailed(f"--auth-token: {problem.filename}: {problem.strerror}") from None
        except ValueError as problem:
            raise MemberFailed(f"--auth-token: {problem}") from None
        return simple_tokens(self.config, self.machine, self._loop.time, random.SystemRandom())

    def _begin(self, start: Start) -> None:
        """Time starts. A lone voter elects itself at once; others, as etcd does, start close to an election,
        which pre-vote makes harmless where there is a leader already."""
        node = self.driver.node
        if node.conf.voters == (self.member_id,):
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
        self._leader_door.tick()
        self.changes.tick()
        self._guard.tokens.tick()
        if self._upkeep is not None:
            self._upkeep.tick()
        self._reconcile_peers()
        self._publish()
        if self.driver.is_leader:
            target = self._auto_compaction.tick(self._loop.time(), self.machine.revision)
            if target is not None and target > self.machine.compact_revision:
                request = CompactionRequest(revision=target)
                self.driver.propose(*own_command(Kind.COMPACT, request.SerializeToString()), _ignore)

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
            level=LEVEL,
        )
        self.driver.propose(Kind.MEMBER_PUBLISH, record.SerializeToString(), self._publish_answered)

    def _publish_answered(self, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            self._published = False
            return
        if self._told_ready:
            return
        self._told_ready = True
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
            how = "securely" if url.scheme == "https" else "insecurely; this is strongly discouraged!"
            log.info(f"serving client traffic {how}", address=str(url))
        notify_systemd()

    # Peers

    def _known_members(self) -> list[Member]:
        return [record.member for _, record in sorted(self.machine.members.items())]

    def _config_in_log(self, conf: ConfState, added: Sequence[MemberRecord], applied: bool) -> None:
        """A member that is new is reached from the moment it is in the log: its vote may be needed for more."""
        for record in added:
            if record.member.ID not in self.machine.removed:
                self.transport.set_peer(record.member.ID, record.member.peerURLs)
        if applied:
            for member_id in self.transport.peer_ids:
                if member_id in self.machine.removed:
                    self.transport.notify(member_id, REMOVED, b"")  # it is sent no entries any more
            log.info(
                "applied a configuration change",
                voters=[f"{node:x}" for node in conf.voters],
                outgoing=[f"{node:x}" for node in conf.voters_outgoing],
                learners=[f"{node:x}" for node in (*conf.learners, *conf.learners_next)],
            )

    def _reconcile_peers(self) -> None:
        """Connections follow the members' table. A removed member is left alone for a moment, so that it may
        hear of its removal, and is refused from then on."""
        machine, now = self.machine, self._loop.time()
        if self.member_id in machine.removed:
            self._leave()
            return
        for member_id, record in machine.members.items():
            if member_id != self.member_id and self.transport.urls(member_id) != record.member.peerURLs:
                self.transport.set_peer(member_id, record.member.peerURLs)
        for member_id in self.transport.peer_ids:
            if member_id not in machine.removed:
                continue
            if now - self._removed_at.setdefault(member_id, now) > REMOVED_GRACE_S:
                removal = self._loop.create_task(self.transport.remove_peer(member_id))
                self._removals.add(removal)
                removal.add_done_callback(self._removals.discard)

    def _leave(self) -> None:
        """The cluster goes on without this member: it stops, and never comes back under this id."""
        if not self._ended.done():
            log.error("server error", error=REMOVED_TEXT)
            self._ended.set_result(0)

    def _check_hello(self, hello: PeerHello) -> PeerWelcome:
        """Refuses who was removed, and who lives under an id that another data directory was published for."""
        if hello.from_id in self.machine.removed:
            return PeerWelcome(refusal=REMOVED_TEXT, code="removed")
        known = self.machine.members.get(hello.from_id)
        if known is not None and known.data_id and known.data_id != hello.data_id:
            text = f"member {hello.from_id:x} has already been bootstrapped"
            return PeerWelcome(refusal=text, code="already-bootstrapped")
        if hello.channel == "raft" and self._incarnations.get(hello.from_id) != hello.incarnation:
            # Of an older version until now, it would have kept no word of which commands this member knows.
            self._incarnations[hello.from_id] = hello.incarnation
            self._published = False
        return PeerWelcome()

    def _refused(self, node_id: int, welcome: PeerWelcome) -> None:
        log.warn("a peer refuses this member", peer=f"{node_id:x}", reason=welcome.refusal)
        if welcome.code == "already-bootstrapped":
            self.fail(bootstrapped_text(self.member_id, self.config.data_dir))
        if welcome.code == "removed":
            self._leave()

    def _snapshot_received(self, from_id: int, message: InstallSnapshot, path: str) -> None:
        """Installed within this call: what goes wrong with that is not the transfer's, it ends the member."""
        self._guarded_call(lambda: self.snapshots.received(message, path))

    def _notified(self, from_id: int, kind: int, payload: bytes) -> None:
        if kind == FORWARD:
            self.driver.forwarded(payload)
        elif kind == REMOVED:
            self._leave()

    def _requested(
        self, from_id: int, kind: int, payload: bytes, reply: Callable[[bytes | None], None]
    ) -> None:
        if kind == CHANGE_MEMBERS:
            self.changes.serve(payload, reply)
        elif self._upkeep is not None and self._upkeep.serves(kind, payload, reply):
            pass
        elif kind >= RENEW:
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
        if isinstance(problem, UnknownCommand):
            self.fail(str(problem))
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
        if self._client_door is not None:
            await self._client_door.close()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self.driver.stop()
        await self._http.close()
        if self._upkeep is not None:
            await self._upkeep.close()
        await self.snapshots.close()
        await self._transfers.close()
        await self.transport.close()
        if self._peer_door is not None:
            await self._peer_door.close()
        self._log_writer.close()
        self._passwords.close()
        self.machine.flush_and_close()
        log.info("closed kvstore member", name=self.config.name, data_dir=self.config.data_dir)

    async def _hand_over(self) -> None:
        """To the follower with the longest log, so that the others need not wait for an election timeout."""
        driver = self.driver
        progress = driver.node.status().progress
        voters = driver.node.conf.voters
        others = [
            (each.match, node_id)
            for node_id, each in progress.items()
            if node_id != self.member_id and node_id in voters
        ]
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


def token_options(text: str) -> TokenOptions:
    """Raises MemberFailed."""
    try:
        return parse_options(text, parse_duration)
    except ValueError as problem:
        raise MemberFailed(f"--auth-token: {problem}") from None


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
