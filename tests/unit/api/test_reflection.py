"""grpc.reflection: what is told of the services served, and what is not."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from kvstore.api.health import HealthService
from kvstore.api.reflection import V1, V1ALPHA, ReflectionService
from kvstore.pb import etcdserverpb_pb2, internal_pb2
from kvstore.pb.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from kvstore.rpc import Status, StreamMethod, UnaryMethod

NOTHING = UnaryMethod(lambda call, data: None)
METHODS = {"/etcdserverpb.KV/Put": NOTHING, "/own.Service/InNoProto": NOTHING, **HealthService().methods()}
SERVICE = ReflectionService(METHODS)


def ask(**asked: str) -> ServerReflectionResponse:
    return SERVICE.answer(ServerReflectionRequest(host="h", **asked))  # type: ignore[arg-type]


def files(reply: ServerReflectionResponse) -> list[FileDescriptorProto]:
    return [
        FileDescriptorProto.FromString(each) for each in reply.file_descriptor_response.file_descriptor_proto
    ]


def test_the_services_served_and_reflection_itself() -> None:
    reply = ask(list_services="*")
    assert [each.name for each in reply.list_services_response.service] == [
        "etcdserverpb.KV",
        "grpc.health.v1.Health",
        V1,
        V1ALPHA,
    ]
    assert reply.valid_host == "h" and reply.original_request.list_services == "*"


def test_a_client_can_build_the_services_from_the_files() -> None:
    for symbol in ("etcdserverpb.KV", "etcdserverpb.KV.Put", "etcdserverpb.RangeRequest.key", V1ALPHA):
        pool, given = DescriptorPool(), files(ask(file_containing_symbol=symbol))
        assert symbol.startswith(given[0].package)
        for file in reversed(given):
            pool.Add(file)
        assert pool.FindFileByName(given[0].name).package == given[0].package
        assert len({file.name for file in given}) == len(given)


def test_files_by_name() -> None:
    name = etcdserverpb_pb2.DESCRIPTOR.name
    assert files(ask(file_by_filename=name)) == files(ask(file_containing_symbol="etcdserverpb.PutRequest"))


def test_what_is_not_served_is_not_shown() -> None:
    own = internal_pb2.DESCRIPTOR.name
    for reply in (
        ask(file_by_filename=own),
        ask(file_by_filename="nothing.proto"),
        ask(file_containing_symbol=internal_pb2.MemberRecord.DESCRIPTOR.full_name),
        ask(file_containing_symbol="etcdserverpb.KV.Nothing"),
        ask(all_extension_numbers_of_type="nothing.At.All"),
    ):
        assert reply.error_response.error_code == Status.NOT_FOUND and reply.error_response.error_message
    assert ask().error_response.error_code == Status.INVALID_ARGUMENT


def test_there_are_no_extensions() -> None:
    reply = ask(all_extension_numbers_of_type="etcdserverpb.PutRequest")
    assert reply.all_extension_numbers_response.base_type_name == "etcdserverpb.PutRequest"
    assert not reply.all_extension_numbers_response.extension_number
    request = ServerReflectionRequest()
    request.file_containing_extension.containing_type = "etcdserverpb.PutRequest"
    assert SERVICE.answer(request).error_response.error_code == Status.NOT_FOUND


class Call:
    """A stream's other side."""

    metadata: dict[str, str] = {}  # noqa: RUF012  never written
    common_name, deadline, cancelled, buffered_bytes = "", None, False, 0

    def __init__(self) -> None:
        self.sent: list[ServerReflectionResponse] = []
        self.ended: list[int] = []

    def send(self, message: bytes) -> None:
        self.sent.append(ServerReflectionResponse.FromString(message))

    def finish(self, status: int = 0, message: str = "") -> None:
        self.ended.append(status)


def test_a_stream_answers_until_its_client_has_said_all() -> None:
    for method in SERVICE.methods().values():
        assert isinstance(method, StreamMethod)
        call = Call()
        stream = method.opener(call)
        stream.message(ServerReflectionRequest(list_services="").SerializeToString())
        stream.message(ServerReflectionRequest(file_by_filename="x").SerializeToString())
        assert [each.WhichOneof("message_response") for each in call.sent] == [
            "list_services_response",
            "error_response",
        ]
        stream.half_closed()
        assert call.ended == [Status.OK]


def test_a_stream_ends_where_its_client_sends_what_is_no_request_or_does_not_read() -> None:
    call = Call()
    SERVICE.open(call).message(b"\xff")
    assert call.ended == [Status.INTERNAL] and not call.sent
    call = Call()
    call.buffered_bytes = 1 << 30
    SERVICE.open(call).message(b"")
    assert call.ended == [Status.RESOURCE_EXHAUSTED] and not call.sent
