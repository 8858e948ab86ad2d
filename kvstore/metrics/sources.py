"""Where each number comes from: the one place that knows both a metric's name and the part that counts it.

read() runs on the event loop, which owns the parts, and is short. What it returns is turned into text elsewhere.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass, field

from kvstore.api.context import Context
from kvstore.api.errors import TABLE
from kvstore.api.maintenance import is_learner
from kvstore.api.watch import WatchService
from kvstore.meters import HealthMeter, Histogram, PeerMeter, WatchMeter
from kvstore.pb.internal_pb2 import QuotaRecord
from kvstore.replication.lease_keeper import LeaseKeeper
from kvstore.replication.member_changes import MemberChanges
from kvstore.replication.peers import PeerTransport
from kvstore.replication.wal_writer import WalWriter
from kvstore.rpc import Methods, StreamMethod
from kvstore.state.meters import StateMeter
from kvstore.wire.traffic import Traffic


@dataclass
class Beats:
    """A leader's heartbeats, as far as they were late."""

    interval_s: float
    late: int = 0
    _last: float | None = None

    def tick(self, now: float, leading: bool) -> None:
        if leading and self._last is not None and now - self._last > 2 * self.interval_s:
            self.late += 1
        self._last = now


@dataclass
class Reading:
    """One moment of a member. What is counted without end is read from the meters, a moment later."""

    values: dict[str, float]
    member_id: int
    active_peers: list[tuple[int, bool]]
    peers: list[tuple[int, PeerMeter]]
    failed_promotions: dict[str, int]
    checks: dict[tuple[str, str], list[int]]
    traffic: Traffic
    state: StateMeter
    watches: WatchMeter
    sync_seconds: Histogram
    paths: dict[str, bool]  # of every method, and whether it is a stream
    quotas: list[tuple[str, QuotaRecord, dict[str, int]]]  # shown prefix, limits and use, refusals by limit
    exact: bool


