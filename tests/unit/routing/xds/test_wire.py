"""Messages of the protocol, and what is none."""

from __future__ import annotations

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from kvstore.routing.xds.kinds import Ask, Kind, Reply, Resource
from kvstore.routing.xds.wire import Malformed, read, read_delta, write, write_delta


def test_a_request() -> None:
    message = discovery_pb2.DiscoveryRequest(
        type_url=Kind.CLUSTER, resource_names=["web"], response_nonce="7"
    )
    message.node.id, message.node.user_agent_name, message.node.locality.zone = "n1", "envoy", "a"
    message.node.user_agent_build_version.version.major_number = 1
    message.error_detail.message = "two\nlines"
    found = read(message.SerializeToString())
    assert found.ask == Ask(Kind.CLUSTER, ("web",), "7", "two lines")
    assert (found.id, found.program, found.zone) == ("n1", "envoy 1.0.0", "a")


def test_a_refusal_without_a_reason_is_one() -> None:
    message = discovery_pb2.DiscoveryRequest(type_url=Kind.CLUSTER, response_nonce="7")
    message.error_detail.code = 3
    ask = read(message.SerializeToString()).ask
    assert ask is not None
    assert ask.error == "no reason given"


def test_an_incremental_request() -> None:
    message = discovery_pb2.DeltaDiscoveryRequest(
        type_url=Kind.ROUTE,
        resource_names_subscribe=["web"],
        resource_names_unsubscribe=["api"],
        initial_resource_versions={"web": "1"},
    )
    message.node.user_agent_name, message.node.user_agent_version = "gRPC", "1.2"
    found = read_delta(message.SerializeToString())
    assert found.ask == Ask(Kind.ROUTE, ("web",), gone=("api",), known={"web": "1"})
    assert found.program == "gRPC 1.2"


def test_a_kind_there_is_none_of() -> None:
    url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    found = read(discovery_pb2.DiscoveryRequest(type_url=url).SerializeToString())
    assert (found.type_url, found.ask) == (url, None)


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", b"\x0a"], ids=["empty", "garbage", "cut off"])
def test_what_is_no_request(data: bytes) -> None:
    for reader in (read, read_delta):
        with pytest.raises(Malformed):
            reader(data)


def test_a_reply() -> None:
    reply = Reply(Kind.ENDPOINTS, "v", "7", (Resource("web", "1", b"body"),), ("api",))
    whole = discovery_pb2.DiscoveryResponse.FromString(write(reply))
    assert (whole.version_info, whole.nonce, whole.type_url) == ("v", "7", Kind.ENDPOINTS)
    assert [(one.type_url, one.value) for one in whole.resources] == [(Kind.ENDPOINTS, b"body")]
    delta = discovery_pb2.DeltaDiscoveryResponse.FromString(write_delta(reply))
    assert (delta.system_version_info, delta.nonce) == ("v", "7")
    assert [(one.name, one.version, one.resource.value) for one in delta.resources] == [("web", "1", b"body")]
    assert list(delta.removed_resources) == ["api"]
