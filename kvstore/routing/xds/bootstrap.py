"""The file that a client starts with: where the control plane is, and who it is itself. Pure.

JSON in both cases; Envoy reads it as a .json, and as a .yaml too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kvstore.readiness.instance import split_address

CONTROL_PLANE = "xds@kvstore"  # a cluster of Envoy's own: no service can have this name
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class Client:
    """servers: HOST:PORT of control planes, each of which is enough. admin: HOST:PORT where Envoy's administration
    listens, "" for nowhere. ca_file, cert_file, key_file: TLS to the control plane; "" for ca_file: none."""

    servers: tuple[str, ...]
    node_id: str
    zone: str = ""
    is_delta: bool = False
    admin: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def envoy(client: Client) -> dict[str, Any]:
    """ADS on one stream, for listeners, clusters and what these refer to."""
    from_ads = {"ads": {}, "resource_api_version": "V3"}
    ads = {
        "api_type": "DELTA_GRPC" if client.is_delta else "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [
            {
                "envoy_grpc": {
                    "cluster_name": CONTROL_PLANE,
                    "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "2s"}},
                }
            }
        ],
    }
    made: dict[str, Any] = {
        "node": _node(client, "envoy"),
        "dynamic_resources": {"ads_config": ads, "lds_config": from_ads, "cds_config": from_ads},
        "static_resources": {"clusters": [_control_plane(client)]},
    }
    if client.admin:
        made["admin"] = {"address": _address(client.admin)}
    return made


def grpc(client: Client) -> dict[str, Any]:
    """What GRPC_XDS_BOOTSTRAP names. The servers are tried in this order."""
    credentials: dict[str, Any] = {"type": "insecure"}
    if client.ca_file:
        config = {
            "ca_certificate_file": client.ca_file,
            "certificate_file": client.cert_file,
            "private_key_file": client.key_file,
        }
        credentials = {"type": "tls", "config": {name: path for name, path in config.items() if path}}
    return {
        "xds_servers": [
            {"server_uri": server, "channel_creds": [credentials], "server_features": ["xds_v3"]}
            for server in client.servers
        ],
        "node": _node(client, "grpc"),
    }


def _node(client: Client, cluster: str) -> dict[str, Any]:
    return {
        "id": client.node_id,
        "cluster": cluster,
        **({"locality": {"zone": client.zone}} if client.zone else {}),
    }


def _control_plane(client: Client) -> dict[str, Any]:
    keepalive = {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}
    options = {
        "@type": f"type.googleapis.com/{_HTTP}",
        "explicit_http_config": {"http2_protocol_options": keepalive},
    }
    endpoints = [{"endpoint": {"address": _address(server)}} for server in client.servers]
    made: dict[str, Any] = {
        "name": CONTROL_PLANE,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {_HTTP: options},
        "load_assignment": {"cluster_name": CONTROL_PLANE, "endpoints": [{"lb_endpoints": endpoints}]},
    }
    if client.ca_file:
        made["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": _TLS, **_tls(client)},
        }
    return made


def _tls(client: Client) -> dict[str, Any]:
    host = split_address(client.servers[0])[0]
    trusted = {
        "trusted_ca": {"filename": client.ca_file},
        "match_typed_subject_alt_names": [
            {"san_type": kind, "matcher": {"exact": split_address(server)[0]}}
            for server in client.servers
            for kind in ("DNS", "IP_ADDRESS")
        ],
    }
    context: dict[str, Any] = {"alpn_protocols": ["h2"], "validation_context": trusted}
    if client.cert_file:
        context["tls_certificates"] = [
            {
                "certificate_chain": {"filename": client.cert_file},
                "private_key": {"filename": client.key_file},
            }
        ]
    return {"sni": host, "common_tls_context": context}


def _address(text: str) -> dict[str, Any]:
    host, port = split_address(text)
    return {"socket_address": {"address": host, "port_value": port}}