@dataclass
class Sources:
    context: Context
    methods: Methods
    traffic: Traffic
    transport: PeerTransport
    log_writer: WalWriter
    keeper: LeaseKeeper
    changes: MemberChanges
    watches: WatchService
    beats: Beats
    exact: bool = field(default=False)

    def read(self) -> Reading:
        return Reading(
            values={**self._state(), **self._server(), **_process(), **_never()},
            member_id=self.context.member_id,
            active_peers=[(node, self.transport.connected(node)) for node in self.transport.peer_ids],
            peers=[(node, self.transport.meter(node)) for node in self.transport.peer_ids],
            failed_promotions={_reason(name): n for name, n in self.changes.failed_promotions.items()},
            checks=dict(self.context.health.checks),
            traffic=self.traffic,
            state=self.context.machine.meter,
            watches=self.watches.meter,
            sync_seconds=self.log_writer.sync_seconds,
            paths={path: isinstance(self.methods[path], StreamMethod) for path in sorted(self.methods)},
            quotas=[
                (quota.prefix.decode("utf-8", "backslashreplace"), quota.record(), dict(quota.refused))
                for quota in self.context.machine.quotas.all()
            ],
            exact=self.exact,
        )

    def _state(self) -> dict[str, float]:
        machine, hub = self.context.machine, self.context.machine.hub
        meter = machine.meter
        return {
            "etcd_debugging_auth_revision": machine.auth.revision,
            "etcd_debugging_lease_granted_total": meter.leases_granted,
            "etcd_debugging_lease_renewed_total": self.keeper.renewed,
            "etcd_debugging_lease_revoked_total": meter.leases_revoked,
            "etcd_debugging_mvcc_compact_revision": machine.compact_revision,
            "etcd_debugging_mvcc_current_revision": machine.revision,
            "etcd_debugging_mvcc_db_compaction_keys_total": meter.compacted_keys,
            "etcd_debugging_mvcc_db_compaction_last": meter.compaction_last_s,
            "etcd_debugging_mvcc_events_total": hub.event_count,
            "etcd_debugging_mvcc_keys_total": machine.keyspace.key_count,
            "etcd_debugging_mvcc_pending_events_total": hub.pending_count,
            "etcd_debugging_mvcc_range_total": meter.ranges,
            "etcd_debugging_mvcc_slow_watcher_total": hub.behind_count,
            "etcd_debugging_mvcc_total_put_size_in_bytes": meter.put_bytes,
            "etcd_debugging_mvcc_watch_stream_total": self.watches.stream_count,
            "etcd_debugging_mvcc_watcher_total": hub.watcher_count,
            "etcd_debugging_server_lease_expired_total": self.keeper.expired,
            "etcd_disk_wal_write_bytes_total": self.log_writer.written_bytes,
            "etcd_mvcc_db_open_read_transactions": machine.reader_count,
            "etcd_mvcc_db_total_size_in_bytes": machine.db_size,
            "etcd_mvcc_db_total_size_in_use_in_bytes": machine.db_size_in_use,
            "etcd_mvcc_delete_total": meter.deletes,
            "etcd_mvcc_put_total": meter.puts,
            "etcd_mvcc_range_total": meter.ranges,
            "etcd_mvcc_txn_total": meter.txns,
            "etcd_server_slow_apply_total": meter.slow_applies,
        }

    def _server(self) -> dict[str, float]:
        context, driver, traffic = self.context, self.context.driver, self.traffic
        return {
            "etcd_network_client_grpc_received_bytes_total": traffic.received_bytes,
            "etcd_network_client_grpc_sent_bytes_total": traffic.sent_bytes,
            "etcd_server_has_leader": bool(driver.leader_id),
            "etcd_server_health_failures": context.health.failures,
            "etcd_server_health_success": context.health.successes,
            "etcd_server_heartbeat_send_failures_total": self.beats.late,
            "etcd_server_is_leader": driver.is_leader,
            "etcd_server_is_learner": is_learner(driver.node.conf, context.member_id),
            "etcd_server_leader_changes_seen_total": driver.leader_changes,
            "etcd_server_learner_promote_successes": self.changes.promotions,
            "etcd_server_proposals_applied_total": context.machine.applied_index,
            "etcd_server_proposals_committed_total": driver.node.commit,
            "etcd_server_proposals_failed_total": driver.failed_proposals,
            "etcd_server_proposals_pending": driver.outbox.commands_pending,
            "etcd_server_quota_backend_bytes": max(0, context.config.quota_backend_bytes),
            "etcd_server_read_indexes_failed_total": driver.read_timeouts,
            "etcd_server_slow_read_indexes_total": driver.read_retries,
        }


def _process() -> dict[str, float]:
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    return {
        "os_fd_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "os_fd_used": len(os.listdir("/proc/self/fd")),
        "process_virtual_memory_max_bytes": float(2**64 if address_space < 0 else address_space),
    }


def _never() -> dict[str, float]:
    """Of parts that etcd has and a member here has not. Dashboards that sum them up must find them."""
    return dict.fromkeys(
        (
            "etcd_debugging_store_expires_total",
            "etcd_debugging_store_watch_requests_total",
            "etcd_debugging_store_watchers",
            "etcd_disk_defrag_inflight",
            "etcd_grpc_proxy_cache_hits_total",
            "etcd_grpc_proxy_cache_keys_total",
            "etcd_grpc_proxy_cache_misses_total",
            "etcd_grpc_proxy_events_coalescing_total",
            "etcd_grpc_proxy_watchers_coalescing_total",
            "etcd_server_snapshot_apply_in_progress_total",  # it is installed within one turn of the loop
        ),
        0.0,
    )


def _reason(name: str) -> str:
    """etcd's text of an error that is told apart by its class here."""
    for kind, (_, text) in TABLE.items():
        if kind.__name__ == name:
            return text
    return name


__all__ = ["Beats", "HealthMeter", "Reading", "Sources"]
