"""kvstore/config.py: etcd's flag forms, defaults, errors and precedence."""

import pytest

from kvstore.config import ConfigError, FlagError, load, parse_duration, read_arguments

THREE = "n1=http://127.0.0.1:1,n2=http://127.0.0.1:2,n3=http://127.0.0.1:3"
SEVEN = ",".join(f"n{number}=http://127.0.0.1:{number}" for number in range(1, 8))


def test_defaults_are_one_member_on_localhost() -> None:
    config = load([], {})
    assert config.name == "default"
    assert config.data_dir == "default.etcd"
    assert [str(url) for url in config.listen_client_urls] == ["http://localhost:2379"]
    assert config.initial_cluster == {"default": ("http://localhost:2380",)}
    assert (config.heartbeat_interval_ms, config.election_timeout_ms) == (100, 1000)
    assert config.max_request_bytes == 1572864
    assert config.request_timeout_s == 7.0
    assert [str(url) for url in config.listen_peer_urls] == ["http://localhost:2380"]
    assert (config.max_txn_ops, config.max_learners, config.quota_backend_bytes) == (128, 1, 2 << 30)
    assert (config.strict_reconfig_check, config.auto_compaction) == (True, ("off", 0.0))
    keepalive = config.keepalive_min_time_s, config.keepalive_interval_s, config.keepalive_timeout_s
    assert keepalive == (5.0, 7200.0, 20.0)
    assert (config.warning_apply_s, config.warning_unary_request_s) == (0.1, 0.3)
    assert (config.auth_token, config.auth_token_ttl_s, config.bcrypt_cost) == ("simple", 300, 10)
    assert (config.watch_progress_notify_interval_s, config.log_format, config.metrics) == (
        600.0,
        "json",
        "basic",
    )


@pytest.mark.parametrize(
    "words", [["--name=x"], ["--name", "x"], ["-name", "x"], ["-name=x"]], ids=lambda words: " ".join(words)
)
def test_flag_forms(words: list[str]) -> None:
    assert load(words, {}).name == "x"


def test_a_switch_takes_no_word() -> None:
    given = read_arguments(["--pre-vote", "--name", "x", "--strict-reconfig-check=false"])
    assert given == {"pre-vote": "true", "name": "x", "strict-reconfig-check": "false"}


def test_environment_stands_in_for_flags_and_flags_win() -> None:
    environment = {"ETCD_NAME": "e", "KVSTORE_SNAPSHOT_COUNT": "7", "ETCD_SNAPSHOT_COUNT": "8"}
    config = load([], environment)
    assert (config.name, config.snapshot_count) == ("e", 7)
    assert load(["--name", "f"], environment).name == "f"


def test_flags_without_meaning_are_named_once() -> None:
    assert load(["--unsafe-no-fsync"], {}).ignored == ("unsafe-no-fsync",)
    assert load(["--logger=zap", "--max-wals", "5", "--logger=zap"], {}).ignored == ("logger", "max-wals")


def test_those_of_the_environment_are_named_too() -> None:
    environment = {
        "ETCD_UNSAFE_NO_FSYNC": "true",
        "ETCD_WAL_DIR": "/wal",
        "ETCD_NAME": "e",
        "KVSTORE_DEBUG": "1",
    }
    assert load(["--wal-dir=/w"], environment).ignored == ("unsafe-no-fsync", "wal-dir")


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--watch-progress-notify-interval=5s"], "watch_progress_notify_interval_s", 5.0),
        (["--experimental-watch-progress-notify-interval=5s"], "watch_progress_notify_interval_s", 5.0),
        (["--corrupt-check-time", "1m"], "corrupt_check_s", 60.0),
        (["--warning-apply-duration=1s"], "warning_apply_s", 1.0),
        (["--warning-unary-request-duration=1s"], "warning_unary_request_s", 1.0),
        (["--max-learners=3"], "max_learners", 3),
        (["--feature-gates=InitialCorruptCheck=true"], "initial_corrupt_check", True),
    ],
)
def test_the_names_that_came_with_3_6(words: list[str], field: str, value: object) -> None:
    config = load(words, {})
    assert (getattr(config, field), config.ignored) == (value, ())


def test_an_alias_in_the_environment() -> None:
    assert load([], {"ETCD_MAX_LEARNERS": "3"}).max_learners == 3


