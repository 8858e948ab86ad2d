"""Downgrade: the same refusals as etcd's, but that there is no version to go back to."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from kvstore.pb.etcdserverpb_pb2 import DowngradeRequest, DowngradeResponse
from tests.conformance.etcd_process import running_cluster


@pytest.fixture(scope="module")
def endpoints() -> Iterator[tuple[str, str]]:
    with running_cluster("kvstore") as ours, running_cluster("etcd") as reference:
        yield ours.endpoints[0], reference.endpoints[0]


def ask(endpoint: str, action: str, version: str) -> tuple[str, str]:
    """What it is refused with; (OK, the version) where it is not."""
    with grpc.insecure_channel(endpoint) as channel:
        method = channel.unary_unary(
            "/etcdserverpb.Maintenance/Downgrade",
            request_serializer=DowngradeRequest.SerializeToString,
            response_deserializer=DowngradeResponse.FromString,
        )
        request = DowngradeRequest(action=action, version=version)
        try:
            return "OK", method(request, timeout=10).version
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return error.code().name, error.details() or ""


@pytest.mark.parametrize("action", ["VALIDATE", "ENABLE"])
@pytest.mark.parametrize(
    "version", ["", "3", "three", "3.5.", "3.5.0.0", "3.3", "3.3.0", "3.6", "2.4.1", "3.3.0-rc.1"]
)
def test_what_is_refused(endpoints: tuple[str, str], action: str, version: str) -> None:
    ours, reference = (ask(endpoint, action, version) for endpoint in endpoints)
    assert ours == reference
    assert ours[0] == "INVALID_ARGUMENT"


def test_nothing_is_under_way_that_could_be_cancelled(endpoints: tuple[str, str]) -> None:
    ours, reference = (ask(endpoint, "CANCEL", "") for endpoint in endpoints)
    assert ours == reference == ("FAILED_PRECONDITION", "etcdserver: no inflight downgrade job")


def test_there_is_no_version_before(endpoints: tuple[str, str]) -> None:
    ours, reference = (ask(endpoint, "VALIDATE", "3.4") for endpoint in endpoints)
    assert ours == ("INVALID_ARGUMENT", "etcdserver: invalid downgrade target version")
    assert reference == ("OK", "3.5.0")
