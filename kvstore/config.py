"""Flags and environment into one frozen Config. Names, forms, defaults and exit statuses are etcd's.

A flag is `--flag=v`, `--flag v` or `-flag …`; `ETCD_FLAG_NAME` and `KVSTORE_FLAG_NAME` stand in for a flag that
is not given. A flag of etcd's that means nothing here is accepted and named once in `ignored`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kvstore.tls import settings as tls
from kvstore.tls.settings import TlsSettings


class FlagError(ValueError):
    """The command line itself cannot be read: exit status 2, as etcd's."""


class ConfigError(ValueError):
    """The flags can be read and contradict one another: exit status 1, as etcd's."""


@dataclass(frozen=True)
class Url:
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True)
class Config:
    name: str
    data_dir: str
    listen_client_urls: tuple[Url, ...]
    advertise_client_urls: tuple[Url, ...]
    listen_peer_urls: tuple[Url, ...]
    initial_advertise_peer_urls: tuple[Url, ...]
    initial_cluster: Mapping[str, tuple[str, ...]]  # name to peer URLs, of every member at bootstrap
    initial_cluster_state: str  # "new" or "existing"
    initial_cluster_token: str
    heartbeat_interval_ms: int
    election_timeout_ms: int
    snapshot_count: int
    quota_backend_bytes: int
    max_request_bytes: int
    max_txn_ops: int
    auto_compaction_mode: str  # "periodic" or "revision"
    auto_compaction_retention: str
    watch_progress_notify_interval_s: float
    strict_reconfig_check: bool
    max_learners: int
    snapshot_send_bytes_per_s: int
    force_new_cluster: bool
    log_level: str
    log_format: str
    auth_token: str  # "simple", or "jwt" and its options: kvstore/api/tokens.py reads them
    auth_token_ttl_s: int  # of a simple token that is not used
    bcrypt_cost: int
    client_tls: TlsSettings
    peer_tls: TlsSettings
    metrics: str  # "basic", or "extensive": every call is timed
    listen_metrics_urls: tuple[Url, ...]
    corrupt_check_s: float  # how often the leader compares what members hold; 0: never
    initial_corrupt_check: bool  # compare with the others before serving anybody
    auto_disarm: bool  # the NOSPACE alarm goes by itself when there is space again
    warning_apply_s: float  # a log entry or a range that takes longer is told in the log; 0: never
    warning_unary_request_s: float
    keepalive_min_time_s: float  # a client without calls that pings more often is sent away; 0: never
    keepalive_interval_s: float  # a client silent for so long is pinged; 0: never
    keepalive_timeout_s: float  # and gone when it does not answer; 0: never
    max_concurrent_streams: int
    cors: tuple[str, ...] = ("*",)  # origins a browser may call from
    host_whitelist: tuple[str, ...] = ("*",)  # names a request without TLS may ask for
    enable_grpc_gateway: bool = True
    initial_cluster_given: bool = False  # named by a flag or the environment, not made up from the defaults
    ignored: tuple[str, ...] = field(default=())

    @property
    def request_timeout_s(self) -> float:
        """How long a write may wait for its commit: etcd's 5 s and two election timeouts."""
        return 5.0 + 2 * self.election_timeout_ms / 1000

    @property
    def auto_compaction(self) -> tuple[str, float]:
        """("off", 0), ("periodic", seconds) or ("revision", revisions)."""
        return _retention(self.auto_compaction_mode, self.auto_compaction_retention)


DEFAULT_QUOTA_BYTES = 2 << 30
_PERIODS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}


def parse_duration(text: str) -> float:
    """Seconds of a Go duration such as 1h30m or 500ms. Raises ValueError."""
    if text in ("0", ""):
        return 0.0
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|us|ns|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'time: invalid duration "{text}"')
    return sum(float(number) * _PERIODS[unit] for number, unit in parts)


def _retention(mode: str, text: str) -> tuple[str, float]:
    if text in ("", "0"):
        return ("off", 0.0)
    if mode == "revision":
        return ("revision", float(int(text)))
    return ("periodic", int(text) * 3600.0 if text.isdigit() else parse_duration(text))


def _urls(text: str) -> tuple[Url, ...]:
    return tuple(_url(part.strip()) for part in text.split(","))


