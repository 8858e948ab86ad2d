"""A reading as Prometheus text. Imports prometheus-client, so nothing may import this before the first scrape.

Histograms have etcd's buckets. Metrics of parts that a member here has not (a v2 store, bbolt's pages) are there
and empty, and say so: a dashboard that asks for one must not take its absence for a member that is down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from google.protobuf import descriptor_pool
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from kvstore.commands import Kind
from kvstore.meters import DISK_SECONDS, REQUEST_SECONDS, Histogram, doubling
from kvstore.metrics.single import SINGLE, C
from kvstore.metrics.sources import Reading
from kvstore.version import CLUSTER_VERSION, ETCD_VERSION
from kvstore.wire.traffic import HANDLING_SECONDS, CallCounts

CODES = (
    "OK Canceled Unknown InvalidArgument DeadlineExceeded NotFound AlreadyExists PermissionDenied"
    " ResourceExhausted FailedPrecondition Aborted OutOfRange Unimplemented Internal Unavailable DataLoss"
    " Unauthenticated"
).split()
OPERATIONS = {
    Kind.COMPACT: "Compaction",
    Kind.MEMBER_PUBLISH: "ClusterMemberAttrSet",
    Kind.TOKEN_GRANT: "Authenticate",
}
"""etcd's names of what is applied, where they are not the command's own."""
REQUEST_TYPES = {
    "/etcdserverpb.KV/Range": "range",
    "/etcdserverpb.KV/Put": "put",
    "/etcdserverpb.KV/DeleteRange": "delete_range",
    "/etcdserverpb.KV/Txn": "txn",
    "/etcdserverpb.KV/Compact": "compact",
    "/etcdserverpb.Lease/LeaseGrant": "lease_grant",
    "/etcdserverpb.Lease/LeaseRevoke": "lease_revoke",
}
EMPTY = "Always empty: "
Labels = Mapping[str, str]


def render(reading: Reading, scrapes: Sequence[int]) -> str:
    """The whole page. scrapes: answered, failed."""
    registry = CollectorRegistry()
    registry.register(_Families(list(_families(reading, scrapes))))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode() + "".join(_bare_counters(reading))


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(reading: Reading, scrapes: Sequence[int]) -> Iterator[Metric]:
    for name, kind, text in SINGLE:
        value = reading.values[name]
        if kind != C:
            yield GaugeMetricFamily(name, text, value=value)
        elif name.endswith("_total"):
            yield CounterMetricFamily(name, text, value=value)
    yield from _identity(reading)
    yield from _histograms(reading)
    yield from _applied(reading)
    yield from _peers(reading)
    yield from _health(reading)
    yield from _quotas(reading)
    yield from _calls(reading)
    yield from _v2_store()
    in_flight = "Scrapes under way."
    yield GaugeMetricFamily("promhttp_metric_handler_requests_in_flight", in_flight, value=1)
    answered = CounterMetricFamily(
        "promhttp_metric_handler_requests_total", "Scrapes by status.", labels=["code"]
    )
    for code, count in zip(("200", "500", "503"), (*scrapes, 0)):
        answered.add_metric([code], count)
    yield answered


def _bare_counters(reading: Reading) -> Iterator[str]:
    """etcd has counters whose names do not end in _total. prometheus-client gives every counter that ending, so
    these are written out here."""
    for name, kind, text in SINGLE:
        if kind == C and not name.endswith("_total"):
            value = _text(reading.values[name])
            yield f"# HELP {name} {text}\n# TYPE {name} counter\n{name} {value}\n"
    name, text = "etcd_server_learner_promote_failures", "Promotions this leader refused, by reason."
    yield f"# HELP {name} {text}\n# TYPE {name} counter\n"
    for reason, count in sorted(reading.failed_promotions.items()):
        yield f'{name}{{Reason="{reason}"}} {_text(count)}\n'


def _gauge(name: str, text: str, labels: Labels) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _identity(reading: Reading) -> Iterator[Metric]:
    version = CLUSTER_VERSION.rpartition(".")[0]
    yield _gauge("etcd_cluster_version", "Version of the cluster.", {"cluster_version": version})
    yield _gauge("etcd_server_version", "Version of etcd spoken here.", {"server_version": ETCD_VERSION})
    yield _gauge("etcd_server_id", "This member's id.", {"server_id": f"{reading.member_id:x}"})
    import platform

    runtime = f"python{platform.python_version()}"
    yield _gauge("etcd_server_go_version", "What runs it: not Go here.", {"server_go_version": runtime})


def _histogram(
    name: str, text: str, histograms: Iterable[tuple[Sequence[str], Histogram]], labels: Sequence[str] = ()
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=list(labels))
    for values, histogram in histograms:
        total, buckets = 0, []
        for bound, count in zip((*histogram.bounds, float("inf")), list(histogram.counts)):
            total += count
            buckets.append((_text(bound), float(total)))
        family.add_metric(list(values), buckets, histogram.sum)
    return family


def _histograms(reading: Reading) -> Iterator[Metric]:
    state, watches = reading.state, reading.watches
    disk, pause = Histogram(DISK_SECONDS), Histogram(doubling(0.5, 14))
    told: list[tuple[str, str, Histogram]] = [
        ("etcd_disk_wal_fsync_duration_seconds", "Writing and syncing a log frame.", reading.sync_seconds),
        ("etcd_disk_backend_commit_duration_seconds", "Storing a generation.", state.commit_seconds),
        (
            "etcd_debugging_disk_backend_commit_write_duration_seconds",
            "Storing a generation.",
            state.commit_seconds,
        ),
        (
            "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
            f"{EMPTY}LMDB has no such step.",
            disk,
        ),
        (
            "etcd_debugging_disk_backend_commit_spill_duration_seconds",
            f"{EMPTY}LMDB has no such step.",
            disk,
        ),
        (
            "etcd_disk_backend_defrag_duration_seconds",
            f"{EMPTY}nothing is rewritten.",
            Histogram(doubling(0.1, 13)),
        ),
        ("etcd_disk_backend_snapshot_duration_seconds", "Copying the database.", state.snapshot_seconds),
        ("etcd_debugging_lease_ttl_total", "TTLs of leases granted, in seconds.", state.lease_ttl_s),
        (
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            "One slice of a removal of old versions: how long the loop was held.",
            state.compaction_slice_ms,
        ),
        (
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "A removal from its first slice to its last.",
            state.compaction_total_ms,
        ),
        (
            "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
            f"{EMPTY}there is no index in memory.",
            pause,
        ),
        ("etcd_mvcc_hash_duration_seconds", "Hashing the whole database.", state.database_hash_seconds),
        ("etcd_mvcc_hash_rev_duration_seconds", "Hashing the key space at a revision.", state.hash_seconds),
        (
            "etcd_snap_db_save_total_duration_seconds",
            "Installing a received snapshot.",
            state.install_seconds,
        ),
        ("etcd_snap_db_fsync_duration_seconds", f"{EMPTY}part of the installation.", disk),
        ("etcd_snap_fsync_duration_seconds", f"{EMPTY}there are no snapshot files of the log.", disk),
        (
            "etcd_debugging_snap_save_marshalling_duration_seconds",
            f"{EMPTY}there are no snapshot files of the log.",
            disk,
        ),
        (
            "etcd_debugging_snap_save_total_duration_seconds",
            f"{EMPTY}there are no snapshot files of the log.",
            disk,
        ),
    ]
    sending = "etcd_debugging_server_watch_send_loop_"
    told += [
        (f"{sending}watch_stream_duration_seconds", "Handing a watcher its events.", watches.events),
        (f"{sending}watch_stream_duration_per_event_seconds", "The same, an event.", watches.per_event),
        (f"{sending}control_stream_duration_seconds", "Creating or ending a watch.", watches.control),
        (f"{sending}progress_duration_seconds", "Telling a stream how far it is.", watches.progress),
    ]
    for name, text, histogram in told:
        yield _histogram(name, text, [((), histogram)])


def _operation(kind: int) -> str:
    named = OPERATIONS.get(Kind(kind))
    if named is not None:
        return named
    words = Kind(kind).name.title().replace("_", "")
    return f"Auth{words}" if words.startswith(("User", "Role")) else words


def _applied(reading: Reading) -> Iterator[Metric]:
    yield _histogram(
        "etcd_server_apply_duration_seconds",
        "Applying a command; commands of one log entry share its time.",
        [
            (("v3", _operation(kind), str(ok).lower()), histogram)
            for (kind, ok), histogram in sorted(reading.state.apply_seconds.copy().items())
        ],
        ["version", "op", "success"],
    )
    yield _histogram(
        "etcd_server_range_duration_seconds",
        "Reading a range from state; of single keys one in sixteen is timed and stands for the others.",
        [((word,), reading.state.range_seconds[word == "true"]) for word in ("false", "true")],
        ["success"],
    )


def _peers(reading: Reading) -> Iterator[Metric]:
    own = f"{reading.member_id:x}"
    active = GaugeMetricFamily("etcd_network_active_peers", "1: connected to it.", labels=["Local", "Remote"])
    known = GaugeMetricFamily(
        "etcd_network_known_peers", "1: a member it should reach.", labels=["Local", "Remote"]
    )
    for node, connected in reading.active_peers:
        active.add_metric([own, f"{node:x}"], connected)
        known.add_metric([own, f"{node:x}"], 1)
    yield active
    yield known
    sent, received = "etcd_network_peer_sent", "etcd_network_peer_received"
    families = [
        CounterMetricFamily(f"{sent}_bytes_total", "Bytes to a member.", labels=["To"]),
        CounterMetricFamily(f"{sent}_failures_total", "Sendings to a member that failed.", labels=["To"]),
        CounterMetricFamily(f"{received}_bytes_total", "Bytes from a member.", labels=["From"]),
        CounterMetricFamily(
            f"{received}_failures_total", "Messages of a member that could not be read.", labels=["From"]
        ),
    ]
    for node, meter in reading.peers:
        numbers = (
            *(meter.sent_bytes, meter.sent_failures),
            *(meter.received_bytes, meter.received_failures),
        )
        for family, number in zip(families, numbers):
            family.add_metric([f"{node:x}"], number)
    yield from families
    yield _histogram(
        "etcd_network_peer_round_trip_time_seconds",
        "A question to a member and its answer.",
        [((f"{node:x}",), meter.round_trip) for node, meter in reading.peers],
        ["To"],
    )


def _health(reading: Reading) -> Iterator[Metric]:
    last = GaugeMetricFamily("etcd_server_healthcheck", "1: passed when last asked.", labels=["type", "name"])
    all_ = CounterMetricFamily(
        "etcd_server_healthchecks_total", "Checks made.", labels=["type", "name", "status"]
    )
    for (probe, check), (passing, passed, failed) in sorted(reading.checks.items()):
        last.add_metric([probe, check], passing)
        all_.add_metric([probe, check, "success"], passed)
        all_.add_metric([probe, check, "error"], failed)
    yield last
    yield all_


def _quotas(reading: Reading) -> Iterator[Metric]:
    """Ours. A limit that there is not has no sample."""
    limits = GaugeMetricFamily("kvstore_quota_limit", "What a prefix may hold.", labels=["prefix", "limit"])
    used = GaugeMetricFamily("kvstore_quota_used", "What lies under a prefix.", labels=["prefix", "limit"])
    refused = CounterMetricFamily(
        "kvstore_quota_refusals_total", "Requests that a quota refused.", labels=["prefix", "limit"]
    )
    for prefix, record, refusals in reading.quotas:
        for name, allowed in (
            ("bytes", record.bytes_max),
            ("keys", record.keys_max),
            ("qps", record.qps_max),
        ):
            if allowed:
                limits.add_metric([prefix, name], allowed)
            refused.add_metric([prefix, name], refusals[name])
        used.add_metric([prefix, "bytes"], record.used_bytes)
        used.add_metric([prefix, "keys"], record.used_keys)
    yield from (limits, used, refused)


class _Method:
    """One gRPC method's counts, of all client versions."""

    def __init__(self, path: str, is_stream: bool, counts: Sequence[CallCounts]) -> None:
        service, _, method = path.lstrip("/").partition("/")
        self.kind = _kind_of(service, method) if is_stream else "unary"
        self.labels = [service, method, self.kind]
        self.path = path
        self.started = sum(each.started for each in counts)
        self.codes = [sum(each.codes[code] for each in counts) for code in range(len(CODES))]
        self.codes[0] += sum(each.ok for each in counts)
        if self.kind == "unary":
            self.received, self.sent = self.started, self.codes[0]
        else:
            self.received = sum(each.received for each in counts)
            self.sent = sum(each.sent for each in counts)
        self.counts = counts


