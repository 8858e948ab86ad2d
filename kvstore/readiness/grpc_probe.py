"""The gRPC health service, grpc.health.v1, asked once on a connection of its own. Without TLS."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from kvstore.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from kvstore.readiness.instance import split_address
from kvstore.readiness.probes import Answer, _Base

CHECK = "/grpc.health.v1.Health/Check"
# A pool of its own: channels to one address share a connection otherwise, and its pauses after failures.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
_SAID = {
    grpc.StatusCode.UNIMPLEMENTED: "the server has no health service",
    grpc.StatusCode.NOT_FOUND: "the health service does not know {service!r}",
    grpc.StatusCode.UNAVAILABLE: "no connection",
}


class GrpcProbe(_Base):
    """service: "" for the server as a whole. Raises InvalidInstance."""

    def __init__(self, address: str, service: str, timeout_s: float) -> None:
        super().__init__(timeout_s)
        split_address(address)
        self._address = address
        self._service = service

    async def _ask(self) -> Answer:
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            check: Any = channel.unary_unary(
                CHECK,
                request_serializer=HealthCheckRequest.SerializeToString,
                response_deserializer=HealthCheckResponse.FromString,
            )
            try:
                answer = await check(HealthCheckRequest(service=self._service), timeout=self._timeout_s)
            except grpc.aio.AioRpcError as failure:
                if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return Answer(False, f"no answer within {self._timeout_s:g} s")
                said = _SAID.get(failure.code(), failure.details() or failure.code().name)
                return Answer(False, said.format(service=self._service))
        if answer.status == HealthCheckResponse.SERVING:
            return Answer(True)
        return Answer(False, f"gRPC health is {HealthCheckResponse.ServingStatus.Name(answer.status)}")