def _url(text: str) -> Url:
    parts = urlsplit(text)
    if parts.scheme in ("unix", "unixs"):
        raise ValueError(f"unix sockets are not supported: {text}")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"URL scheme must be http, https, unix, or unixs: {text}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if port is None:
        raise ValueError(f'URL address does not have the form "host:port": {text}')
    if parts.path not in ("", "/") or parts.query:
        raise ValueError(f"URL must not contain a path: {text}")
    return Url(parts.scheme, parts.hostname or "", port)


def parse_url(text: str) -> Url:
    """Raises ValueError that says what is wrong with it."""
    return _url(text)


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise ValueError("must be positive")
    return number


def _bcrypt_cost(text: str) -> int:
    number = int(text)
    if not 4 <= number <= 31:
        raise ValueError("must be from 4 to 31")
    return number


def _switch(text: str) -> bool:
    """Go's spelling of a boolean."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in _FALSE:
        return False
    raise ValueError("must be true or false")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them, a scheme and a host and maybe a port; or "*"."""
    for origin in _names(text):
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path):
            raise ValueError(f'an origin has the form "http://host:port": {origin}')
    return _names(text)


def _gates(text: str) -> frozenset[str]:
    """The feature gates that are on, of Name=true,Other=false. Raises ValueError."""
    given = [pair.partition("=") for pair in text.split(",") if pair]
    return frozenset(name.strip() for name, _, value in given if _switch(value))


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _years(text: str) -> int:
    years = int(text)
    if not 0 <= years <= 1000:
        raise ValueError("must be a number of years, at most 1000")
    return years


@dataclass(frozen=True)
class Flag:
    default: str
    parse: Callable[[str], Any]
    help: str


PROGRESS_FLAG = "experimental-watch-progress-notify-interval"
CORRUPT_FLAG = "experimental-corrupt-check-time"
INITIAL_CORRUPT_FLAG = "experimental-initial-corrupt-check"
LEARNERS_FLAG = "experimental-max-learners"
WARNING_APPLY_FLAG = "experimental-warning-apply-duration"
WARNING_UNARY_FLAG = "experimental-warning-unary-request-duration"
FLAGS: dict[str, Flag] = {
    "name": Flag("default", str, "human-readable name of this member"),
    "data-dir": Flag("", str, "the member's directory (default ${name}.etcd)"),
    "listen-client-urls": Flag("http://localhost:2379", _urls, "URLs to serve clients on"),
    "advertise-client-urls": Flag("", _urls, "client URLs to tell the cluster (default: those listened on)"),
    "listen-peer-urls": Flag("http://localhost:2380", _urls, "URLs to serve other members on"),
    "initial-advertise-peer-urls": Flag("http://localhost:2380", _urls, "peer URLs to tell the cluster"),
    "initial-cluster": Flag("", str, "every member at bootstrap: name=peerURL,name=peerURL"),
    "initial-cluster-state": Flag("new", _one_of("new", "existing"), "new, or existing to join"),
    "initial-cluster-token": Flag("etcd-cluster", str, "keeps clusters apart that share URLs"),
    "heartbeat-interval": Flag("100", _positive, "milliseconds between the leader's heartbeats"),
    "election-timeout": Flag("1000", _positive, "milliseconds without a leader before an election"),
    "snapshot-count": Flag("2000", _positive, "commands applied between trims of the log"),
    "quota-backend-bytes": Flag("0", int, "size at which writes are refused (0: 2 GiB, -1: none)"),
    CORRUPT_FLAG: Flag("0s", parse_duration, "how often the leader compares what members hold (0: never)"),
    INITIAL_CORRUPT_FLAG: Flag("false", _switch, "compare with the other members before serving anybody"),
    "feature-gates": Flag("", _gates, "etcd 3.6's: InitialCorruptCheck=true has a meaning"),
    "auto-disarm": Flag("true", _switch, "take the NOSPACE alarm back when there is space again"),
    "max-request-bytes": Flag("1572864", _positive, "largest request"),
    "max-txn-ops": Flag("128", _positive, "most operations in one transaction"),
    "auto-compaction-mode": Flag("periodic", _one_of("periodic", "revision"), "periodic or revision"),
    "auto-compaction-retention": Flag("0", str, "hours, a duration or revisions to keep (0: off)"),
    "strict-reconfig-check": Flag("true", _switch, "refuse changes of membership that risk the majority"),
    LEARNERS_FLAG: Flag("1", _positive, "most learners at a time"),
    "snapshot-send-bytes-per-s": Flag("134217728", int, "how fast a snapshot goes to a member (0: no bound)"),
    "force-new-cluster": Flag("false", _switch, "after a disaster: go on alone with what this member has"),
    "cors": Flag("*", _origins, "origins whose pages may call the HTTP side, comma-separated (*: all)"),
    "host-whitelist": Flag("*", _names, "hosts that HTTP requests without TLS may name (*: all)"),
    "enable-grpc-gateway": Flag("true", _switch, "serve the JSON gateway below /v3/"),
    PROGRESS_FLAG: Flag("10m", parse_duration, "how often an idle watch is told how far it is"),
    "auth-token": Flag("simple", str, "simple, or jwt,sign-method=...,pub-key=FILE,priv-key=FILE,ttl=5m"),
    "auth-token-ttl": Flag("300", _positive, "seconds a simple token lasts without being used"),
    "bcrypt-cost": Flag("10", _bcrypt_cost, "how long a password's hash takes: one more is twice as long"),
    "metrics": Flag("basic", _one_of("basic", "extensive"), "extensive: every call is timed, by method"),
    "listen-metrics-urls": Flag("", _urls, "URLs, without TLS, to serve /metrics and probes on as well"),
    WARNING_APPLY_FLAG: Flag("100ms", parse_duration, "a log line for what takes longer to apply (0: never)"),
    WARNING_UNARY_FLAG: Flag("300ms", parse_duration, "a log line for a call that takes longer (0: never)"),
    "grpc-keepalive-min-time": Flag(
        "5s", parse_duration, "an idle client may ping so often (0: as it likes)"
    ),
    "grpc-keepalive-interval": Flag("2h", parse_duration, "a client silent for so long is pinged (0: never)"),
    "grpc-keepalive-timeout": Flag("20s", parse_duration, "and is gone without an answer (0: never)"),
    "max-concurrent-streams": Flag("10000", _positive, "most calls at a time on one connection"),
    "log-level": Flag("info", _one_of("debug", "info", "warn", "error", "panic", "fatal"), "log threshold"),
    "log-format": Flag("json", _one_of("json", "console"), "json or console"),
}
_KINDS: dict[str, Callable[[str], Any]] = {"text": str, "switch": _switch, "list": _list, "years": _years}
FLAGS |= {name: Flag(default, _KINDS[kind], text) for name, (kind, default, text) in tls.FLAGS.items()}

