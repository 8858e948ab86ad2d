"""kvstore/tls/settings.py by way of config.load: etcd's flags, and etcd's words for what is wrong with them."""

import pytest

from kvstore.config import ConfigError, load

PAIR = ["--cert-file", "c.pem", "--key-file", "k.pem"]
PEER_PAIR = ["--peer-cert-file", "c.pem", "--peer-key-file", "k.pem"]


def test_nothing_is_asked_for_without_flags() -> None:
    config = load([], {})
    assert config.client_tls.is_empty and config.peer_tls.is_empty
    assert config.client_tls.min_version == "TLS1.2"


def test_the_sides_are_apart() -> None:
    config = load([*PAIR, "--client-cert-auth", "--peer-trusted-ca-file=ca.pem"], {})
    assert config.client_tls.serves and config.client_tls.client_cert_auth
    assert not config.peer_tls.serves and not config.peer_tls.is_empty
    assert config.peer_tls.demands_certificates and not config.peer_tls.client_cert_auth


def test_lists_and_what_is_common() -> None:
    words = ["--peer-cert-allowed-cn", "m1, m2", "--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    config = load([*words, "--self-signed-cert-validity=3"], {})
    assert config.peer_tls.allowed_cns == ("m1", "m2")
    for side in (config.client_tls, config.peer_tls):
        assert side.cipher_suites == ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",)
        assert side.validity_years == 3


@pytest.mark.parametrize(
    "words",
    [
        ["--experimental-peer-skip-client-san-verification"],
        ["--experimental-peer-skip-client-san-verification=true"],
        ["--peer-skip-client-san-verification"],
    ],
)
def test_both_names_of_skipping_the_address(words: list[str]) -> None:
    assert load([], {}).peer_tls.checks_address
    assert not load(words, {}).peer_tls.checks_address
    assert not load([], {}).client_tls.checks_address


def test_environment() -> None:
    environment = {
        "ETCD_CERT_FILE": "c",
        "ETCD_KEY_FILE": "k",
        "ETCD_EXPERIMENTAL_PEER_SKIP_CLIENT_SAN_VERIFICATION": "true",
    }
    config = load([], environment)
    assert config.client_tls.files == ("c", "k")
    assert not config.peer_tls.checks_address


def test_https_is_taken_url_by_url() -> None:
    words = [*PAIR, "--listen-client-urls", "https://127.0.0.1:1,http://127.0.0.1:2"]
    assert [url.scheme for url in load(words, {}).listen_client_urls] == ["https", "http"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cert-file", "c.pem"], "KeyFile and CertFile must both be present[key: , cert: c.pem]"),
        (
            ["--peer-client-key-file", "k"],
            "ClientKeyFile and ClientCertFile must both be present or both absent",
        ),
        (["--cipher-suites", "ROT13"], 'unexpected TLS cipher suite "ROT13"'),
        (["--tls-min-version", "TLS1.1"], 'unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)'),
        (
            ["--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            ["--tls-min-version", "TLS1.3", "--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            [*PEER_PAIR, "--peer-cert-allowed-cn", "a", "--peer-cert-allowed-hostname", "b"],
            'AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a"], hostnames=["b"])',
        ),
        (["--auto-tls", "--self-signed-cert-validity", "0"], "selfSignedCertValidity is invalid"),
        (["--peer-auto-tls", "--peer-client-cert-auth"], "certificates that no member can verify"),
        (
            ["--listen-client-urls", "https://127.0.0.1:1"],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS",
        ),
        (
            ["--listen-peer-urls", "https://127.0.0.1:1"],
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
    ],
)
def test_what_contradicts_itself(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as failed:
        load(words, {})
    assert message in str(failed.value)