@pytest.mark.parametrize("name", ["memory-mlock", "enable-distributed-tracing", "disable-log-sampling"])
def test_newer_switches_without_meaning(name: str) -> None:
    assert load([f"--{name}", "--name=x"], {}).ignored == (name,)


@pytest.mark.parametrize(
    "name",
    [
        *("compaction-batch-limit", "compaction-sleep-interval", "compact-hash-check-time"),
        *("snapshot-catchup-entries", "bootstrap-defrag-threshold-megabytes", "downgrade-check-time"),
        *("experimental-wait-cluster-ready-timeout", "distributed-tracing-address", "raft-read-timeout"),
    ],
)
def test_newer_flags_without_meaning(name: str) -> None:
    assert load([f"--{name}", "1", "--name=x"], {}).ignored == (name,)


@pytest.mark.parametrize("words", [["--bogus"], ["--bogus=1"], ["-bogus", "1"]])
def test_an_unknown_flag(words: list[str]) -> None:
    with pytest.raises(FlagError, match="flag provided but not defined: -bogus"):
        load(words, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--listen-client-urls", "foo"], 'invalid value "foo" for flag -listen-client-urls: URL scheme'),
        (["--listen-client-urls", "http://a"], "host:port"),
        (["--listen-client-urls", "http://a:99999"], "host:port"),
        (["--listen-client-urls", "unix://a"], "unix sockets are not supported"),
        (["--snapshot-count", "many"], "snapshot-count"),
        (["--initial-cluster-state", "old"], "must be one of new, existing"),
        (["--name"], "flag needs an argument: -name"),
        (["stray"], "'stray' is not a valid flag"),
    ],
)
def test_words_that_cannot_be_read(words: list[str], message: str) -> None:
    with pytest.raises(FlagError, match=message):
        load(words, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--name", "x", "--initial-cluster", THREE], 'couldn\'t find local name "x"'),
        (["--name", "n1", "--initial-cluster", THREE], "missing from --initial-advertise-peer-urls"),
        (["--initial-cluster", "default"], "empty name or URL"),
        (["--initial-cluster", "a=http://h:1,b=http://h:1"], "duplicate urls"),
        (["--election-timeout", "400"], "at least as 5 times"),
        (["--election-timeout", "60000"], "too long"),
        (["--auto-compaction-retention", "soon"], "error parsing CompactionRetention"),
        (["--listen-client-urls", "http://0.0.0.0:2379"], "--advertise-client-urls is required"),
        (["--initial-cluster", f"default=http://localhost:2380,{SEVEN}"], "at most 7 are supported"),
        (["--listen-metrics-urls", "https://localhost:2381"], "served without TLS"),
        (["--discovery-srv", "example.com"], "not supported yet"),
        (["--discovery-endpoints", "http://a:2379"], "not supported yet"),
        (["--listen-client-http-urls", "http://localhost:2378"], "not supported yet"),
    ],
)
def test_flags_that_contradict_one_another(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(words, {})


def test_a_switch_that_is_off_asks_for_nothing() -> None:
    config = load(["--force-new-cluster=false", "--client-cert-auth=false"], {})
    assert config.name == "default" and config.client_tls.is_empty


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("off", 0.0)),
        (["--auto-compaction-retention", "1"], ("periodic", 3600.0)),
        (["--auto-compaction-retention", "90m"], ("periodic", 5400.0)),
        (["--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000"], ("revision", 1000.0)),
    ],
)
def test_auto_compaction(words: list[str], expected: tuple[str, float]) -> None:
    assert load(words, {}).auto_compaction == expected


def test_durations() -> None:
    assert parse_duration("1h30m") == 5400
    assert parse_duration("500ms") == 0.5
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration("5 apples")


def test_who_may_call_over_http() -> None:
    config = load([], {})
    assert (config.cors, config.host_whitelist, config.enable_grpc_gateway) == (("*",), ("*",), True)
    words = ["--cors=http://a:1, https://b", "--host-whitelist=a,b", "--enable-grpc-gateway=false"]
    config = load(words, {})
    assert config.cors == ("http://a:1", "https://b") and config.host_whitelist == ("a", "b")
    assert not config.enable_grpc_gateway and config.ignored == ()
    assert load(["--enable-grpc-gateway"], {"ETCD_CORS": "http://a"}).cors == ("http://a",)
    for origin in ("a.example", "ftp://a", "http://a/path"):
        with pytest.raises(FlagError, match="an origin has the form"):
            load([f"--cors={origin}"], {})