# Other names of the same: the newer ones of etcd 3.6, and older ones that it still takes.
_ALIASES = tls.ALIASES | {
    flag.removeprefix("experimental-"): flag
    for flag in (PROGRESS_FLAG, CORRUPT_FLAG, WARNING_APPLY_FLAG, WARNING_UNARY_FLAG, LEARNERS_FLAG)
}
_IGNORED_SWITCHES = frozenset(
    "initial-election-tick-advance socket-reuse-port socket-reuse-address pre-vote"
    " enable-v2 enable-pprof enable-log-rotation debug"
    " experimental-enable-distributed-tracing enable-distributed-tracing disable-log-sampling"
    " discovery-insecure-transport discovery-insecure-skip-tls-verify experimental-set-member-localaddr"
    " experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist"
    " experimental-txn-mode-write-with-shared-buffer"
    " experimental-memory-mlock memory-mlock experimental-compact-hash-check-enabled"
    " experimental-stop-grpc-service-on-defrag unsafe-no-fsync".split()
)
_IGNORED_VALUES = frozenset(
    "wal-dir max-snapshots max-wals backend-bbolt-freelist-type backend-batch-interval backend-batch-limit"
    " v2-deprecation"
    " logger log-outputs log-rotation-config-json"
    " client-cert-file client-key-file"
    " experimental-distributed-tracing-address experimental-distributed-tracing-service-name"
    " experimental-distributed-tracing-instance-id experimental-distributed-tracing-sampling-rate"
    " distributed-tracing-address distributed-tracing-service-name"
    " distributed-tracing-instance-id distributed-tracing-sampling-rate"
    " experimental-compaction-batch-limit compaction-batch-limit"
    " experimental-compaction-sleep-interval compaction-sleep-interval"
    " experimental-bootstrap-defrag-threshold-megabytes bootstrap-defrag-threshold-megabytes"
    " experimental-compact-hash-check-time compact-hash-check-time"
    " experimental-snapshot-catchup-entries snapshot-catchup-entries"
    " experimental-downgrade-check-time downgrade-check-time experimental-wait-cluster-ready-timeout"
    " experimental-enable-v2v3 raft-read-timeout raft-write-timeout"
    " discovery-dial-timeout discovery-request-timeout discovery-keepalive-time discovery-keepalive-timeout"
    " discovery-cert discovery-key discovery-cacert discovery-user discovery-password"
    " proxy proxy-failure-wait"
    " proxy-refresh-interval proxy-dial-timeout proxy-write-timeout proxy-read-timeout".split()
)
# Flags that change what is started, or where it listens: taking them silently would be a false promise.
_REFUSED = frozenset(
    "discovery discovery-srv discovery-srv-name discovery-fallback discovery-proxy discovery-endpoints"
    " discovery-token config-file listen-client-http-urls".split()
)
_SWITCHES = frozenset(name for name, flag in FLAGS.items() if flag.parse is _switch)
_FALSE = ("false", "0", "f", "F", "False", "FALSE", "")


