"""Clusters, routes and listeners, one of each for a service, all of its name. Pure.

A gRPC client that dials xds:///web asks for the listener web; Envoy asks for all listeners and gets those that open
a port, named SERVICE@ADDRESS, which no service can be. Either leads to the route web, that to the cluster web, that
to the endpoints web. An Envoy whose listeners are its own may refer to the routes and clusters by name.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2, message

from kvstore.routing.xds.kinds import Resource, resource

HTTP2 = frozenset(("h2c", "h2", "http2", "grpc"))  # what an instance says that is spoken to in HTTP/2
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
PREVIOUS_HOSTS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
# What is sent again, to another instance, when one dies before it is known to: what was not sent, or was turned away
# unread; and where nothing is changed by it (RFC 9110 9.2.1), also what it had in hand and had not begun to answer.
RETRY_ON = "connect-failure,refused-stream,reset-before-request"
RETRY_ON_SAFE = "connect-failure,refused-stream,reset"
SAFE_METHODS = "GET|HEAD|OPTIONS|TRACE"
RETRIES = 3
# Of one Envoy, to one service. It would turn requests away above 1024 at once, and retries above 3, which is how many
# are on their way to an instance in the moment it dies.
UNLIMITED, RETRIES_AT_ONCE = 1_000_000, 1024


@dataclass(frozen=True, slots=True)
class Door:
    """A port that Envoy is to open for a service. is_tcp: passes bytes on, else HTTP."""

    service: str
    host: str
    port: int
    is_tcp: bool = False

    @property
    def name(self) -> str:
        return f"{self.service}@{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_door(text: str) -> Door:
    """SERVICE=[tcp://]HOST:PORT, HOST an IP address, IPv6 in brackets. Raises ValueError."""
    service, equals, address = text.partition("=")
    is_tcp = address.startswith("tcp://")
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not equals or not service or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not SERVICE=HOST:PORT")
    try:
        ip = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError(
            f"{text!r}: {host!r} is not an IP address, and Envoy listens on nothing else"
        ) from None
    return Door(service, ip, int(port), is_tcp)


def cluster(service: str, *, is_http2: bool) -> Resource:
    made = cluster_pb2.Cluster(name=service, type=cluster_pb2.Cluster.EDS)
    made.connect_timeout.FromMilliseconds(1000)
    made.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
    made.eds_cluster_config.eds_config.CopyFrom(_from_here())
    # Below this share of healthy endpoints Envoy turns to all of them, those that drain too: never.
    made.common_lb_config.healthy_panic_threshold.value = 0.0
    made.common_lb_config.update_merge_window.FromMilliseconds(0)  # else a drain may wait a second for others
    limits = made.circuit_breakers.thresholds.add()
    for limit in (limits.max_connections, limits.max_pending_requests, limits.max_requests):
        limit.value = UNLIMITED
    limits.max_retries.value = RETRIES_AT_ONCE
    if is_http2:
        options = http_protocol_options_pb2.HttpProtocolOptions()
        options.explicit_http_config.http2_protocol_options.CopyFrom(protocol_pb2.Http2ProtocolOptions())
        made.typed_extension_protocol_options[OPTIONS].CopyFrom(_any(options))
    return resource(service, _encoded(made))


def route(service: str) -> Resource:
    made = route_pb2.RouteConfiguration(name=service)
    host = made.virtual_hosts.add(name=service, domains=["*"])
    safe = _rule(host, service, RETRY_ON_SAFE)
    safe.match.headers.add(name=":method").string_match.safe_regex.regex = SAFE_METHODS
    _rule(host, service, RETRY_ON)
    return resource(service, _encoded(made))


def _rule(host: route_pb2.VirtualHost, service: str, retry_on: str) -> Any:
    rule = host.routes.add()
    rule.match.prefix = ""
    rule.route.cluster = service
    rule.route.timeout.FromMilliseconds(0)  # none: an answer may be a stream
    again = rule.route.retry_policy
    again.retry_on = retry_on
    again.num_retries.value = again.host_selection_retry_max_attempts = RETRIES
    elsewhere = again.retry_host_predicate.add(name="envoy.retry_host_predicates.previous_hosts")
    elsewhere.typed_config.type_url = PREVIOUS_HOSTS
    return rule


def api_listener(service: str) -> Resource:
    """What a gRPC client asks for by name. Envoy has no use for it, and is not given it."""
    made = listener_pb2.Listener(name=service)
    made.api_listener.api_listener.CopyFrom(_any(_http(service)))
    return resource(service, _encoded(made), is_named_only=True)


def listener(door: Door) -> Resource:
    made = listener_pb2.Listener(name=door.name)
    made.address.socket_address.address = door.host
    made.address.socket_address.port_value = door.port
    chain = made.filter_chains.add().filters.add()
    if door.is_tcp:
        chain.name = "envoy.filters.network.tcp_proxy"
        chain.typed_config.CopyFrom(
            _any(tcp_proxy_pb2.TcpProxy(stat_prefix=door.service, cluster=door.service))
        )
    else:
        manager = _http(door.service)
        manager.use_remote_address.value = True
        manager.upgrade_configs.add(upgrade_type="websocket")
        chain.name = "envoy.filters.network.http_connection_manager"
        chain.typed_config.CopyFrom(_any(manager))
    return resource(door.name, _encoded(made))


def _http(service: str) -> Any:
    made = http_connection_manager_pb2.HttpConnectionManager(stat_prefix=service)
    made.rds.route_config_name = service
    made.rds.config_source.CopyFrom(_from_here())
    made.http_filters.add(name="envoy.filters.http.router").typed_config.CopyFrom(_any(router_pb2.Router()))
    return made


def _from_here() -> config_source_pb2.ConfigSource:
    """The stream that the resource itself came on."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )


def _any(inner: message.Message) -> any_pb2.Any:
    made = any_pb2.Any()
    made.Pack(inner, deterministic=True)
    return made


def _encoded(made: message.Message) -> bytes:
    return made.SerializeToString(deterministic=True)