def _kind_of(service: str, method: str) -> str:
    """Which ends of a stream may send more than once, as its proto says; both, where there is none."""
    try:
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    except KeyError:
        return "bidi_stream"
    if found.client_streaming:
        return "bidi_stream" if found.server_streaming else "client_stream"
    return "server_stream"


def _calls(reading: Reading) -> Iterator[Metric]:
    everything = reading.traffic.all()
    methods = [
        _Method(path, is_stream, [each for each in everything if each.path == path])
        for path, is_stream in reading.paths.items()
    ]
    labels = ["grpc_service", "grpc_method", "grpc_type"]
    started = CounterMetricFamily("grpc_server_started_total", "Calls begun.", labels=labels)
    handled = CounterMetricFamily("grpc_server_handled_total", "Calls ended.", labels=[*labels, "grpc_code"])
    received = CounterMetricFamily("grpc_server_msg_received_total", "Messages received.", labels=labels)
    sent = CounterMetricFamily("grpc_server_msg_sent_total", "Messages sent.", labels=labels)
    for method in methods:
        started.add_metric(method.labels, method.started)
        received.add_metric(method.labels, method.received)
        sent.add_metric(method.labels, method.sent)
        for code, count in zip(CODES, method.codes):
            handled.add_metric([*method.labels, code], count)
    yield from (started, handled, received, sent)
    if reading.exact:
        yield _histogram(
            "grpc_server_handling_seconds",
            "A call from its first frame to its answer.",
            [
                (method.labels, merged([each.handling for each in method.counts], HANDLING_SECONDS))
                for method in methods
                if method.kind == "unary"
            ],
            labels,
        )
    yield _requests(methods)
    by_version: dict[tuple[str, str], int] = {}
    kinds = {method.path: "unary" if method.kind == "unary" else "stream" for method in methods}
    for each in everything:
        place = kinds[each.path], each.version
        by_version[place] = by_version.get(place, 0) + each.started
    requests = CounterMetricFamily(
        "etcd_server_client_requests_total",
        "Calls by the client's version of the API.",
        labels=["type", "client_api_version"],
    )
    for place, count in sorted(by_version.items()):
        requests.add_metric(place, count)
    yield requests