def read_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """Flag name to text, in Go's forms. Raises FlagError as Go's flag package words it."""
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--" or not word.startswith("-") or word == "-":
            text = word if word != "--" else " ".join(rest)
            if text:
                raise FlagError(f"'{text}' is not a valid flag")
            break
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("---") or not name:
            raise FlagError(f"bad flag syntax: {word}")
        name = _ALIASES.get(name, name)
        if name not in FLAGS and name not in _IGNORED_SWITCHES | _IGNORED_VALUES | _REFUSED:
            raise FlagError(f"flag provided but not defined: -{name}")
        if not equals:
            if name in _IGNORED_SWITCHES | _SWITCHES:
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise FlagError(f"flag needs an argument: -{name}")
        given[name] = value
    return given


def read_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The same from ETCD_* and KVSTORE_* variables; the latter win. Unknown ones are left alone, as etcd does."""
    given: dict[str, str] = {}
    for name in _IGNORED_SWITCHES | _IGNORED_VALUES:  # etcd's alone: KVSTORE_DEBUG may be anybody's
        text = environment.get(_variable("ETCD_", name))
        if text:
            given[name] = text
    for prefix in ("ETCD_", "KVSTORE_"):
        for name in [*_ALIASES, *FLAGS, *sorted(_REFUSED)]:
            text = environment.get(_variable(prefix, name))
            if text:
                given[_ALIASES.get(name, name)] = text
    return given


def _variable(prefix: str, name: str) -> str:
    return prefix + name.upper().replace("-", "_")


def load(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """The whole configuration. Raises FlagError (exit status 2) or ConfigError (exit status 1)."""
    from_arguments = read_arguments(arguments)
    given = {**read_environment(environment), **from_arguments}
    for name in sorted(_REFUSED & given.keys()):
        if given[name] in ("", "proxy"):
            continue
        raise ConfigError(f"--{name} is not supported yet, and ignoring it would not be safe: leave it out")
    values: dict[str, Any] = {}
    for name, flag in FLAGS.items():
        text = given.get(name, flag.default)
        try:
            values[name] = (
                flag.parse(text)
                if text or name not in ("advertise-client-urls", "listen-metrics-urls")
                else ()
            )
        except ValueError as problem:
            raise FlagError(f'invalid value "{text}" for flag -{name}: {problem}') from None
    ignored = tuple(sorted(given.keys() & (_IGNORED_SWITCHES | _IGNORED_VALUES)))
    return _settle(values, given, ignored)


def _settle(values: dict[str, Any], given: Mapping[str, str], ignored: tuple[str, ...]) -> Config:
    """Fills what depends on other flags and checks what contradicts them."""
    name = values["name"]
    if not values["advertise-client-urls"]:
        listened: tuple[Url, ...] = values["listen-client-urls"]
        if any(url.host in ("", "0.0.0.0", "::") for url in listened):
            raise ConfigError(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly"
            )
        values["advertise-client-urls"] = listened
    peers: tuple[Url, ...] = values["initial-advertise-peer-urls"]
    cluster = _initial_cluster(values["initial-cluster"] or ",".join(f"{name}={url}" for url in peers))
    _check_cluster(name, cluster, peers)
    heartbeat, election = values["heartbeat-interval"], values["election-timeout"]
    if 5 * heartbeat > election:
        raise ConfigError(
            f"--election-timeout[{election}ms] should be at least as 5 times as "
            f"--heartbeat-interval[{heartbeat}ms]"
        )
    if election > 50_000:
        raise ConfigError(
            f"--election-timeout[{election}ms] is too long, and should be set less than 50000ms"
        )
    for url in values["listen-metrics-urls"]:
        if url.scheme != "http":
            raise ConfigError(f"--listen-metrics-urls is served without TLS: {url}")
    try:
        _retention(values["auto-compaction-mode"], values["auto-compaction-retention"])
    except ValueError as problem:
        raise ConfigError(f"error parsing CompactionRetention: {problem}") from None
    try:
        client_tls, peer_tls = tls.settle(values)
        tls.check_listeners(peer_tls, values["listen-peer-urls"])
        tls.check_listeners(client_tls, values["listen-client-urls"])
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    return Config(
        name=name,
        data_dir=values["data-dir"] or f"{name}.etcd",
        listen_client_urls=values["listen-client-urls"],
        advertise_client_urls=values["advertise-client-urls"],
        listen_peer_urls=values["listen-peer-urls"],
        initial_advertise_peer_urls=peers,
        initial_cluster=cluster,
        initial_cluster_state=values["initial-cluster-state"],
        initial_cluster_token=values["initial-cluster-token"],
        heartbeat_interval_ms=heartbeat,
        election_timeout_ms=election,
        snapshot_count=values["snapshot-count"],
        quota_backend_bytes=values["quota-backend-bytes"] or DEFAULT_QUOTA_BYTES,
        max_request_bytes=values["max-request-bytes"],
        max_txn_ops=values["max-txn-ops"],
        auto_compaction_mode=values["auto-compaction-mode"],
        auto_compaction_retention=values["auto-compaction-retention"],
        watch_progress_notify_interval_s=values[PROGRESS_FLAG],
        strict_reconfig_check=values["strict-reconfig-check"],
        max_learners=values[LEARNERS_FLAG],
        snapshot_send_bytes_per_s=values["snapshot-send-bytes-per-s"],
        force_new_cluster=values["force-new-cluster"],
        log_level=values["log-level"],
        log_format=values["log-format"],
        metrics=values["metrics"],
        listen_metrics_urls=values["listen-metrics-urls"],
        corrupt_check_s=values[CORRUPT_FLAG],
        initial_corrupt_check=values[INITIAL_CORRUPT_FLAG]
        or "InitialCorruptCheck" in values["feature-gates"],
        auto_disarm=values["auto-disarm"],
        warning_apply_s=values[WARNING_APPLY_FLAG],
        warning_unary_request_s=values[WARNING_UNARY_FLAG],
        keepalive_min_time_s=values["grpc-keepalive-min-time"],
        keepalive_interval_s=values["grpc-keepalive-interval"],
        keepalive_timeout_s=values["grpc-keepalive-timeout"],
        max_concurrent_streams=values["max-concurrent-streams"],
        cors=values["cors"],
        host_whitelist=values["host-whitelist"],
        enable_grpc_gateway=values["enable-grpc-gateway"],
        auth_token=values["auth-token"],
        auth_token_ttl_s=values["auth-token-ttl"],
        bcrypt_cost=values["bcrypt-cost"],
        client_tls=client_tls,
        peer_tls=peer_tls,
        initial_cluster_given="initial-cluster" in given,
        ignored=ignored,
    )


def _initial_cluster(text: str) -> dict[str, tuple[str, ...]]:
    cluster: dict[str, list[str]] = {}
    for part in text.split(","):
        name, equals, url = part.strip().partition("=")
        if not equals or not name:
            raise ConfigError(f"error setting up initial cluster: empty name or URL in '{part}'")
        try:
            parsed = _url(url)
        except ValueError as problem:
            raise ConfigError(f"error setting up initial cluster: {problem}") from None
        cluster.setdefault(name, []).append(str(parsed))
    flat = [url for urls in cluster.values() for url in urls]
    if len(set(flat)) != len(flat):
        raise ConfigError("error setting up initial cluster: duplicate urls in the initial cluster")
    return {name: tuple(urls) for name, urls in cluster.items()}


def _check_cluster(name: str, cluster: Mapping[str, tuple[str, ...]], peers: tuple[Url, ...]) -> None:
    if name not in cluster:
        raise ConfigError(f'couldn\'t find local name "{name}" in the initial cluster configuration')
    advertised = sorted(map(str, peers))
    if sorted(cluster[name]) != advertised:
        raise ConfigError(
            f"--initial-cluster has {name}={','.join(sorted(cluster[name]))} but missing from "
            f"--initial-advertise-peer-urls={','.join(advertised)}"
        )
    if len(cluster) not in (1, 3, 5, 7, 2, 4, 6):
        raise ConfigError(f"--initial-cluster names {len(cluster)} members; at most 7 are supported")
