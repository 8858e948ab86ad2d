"""The HTTP API as /openapi.json describes it, driven by schemathesis against a real member.

Requests are made up from the schemas, valid and otherwise. Whatever they are, the member answers as described and
stays in service; a status of 500 would be a fault of ours.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from typing import Any

import hypothesis
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kvstore.http.openapi import document
from kvstore.rpc import Status
from tests.conformance.etcd_process import running_cluster

# Streams have no end to wait for; the others would change who may call, or what the cluster is made of.
SKIPPED = (
    *("/v3/watch", "/v3/lease/keepalive", "/v3/election/observe", "/v3/maintenance/snapshot"),
    *("/v3/auth/enable", "/v3/cluster/member/add", "/v3/cluster/member/remove", "/v3/cluster/member/update"),
    *("/v3/lock/lock", "/v3/election/campaign"),  # which wait for their turn
)
CHECKS: list[CheckFunction] = [
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
BOUNDED = hypothesis.settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
)


def test_the_description_holds() -> None:
    described = document()
    described["paths"] = {path: item for path, item in described["paths"].items() if path not in SKIPPED}
    schema = schemathesis.openapi.from_dict(described)
    schema.config.generation.update(modes=list(GenerationMode))
    with running_cluster("kvstore") as cluster:
        url = f"http://{cluster.endpoints[0]}"
        served = json.loads(urllib.request.urlopen(f"{url}/openapi.json", timeout=10).read())
        assert served == document()
        seen: Counter[int] = Counter()
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), result
            drive(result.ok(), url, seen)
        assert seen[200] > 40 and seen[400] > 20, seen
        assert (
            b'"true"'
            in urllib.request.urlopen(f"{url}/health?exclude=NOSPACE&exclude=CORRUPT", timeout=10).read()
        )


def drive(operation: Any, url: str, seen: Counter[int]) -> None:
    @BOUNDED
    @hypothesis.given(case=operation.as_strategy())
    def check(case: Any) -> None:
        response = case.call(base_url=url, timeout=20)
        seen[response.status_code] += 1
        # 500 is also etcd's for an error it has no code for, such as an election without a leader
        assert response.status_code != 500 or response.json()["code"] == Status.UNKNOWN, response.text
        case.validate_response(response, checks=CHECKS)

    check()