def _requests(methods: Sequence[_Method]) -> Metric:
    return _histogram(
        "etcd_server_request_duration_seconds",
        "Requests from their first frame to their answer; unless metrics are extensive, one in sixteen is timed.",
        [
            ((REQUEST_TYPES[method.path], word), merged(histograms, REQUEST_SECONDS))
            for method in methods
            if method.path in REQUEST_TYPES
            for word in ("false", "true")
            for histograms in [[each.requests[word == "true"] for each in method.counts]]
        ],
        ["type", "success"],
    )


def _v2_store() -> Iterator[Metric]:
    none = "Always 0: there is no v2 store here."
    reads = CounterMetricFamily("etcd_debugging_store_reads_total", none, labels=["action"])
    reads.add_metric(["getRecursive"], 0)
    writes = CounterMetricFamily("etcd_debugging_store_writes_total", none, labels=["action"])
    for action in ("create", "set"):
        writes.add_metric([action], 0)
    yield from (reads, writes)
    failures = "Always empty: a stream that fails is counted in grpc_server_handled_total."
    yield CounterMetricFamily("etcd_network_server_stream_failures_total", failures, labels=["Type", "API"])


def _text(number: float) -> str:
    """As Go writes it: 1, and 1.048576e+06. Queries name buckets by this text."""
    return str(floatToGoString(number)).removesuffix(".0")  # type: ignore[no-untyped-call]


def merged(histograms: Sequence[Histogram], bounds: Sequence[float]) -> Histogram:
    """One of several with the same buckets."""
    whole = Histogram(bounds)
    for each in histograms:
        whole.counts = [a + b for a, b in zip(whole.counts, each.counts)]
        whole.sum += each.sum
    return whole
