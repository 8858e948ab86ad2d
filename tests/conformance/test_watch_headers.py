"""The revision in the header of a watch's responses, on etcd and here."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from kvstore.pb import etcdserverpb_pb2 as pb
from tests.conformance.etcd_process import SERVERS, Server, running_cluster


@pytest.fixture(params=SERVERS)
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    server: Server = request.param
    with running_cluster(server) as cluster, grpc.insecure_channel(cluster.endpoints[0]) as made:
        yield made


def test_it_never_falls_on_a_stream(channel: grpc.Channel) -> None:
    """Neither when history is told after `created`, nor when what is new is told after that."""
    put = channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=pb.PutRequest.SerializeToString,
        response_deserializer=pb.PutResponse.FromString,
    )
    for number in range(5):
        put(pb.PutRequest(key=b"watched", value=b"%d" % number), timeout=10)
    put(pb.PutRequest(key=b"other"), timeout=10)
    requests: queue.SimpleQueue[pb.WatchRequest] = queue.SimpleQueue()
    responses: Any = channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )(iter(requests.get, None), timeout=20)
    requests.put(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"watched", start_revision=3)))
    created = next(responses)
    assert created.created and created.header.revision == 7
    history = next(responses)
    assert [event.kv.mod_revision for event in history.events] == [3, 4, 5, 6]
    assert history.header.revision == 7
    put(pb.PutRequest(key=b"watched", value=b"new"), timeout=10)
    live = next(responses)
    assert (live.header.revision, [event.kv.mod_revision for event in live.events]) == (8, [8])
    responses.cancel()
