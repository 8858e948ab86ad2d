"""The gRPC server that the streams come in on, with TLS or without."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc

from kvstore.routing.xds.plane import Plane
from kvstore.routing.xds.session import VARIANTS, Session, Variant

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
STREAMS_MAX = 10_000
STOP_S = 0.2  # streams never end by themselves
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC ends connections that ping more often than every 5 minutes while nothing is sent: Envoys do, every 10 s.
    ("grpc.http2.min_ping_interval_without_data_ms", 200),
    ("grpc.keepalive_permit_without_calls", 1),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files. client_ca_file: clients must show a certificate of this CA; "" when they need none."""

    cert_file: str
    key_file: str
    client_ca_file: str = ""


class XdsServer:
    def __init__(self, plane: Plane, host: str, port: int, tls: Tls | None = None) -> None:
        self._plane = plane
        self._host = host
        self._port = port
        self._tls = tls
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    async def start(self) -> None:
        """Raises OSError, also for files that cannot be read. Port 0: any."""
        credentials = _credentials(self._tls) if self._tls is not None else None
        self._port = _free_port(self._host, self._port)
        server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=STREAMS_MAX)
        handlers = {variant.method: self._handler(variant) for variant in VARIANTS}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            if credentials is None:
                server.add_insecure_port(self.address)
            else:
                server.add_secure_port(self.address, credentials)
        except RuntimeError:
            raise OSError("it was taken meanwhile, or the certificate cannot be used") from None
        await server.start()
        self._server = server

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(STOP_S)

    def _handler(self, variant: Variant) -> Any:
        async def serve(requests: AsyncIterator[bytes], context: Any) -> None:
            await Session(self._plane, variant, context).run(requests)

        return grpc.stream_stream_rpc_method_handler(serve)


def _free_port(host: str, port: int) -> int:
    """The port itself, or for 0 one that nobody has. Raises OSError, which gRPC would say on stderr instead."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, port))
        return int(one.getsockname()[1])


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Of the files as they are at each handshake, so that a renewed certificate needs no restart."""
    last = _configuration(tls)

    def renewed() -> Any:
        nonlocal last
        try:
            now = _configuration(tls)
        except OSError:  # in the middle of being replaced: with the last one, then
            return None
        if now == last:
            return None
        last = now
        return _encoded(now)

    return grpc.dynamic_ssl_server_credentials(
        _encoded(last), renewed, require_client_authentication=bool(tls.client_ca_file)
    )


def _configuration(tls: Tls) -> tuple[bytes, bytes, bytes | None]:
    """Key, certificate, CA."""
    return (
        _read(tls.key_file),
        _read(tls.cert_file),
        _read(tls.client_ca_file) if tls.client_ca_file else None,
    )


def _encoded(files: tuple[bytes, bytes, bytes | None]) -> Any:
    key, certificate, ca = files
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
