"""What answers over HTTP/1.1 on the client port: the same as etcd's, but for the version numbers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.conformance.etcd_process import Cluster, running_cluster


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Cluster, Cluster]]:
    with running_cluster("etcd", size=3) as reference, running_cluster("kvstore", size=3) as ours:
        yield reference, ours


def get(cluster: Cluster, path: str) -> tuple[int, object]:
    try:
        with urllib.request.urlopen(f"http://{cluster.endpoints[0]}{path}", timeout=15) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as failure:
        text = failure.read().decode()
        return failure.code, json.loads(text) if text.startswith("{") else None


def test_version(servers: tuple[Cluster, Cluster]) -> None:
    for cluster in servers:
        status, body = get(cluster, "/version")
        assert status == 200
        assert isinstance(body, dict)
        assert body["etcdserver"].startswith("3.5.") and body["etcdcluster"] == "3.5.0"


def test_health_and_what_is_not_there(servers: tuple[Cluster, Cluster]) -> None:
    for path in ("/health", "/health?serializable=true", "/nothing"):
        reference, ours = (get(cluster, path) for cluster in servers)
        assert reference == ours, path


def test_health_without_a_majority(servers: tuple[Cluster, Cluster]) -> None:
    reference, ours = servers
    for cluster in servers:
        for member in cluster.members[1:]:
            member.kill()
    status, body = get(ours, "/health")
    assert (status, get(reference, "/health")[0]) == (503, 503)
    assert isinstance(body, dict) and body["health"] == "false" and body["reason"]
