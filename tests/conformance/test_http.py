"""What answers over HTTP/1.1 on the client port: the same as etcd's, but for the version numbers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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
    for path in ("/health", "/health?serializable=true", "/health?exclude=NOSPACE", "/nothing"):
        reference, ours = (get(cluster, path) for cluster in servers)
        assert reference == ours, path


def test_probes_that_the_reference_is_too_old_for(servers: tuple[Cluster, Cluster]) -> None:
    """etcd has /livez and /readyz from 3.5.11 on; /writez is ours."""
    ours = servers[1]
    for path in ("/livez", "/readyz", "/writez", "/readyz/non_learner", "/writez/log"):
        assert text(ours, path) == (200, "ok\n"), path
    assert text(ours, "/readyz/unheard_of")[0] == 404


def test_without_a_majority(servers: tuple[Cluster, Cluster]) -> None:
    """The other members are gone: this one lives, and is ready for nothing. All at once, as each takes seconds."""
    reference, ours = servers
    for cluster in servers:
        for member in cluster.members[1:]:
            member.kill()
    with ThreadPoolExecutor() as pool:
        theirs = pool.submit(get, reference, "/health")
        health, ready, write, live = (
            pool.submit(text, ours, path) for path in ("/health", "/readyz", "/writez", "/livez")
        )
    assert theirs.result()[0] == health.result()[0] == 503
    body = json.loads(health.result()[1])
    assert body["health"] == "false" and body["reason"]
    assert ready.result()[0] == 503 and "[-]linearizable_read failed: etcdserver: " in ready.result()[1]
    assert "[+]serializable_read ok\n" in ready.result()[1]
    assert write.result()[0] == 503 and "[-]quorum failed: " in write.result()[1]
    assert "[+]disk ok\n" in write.result()[1]
    assert live.result() == (200, "ok\n")
    assert get(ours, "/health?serializable=true")[0] == 200  # of this member alone: as etcd from 3.5.3 on
    assert text(ours, "/writez/leader") == (503, "[-]leader failed: no leader\n\n")


def text(cluster: Cluster, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{cluster.endpoints[0]}{path}", timeout=15) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as failure:
        return failure.code, failure.read().decode()
