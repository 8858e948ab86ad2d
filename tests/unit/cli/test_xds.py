"""kvctl route xds and xds-bootstrap: what is printed, and one line for each mistake."""

from __future__ import annotations

import json
import sys

import pytest

from kvstore.cli.main import main

XDS = ["route", "xds", "--service=web", "--listen=127.0.0.1:0"]
BOOTSTRAP = ["route", "xds-bootstrap"]
HERE = "--server=127.0.0.1:18000"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([*XDS, "--listen=18000"], "'18000' is not HOST:PORT"),
        ([*XDS, "--envoy-listener=web"], "'web' is not SERVICE=HOST:PORT"),
        ([*XDS, "--envoy-listener=web=host:80"], "'host' is not an IP address"),
        ([*XDS, "--envoy-listener=api=0.0.0.0:80"], "there is no --service api"),
        (
            [*XDS, "--envoy-listener=web=0.0.0.0:80", "--envoy-listener=web=tcp://0.0.0.0:80"],
            "0.0.0.0:80 is given to web already",
        ),
        ([*XDS, "--cert-file=x"], "--cert-file and --key-file are given together"),
        ([*XDS, "--client-ca-file=x"], "it needs --cert-file and --key-file"),
        ([*BOOTSTRAP, "envoy"], "--server"),
        ([*BOOTSTRAP, "envoy", "--server=nowhere"], "'nowhere' is not HOST:PORT"),
        ([*BOOTSTRAP, "envoy", HERE, "--admin=x"], "'x' is not HOST:PORT"),
        ([*BOOTSTRAP, "envoy", HERE, "--key-file=x"], "--cert-file and --key-file are given together"),
        ([*BOOTSTRAP, "envoy", HERE, "--cert-file=x", "--key-file=y"], "it needs --ca-file"),
        ([*BOOTSTRAP, "grpc", HERE, "--delta"], "--delta and --admin are Envoy's"),
        ([*BOOTSTRAP, "nginx", HERE], "'nginx'"),
    ],
)
def test_mistakes(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) != 0
    assert reason in capsys.readouterr().err


def test_without_its_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("kvstore.routing.xds")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "envoy.config.core.v3", None)
    assert main(XDS) != 0
    assert "this needs xds-protos: pip install 'kvstore[xds]'" in capsys.readouterr().err


def test_an_envoy_is_told_all_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BOOTSTRAP, "envoy", HERE, "--server=[::1]:2", "--node-id=e1", "--zone=a", "--delta"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["node"] == {"id": "e1", "cluster": "envoy", "locality": {"zone": "a"}}
    assert made["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"
    assert "admin" not in made
    (cluster,) = made["static_resources"]["clusters"]
    (places,) = cluster["load_assignment"]["endpoints"]
    addresses = [each["endpoint"]["address"]["socket_address"] for each in places["lb_endpoints"]]
    assert addresses == [{"address": "127.0.0.1", "port_value": 18000}, {"address": "::1", "port_value": 2}]


def test_a_grpc_client_is_told_all_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--ca-file=ca", "--cert-file=c", "--key-file=k", "--node-id=g1"]
    assert main([*BOOTSTRAP, "grpc", HERE, *words]) == 0
    files = {"ca_certificate_file": "ca", "certificate_file": "c", "private_key_file": "k"}
    assert json.loads(capsys.readouterr().out) == {
        "xds_servers": [
            {
                "server_uri": "127.0.0.1:18000",
                "channel_creds": [{"type": "tls", "config": files}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": "g1", "cluster": "grpc"},
    }
