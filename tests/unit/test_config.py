"""kvstore/config.py: etcd's flag forms, defaults, errors and precedence."""

import pytest

from kvstore.config import ConfigError, FlagError, load, parse_duration, read_arguments

THREE = "n1=http://127.0.0.1:1,n2=http://127.0.0.1:2,n3=http://127.0.0.1:3"


def test_defaults_are_one_member_on_localhost() -> None:
    config = load([], {})
    assert config.name == "default"
    assert config.data_dir == "default.etcd"
    assert [str(url) for url in config.listen_client_urls] == ["http://localhost:2379"]
    assert config.initial_cluster == {"default": ("http://localhost:2380",)}
    assert (config.heartbeat_interval_ms, config.election_timeout_ms) == (100, 1000)
    assert config.max_request_bytes == 1572864
    assert config.request_timeout_s == 7.0


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
        (["--discovery-srv", "example.com"], "not supported yet"),
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
