"""GET /metrics beside real etcd's: every name, kind and label it has but Go's own, and numbers that move."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from kvstore.demo.processes import free_ports
from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import QUICK_ELECTIONS, Cluster, Member, running_cluster

# What etcd's alerting rules (contrib/mixin) and its dashboard (op-guide/grafana.json) ask for, with the labels
# they tell apart.
ASKED_FOR = {
    "etcd_server_has_leader": "",
    "etcd_server_leader_changes_seen_total": "",
    "etcd_server_proposals_committed_total": "",
    "etcd_server_proposals_applied_total": "",
    "etcd_server_proposals_pending": "",
    "etcd_server_proposals_failed_total": "",
    "etcd_server_quota_backend_bytes": "",
    "etcd_server_is_leader": "",
    "etcd_server_is_learner": "",
    "etcd_server_id": "server_id",
    "etcd_server_version": "server_version",
    "etcd_server_health_success": "",
    "etcd_server_health_failures": "",
    "etcd_server_healthcheck": "type name",
    "etcd_server_healthchecks_total": "type name status",
    "etcd_server_slow_apply_total": "",
    "etcd_server_slow_read_indexes_total": "",
    "etcd_server_read_indexes_failed_total": "",
    "etcd_server_heartbeat_send_failures_total": "",
    "etcd_server_apply_duration_seconds_bucket": "version op success le",
    "etcd_server_range_duration_seconds_bucket": "success le",
    "etcd_server_request_duration_seconds_bucket": "type success le",
    "etcd_server_client_requests_total": "type client_api_version",
    "etcd_server_learner_promote_successes": "",
    "etcd_cluster_version": "cluster_version",
    "etcd_disk_wal_fsync_duration_seconds_bucket": "le",
    "etcd_disk_wal_write_bytes_total": "",
    "etcd_disk_backend_commit_duration_seconds_bucket": "le",
    "etcd_disk_backend_defrag_duration_seconds_bucket": "le",
    "etcd_disk_defrag_inflight": "",
    "etcd_mvcc_db_total_size_in_bytes": "",
    "etcd_mvcc_db_total_size_in_use_in_bytes": "",
    "etcd_mvcc_put_total": "",
    "etcd_mvcc_delete_total": "",
    "etcd_mvcc_range_total": "",
    "etcd_mvcc_txn_total": "",
    "etcd_network_client_grpc_sent_bytes_total": "",
    "etcd_network_client_grpc_received_bytes_total": "",
    "etcd_network_peer_sent_bytes_total": "To",
    "etcd_network_peer_received_bytes_total": "From",
    "etcd_network_peer_sent_failures_total": "To",
    "etcd_network_peer_received_failures_total": "From",
    "etcd_network_peer_round_trip_time_seconds_bucket": "To le",
    "etcd_network_active_peers": "Local Remote",
    "etcd_network_known_peers": "Local Remote",
    "etcd_debugging_mvcc_keys_total": "",
    "etcd_debugging_mvcc_watcher_total": "",
    "etcd_debugging_mvcc_watch_stream_total": "",
    "etcd_debugging_mvcc_slow_watcher_total": "",
    "etcd_debugging_mvcc_pending_events_total": "",
    "etcd_debugging_mvcc_events_total": "",
    "etcd_debugging_mvcc_current_revision": "",
    "etcd_debugging_mvcc_compact_revision": "",
    "etcd_debugging_lease_granted_total": "",
    "etcd_debugging_lease_revoked_total": "",
    "etcd_debugging_lease_renewed_total": "",
    "etcd_debugging_server_lease_expired_total": "",
    "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds_bucket": "le",
    "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds_bucket": "le",
    "grpc_server_started_total": "grpc_service grpc_method grpc_type",
    "grpc_server_handled_total": "grpc_service grpc_method grpc_type grpc_code",
    "grpc_server_handling_seconds_bucket": "grpc_service grpc_method grpc_type le",
    "process_resident_memory_bytes": "",
    "process_cpu_seconds_total": "",
    "process_open_fds": "",
    "process_max_fds": "",
    "os_fd_used": "",
    "os_fd_limit": "",
}
# There and without a sample until there is something to tell.
ONLY_NAMED = ("etcd_server_learner_promote_failures", "etcd_network_server_stream_failures_total")


@dataclass
class Scrape:
    text: str

    @property
    def kinds(self) -> dict[str, str]:
        return dict(re.findall(r"^# TYPE (\S+) (\S+)$", self.text, re.MULTILINE))

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", self.text, re.MULTILINE)
        return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in found]

    @property
    def labels(self) -> dict[str, set[frozenset[str]]]:
        """name -> the sets of label names it has samples with."""
        found: dict[str, set[frozenset[str]]] = {}
        for name, labels in re.findall(r"^([a-z_0-9]+)(?:{(.*)})? \S+$", self.text, re.MULTILINE):
            found.setdefault(name, set()).add(frozenset(re.findall(r'(\w+)="', labels)))
        return found

    def value(self, metric: str, **labels: str) -> float:
        """Of the one sample that has these labels, or the sum of several."""
        values = [value for given, value in self.samples(metric) if labels.items() <= given.items()]
        assert values, f"no {metric} with {labels}"
        return sum(values)


def scrape(endpoint: str) -> Scrape:
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Scrape(reply.read().decode())


class Calls:
    def __init__(self, endpoint: str) -> None:
        self.channel = grpc.insecure_channel(endpoint)

    def __call__(self, path: str, request: Any, reply: Any) -> Any:
        method = self.channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return method(request, timeout=10, metadata=(("client-api-version", "3.5"),))

    def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> None:
        self("/etcdserverpb.KV/Put", pb.PutRequest(key=key, value=value, lease=lease), pb.PutResponse)


@pytest.fixture(scope="module")
def ours() -> Iterator[tuple[Cluster, str]]:
    """Three members that time every call, the first with a listener for metrics alone."""
    (port,) = free_ports(1)

    def prepare(member: Member) -> None:
        if member.name == "m1":
            member.command = [*member.command, "--listen-metrics-urls", f"http://127.0.0.1:{port}"]

    flags = ["--metrics", "extensive", *QUICK_ELECTIONS]
    with running_cluster("kvstore", size=3, flags=flags, prepare=prepare) as cluster:
        yield cluster, f"127.0.0.1:{port}"


def exercise(endpoint: str) -> None:
    """A little of everything, so that metrics with labels have samples."""
    calls = Calls(endpoint)
    calls.put(b"a")
    calls("/etcdserverpb.KV/Range", pb.RangeRequest(key=b"a"), pb.RangeResponse)
    calls("/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest(key=b"a"), pb.DeleteRangeResponse)
    calls.channel.close()


def test_every_name_kind_and_label_of_etcd_is_there(ours: tuple[Cluster, str]) -> None:
    cluster, _ = ours
    exercise(cluster.endpoints[0])
    mine = scrape(cluster.endpoints[0])
    with running_cluster("etcd", flags=["--metrics", "extensive", *QUICK_ELECTIONS]) as reference:
        exercise(reference.endpoints[0])
        theirs = scrape(reference.endpoints[0])
    wanted = {name: kind for name, kind in theirs.kinds.items() if not name.startswith("go_")}
    assert len(wanted) > 90, "etcd shows more than that"
    assert {name: mine.kinds.get(name) for name in wanted} == wanted
    labels = {name: sets for name, sets in theirs.labels.items() if not name.startswith("go_")}
    assert {name: mine.labels.get(name) for name in labels} == labels
    for name, kind in wanted.items():
        if kind == "histogram":
            their_bounds = {given["le"] for given, _ in theirs.samples(f"{name}_bucket")}
            assert their_bounds <= {given["le"] for given, _ in mine.samples(f"{name}_bucket")}, name


def test_what_alerts_and_dashboards_ask_for_is_there(ours: tuple[Cluster, str]) -> None:
    cluster, _ = ours
    endpoint = cluster.endpoints[0]
    exercise(endpoint)
    for probe in ("readyz", "livez"):
        urllib.request.urlopen(f"http://{endpoint}/{probe}", timeout=10).close()
    mine = scrape(endpoint)
    for name, labels in ASKED_FOR.items():
        assert mine.labels.get(name) == {frozenset(labels.split())}, name
    assert mine.kinds.keys() >= set(ONLY_NAMED)
    assert mine.value("etcd_server_healthcheck", type="readyz", name="linearizable_read") == 1
    assert mine.value("etcd_server_healthchecks_total", type="livez", status="success") >= 1


def test_numbers_follow_what_is_done(ours: tuple[Cluster, str]) -> None:
    cluster, _ = ours
    endpoint = cluster.endpoints[0]
    calls = Calls(endpoint)
    before = scrape(endpoint)
    for number in range(5):
        calls.put(b"moves/%d" % number)
    granted = calls("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=60), pb.LeaseGrantResponse)
    calls.put(b"moves/leased", lease=granted.ID)
    watch: Any = calls.channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )
    create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"moves/", range_end=b"moves0"))
    events = watch(iter([create]), timeout=20)
    assert next(events).created
    calls("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=granted.ID), pb.LeaseRevokeResponse)
    assert len(next(events).events) == 1
    with pytest.raises(grpc.RpcError):
        calls.put(b"")
    for number in range(32):  # single reads are timed now and then
        calls("/etcdserverpb.KV/Range", pb.RangeRequest(key=b"moves/%d" % number), pb.RangeResponse)
    watched = scrape(endpoint)
    assert watched.value("etcd_debugging_mvcc_watcher_total") == 1
    assert watched.value("etcd_debugging_mvcc_watch_stream_total") == 1
    assert watched.value("etcd_debugging_mvcc_slow_watcher_total") == 0
    events.cancel()
    revision = int(watched.value("etcd_debugging_mvcc_current_revision"))
    calls(
        "/etcdserverpb.KV/Compact",
        pb.CompactionRequest(revision=revision, physical=True),
        pb.CompactionResponse,
    )
    after = scrape(endpoint)

    def grew(name: str, by: int, **labels: str) -> None:
        def value(at: Scrape) -> float:
            return sum(v for given, v in at.samples(name) if labels.items() <= given.items())

        assert value(after) - value(before) == by, (name, labels)

    grew("etcd_mvcc_put_total", 6)
    grew("etcd_debugging_mvcc_keys_total", 5)
    grew("etcd_debugging_mvcc_total_put_size_in_bytes", 5 * (7 + 1) + 12 + 1)
    grew("etcd_debugging_lease_granted_total", 1)
    grew("etcd_debugging_lease_revoked_total", 1)
    grew("etcd_debugging_mvcc_events_total", 1)
    grew("etcd_mvcc_range_total", 32)
    grew("etcd_server_apply_duration_seconds_count", 6, op="Put", success="true")
    grew("etcd_server_apply_duration_seconds_count", 1, op="LeaseGrant", success="true")
    grew("etcd_server_range_duration_seconds_count", 32)
    grew("grpc_server_started_total", 7, grpc_method="Put", grpc_service="etcdserverpb.KV")
    grew("grpc_server_handled_total", 6, grpc_method="Put", grpc_code="OK")
    grew("grpc_server_handled_total", 1, grpc_method="Put", grpc_code="InvalidArgument")
    grew("grpc_server_handling_seconds_count", 7, grpc_method="Put")
    grew("etcd_server_request_duration_seconds_count", 6, type="put", success="true")
    grew("grpc_server_msg_sent_total", 2, grpc_method="Watch", grpc_service="etcdserverpb.Watch")
    grew("grpc_server_msg_received_total", 1, grpc_method="Watch", grpc_service="etcdserverpb.Watch")
    grew("etcd_server_client_requests_total", 7 + 2 + 32 + 1, type="unary", client_api_version="3.5")
    assert after.value("etcd_debugging_mvcc_compact_revision") == revision
    for name in ("etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_wal_write_bytes_total"):
        assert after.value(name) > before.value(name)
    for way in ("sent", "received"):
        name = f"etcd_network_client_grpc_{way}_bytes_total"
        assert after.value(name) > before.value(name)
    assert eventually(lambda: scrape(endpoint).value("etcd_debugging_mvcc_watcher_total") == 0)
    calls.channel.close()


def test_a_leaders_death_is_counted(ours: tuple[Cluster, str]) -> None:
    cluster, _ = ours
    scrapes = {member.endpoint: scrape(member.endpoint) for member in cluster.members}
    (leader,) = [m for m in cluster.members if scrapes[m.endpoint].value("etcd_server_is_leader")]
    follower = next(m for m in cluster.members if m is not leader)
    before = scrapes[follower.endpoint]
    assert before.value("etcd_server_has_leader") == 1
    assert sum(value for _, value in before.samples("etcd_network_active_peers")) == 2
    assert eventually(
        lambda: scrape(follower.endpoint).value("etcd_network_peer_round_trip_time_seconds_count") >= 1
    )
    leader.kill()
    try:
        follower.wait_ready()
        after = scrape(follower.endpoint)
        name = "etcd_server_leader_changes_seen_total"
        assert after.value(name) > before.value(name)
        assert eventually(
            lambda: sum(v for _, v in scrape(follower.endpoint).samples("etcd_network_active_peers")) == 1
        )
    finally:
        leader.restore()
        cluster.wait_ready()


def test_a_listener_of_its_own_serves_metrics_and_probes_alone(ours: tuple[Cluster, str]) -> None:
    _, listener = ours
    assert scrape(listener).value("etcd_server_has_leader") == 1
    with urllib.request.urlopen(f"http://{listener}/health", timeout=10) as reply:
        assert reply.read() == b'{"health":"true","reason":""}'
    for path in ("version", "v3/kv/range"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{listener}/{path}", timeout=10)


def eventually(condition: Callable[[], bool], limit_s: float = 20.0) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
