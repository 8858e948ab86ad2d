"""grpc.health.v1.Health: what it answers, and what it makes of bytes that are no request."""

from __future__ import annotations

import pytest

from kvstore.api.health import HealthService
from kvstore.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from kvstore.wire import frames as h2
from kvstore.wire.connection import Connection
from kvstore.wire.limits import Limits
from tests.unit.wire.peer import Peer, framed

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"


@pytest.fixture
def peer() -> Peer:
    made = Peer()
    made.connection = Connection(HealthService().methods(), Limits(), now=made.now, on_output=lambda: None)
    made.feed(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
    made.take()
    return made


def answer(status: int) -> bytes:
    return framed(HealthCheckResponse(status=status).SerializeToString())  # type: ignore[arg-type]


def test_the_server_as_a_whole_is_serving_and_nothing_else_is_known(peer: Peer) -> None:
    peer.call(1, b"", CHECK)
    assert peer.replies()[1][0] == answer(HealthCheckResponse.SERVING)
    peer.call(3, HealthCheckRequest(service="x").SerializeToString(), CHECK)
    assert peer.replies()[3][1]["grpc-status"] == "5"
    for number, service, status in (
        (5, "", HealthCheckResponse.SERVING),
        (7, "x", HealthCheckResponse.SERVICE_UNKNOWN),
    ):
        peer.call(number, HealthCheckRequest(service=service).SerializeToString(), WATCH)
        data, headers = peer.replies()[number]
        assert data == answer(status) and "grpc-status" not in headers  # and the stream stays open


@pytest.mark.parametrize("path", [CHECK, WATCH])
def test_bytes_that_are_no_request_end_the_call_and_not_the_connection(peer: Peer, path: str) -> None:
    peer.call(1, b"\xff\xff\xff", path)
    assert peer.replies()[1][1]["grpc-status"] == "13"
    peer.call(3, b"", CHECK)
    assert peer.replies()[3][0] == answer(HealthCheckResponse.SERVING)
