"""grpc.health.v1.Health: the process serves; whether the cluster can write is /health's and Status's to say."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from kvstore.api.context import parse
from kvstore.pb.health_pb2 import HealthCheckRequest, HealthCheckResponse
from kvstore.rpc import Methods, Status, StreamCall, StreamMethod, UnaryCall, UnaryMethod

_SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
_UNKNOWN = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()


class HealthService:
    def methods(self) -> Methods:
        return {
            "/grpc.health.v1.Health/Check": UnaryMethod(self.check),
            "/grpc.health.v1.Health/Watch": StreamMethod(HealthWatch),
        }

    def check(self, call: UnaryCall, data: bytes) -> None:
        request = parse(call, HealthCheckRequest, data)
        if request is None:
            return
        if request.service:
            call.fail(Status.NOT_FOUND, "unknown service")
        else:
            call.reply(_SERVING)


class HealthWatch:
    """One answer, and the stream stays open: this server's status does not change while it runs."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call

    def message(self, data: bytes) -> None:
        try:
            request = HealthCheckRequest.FromString(data)
        except DecodeError as problem:
            self._call.finish(Status.INTERNAL, f"grpc: error unmarshalling request: {problem}")
            return
        self._call.send(_UNKNOWN if request.service else _SERVING)

    def half_closed(self) -> None:
        """The one request has been sent."""

    def cancelled(self) -> None:
        """Nothing is held."""

    def drained(self) -> None:
        """One small message needs no room."""
