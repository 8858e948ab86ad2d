"""grpc.reflection.v1 and v1alpha: what grpcurl and its like ask to learn the services without their protos.

Shows the files of the services that are served, and what those import; nothing else of the descriptor pool. It tells
the shape of the API and no data, so it is open as the health service is.
"""

from __future__ import annotations

import contextlib

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError

from kvstore.pb import reflection_v1alpha_pb2
from kvstore.pb.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from kvstore.rpc import Methods, Status, StreamCall, StreamMethod

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = f"{reflection_v1alpha_pb2.DESCRIPTOR.package}.ServerReflection"
BUFFER_BYTES_MAX = 4 << 20


class ReflectionService:
    """Of the methods given, and of itself."""

    def __init__(self, methods: Methods) -> None:
        served = {path[1:].rpartition("/")[0] for path in methods}
        self._pool = descriptor_pool.Default()
        self.services = sorted(filter(self._described, served | {V1, V1ALPHA}))
        self._files: dict[str, FileDescriptor] | None = None

    def _described(self, service: str) -> bool:
        """False of a service that only this project's own client calls: its messages are in no proto."""
        try:
            self._pool.FindServiceByName(service)
        except KeyError:
            return False
        return True

    def methods(self) -> Methods:
        return {f"/{service}/ServerReflectionInfo": StreamMethod(self.open) for service in (V1, V1ALPHA)}

    def open(self, call: StreamCall) -> ReflectionStream:
        return ReflectionStream(self, call)

    def answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        reply = ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self.services:
                reply.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            self._give(reply, request.file_by_filename, f"file not found: {request.file_by_filename}")
        elif kind == "file_containing_symbol":
            symbol = request.file_containing_symbol.lstrip(".")
            self._give(reply, self._file_of(symbol), f"symbol not found: {symbol}")
        elif kind == "all_extension_numbers_of_type":
            name = request.all_extension_numbers_of_type
            if self._file_of(name):
                reply.all_extension_numbers_response.base_type_name = name  # proto3: there are none
            else:
                _refuse(reply, Status.NOT_FOUND, f"type not found: {name}")
        elif kind == "file_containing_extension":
            _refuse(reply, Status.NOT_FOUND, "extension not found: there are no extensions")
        else:
            _refuse(reply, Status.INVALID_ARGUMENT, "a request must ask for something")
        return reply

    @property
    def _shown(self) -> dict[str, FileDescriptor]:
        """By name; found when first asked for."""
        if self._files is None:
            self._files = {}
            for service in self.services:
                self._show(self._pool.FindServiceByName(service).file)
        return self._files

    def _show(self, file: FileDescriptor) -> None:
        assert self._files is not None
        if file.name not in self._files:
            self._files[file.name] = file
            for imported in file.dependencies:
                self._show(imported)

    def _file_of(self, symbol: str) -> str:
        """The name of the file that declares a symbol; "" where there is none."""
        with contextlib.suppress(KeyError):
            return str(self._pool.FindFileContainingSymbol(symbol).name)
        with contextlib.suppress(KeyError):
            return str(self._pool.FindMethodByName(symbol).containing_service.file.name)
        with contextlib.suppress(KeyError):
            owner = self._pool.FindFieldByName(symbol).containing_type
            return str(owner.file.name) if owner is not None else ""
        return ""

    def _give(self, reply: ServerReflectionResponse, name: str, otherwise: str) -> None:
        """The file and what it imports, each once, the one that was asked for first."""
        from google.protobuf import descriptor_pb2  # half a MiB that only this needs

        file = self._shown.get(name)
        if file is None:
            _refuse(reply, Status.NOT_FOUND, otherwise)
            return
        seen: set[str] = set()

        def add(one: FileDescriptor) -> None:
            if one.name in seen:
                return
            seen.add(one.name)
            for imported in one.dependencies:
                add(imported)
            copy = descriptor_pb2.FileDescriptorProto()
            one.CopyToProto(copy)
            files.append(copy.SerializeToString())

        files: list[bytes] = []
        add(file)
        files.reverse()  # the file that was asked for comes first, as clients expect
        reply.file_descriptor_response.file_descriptor_proto.extend(files)


class ReflectionStream:
    def __init__(self, service: ReflectionService, call: StreamCall) -> None:
        self._service = service
        self._call = call

    def message(self, data: bytes) -> None:
        if self._call.buffered_bytes > BUFFER_BYTES_MAX:
            self._call.finish(Status.RESOURCE_EXHAUSTED, "too many requests without reading the replies")
            return
        try:
            request = ServerReflectionRequest.FromString(data)
        except DecodeError as problem:
            self._call.finish(Status.INTERNAL, f"grpc: error unmarshalling request: {problem}")
            return
        self._call.send(self._service.answer(request).SerializeToString())

    def half_closed(self) -> None:
        self._call.finish()

    def cancelled(self) -> None:
        """Nothing is held."""

    def drained(self) -> None:
        """Each reply stands for a request that was read; nothing waits for room."""


def _refuse(reply: ServerReflectionResponse, status: Status, text: str) -> None:
    reply.error_response.error_code = status
    reply.error_response.error_message = text
