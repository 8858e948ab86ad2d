from kvstore.pb import etcdserverpb_pb2 as _etcdserverpb_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnnounceRequest(_message.Message):
    __slots__ = ("announce", "keep_alive", "withdraw")
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    KEEP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    announce: Announcement
    keep_alive: KeepAlive
    withdraw: Withdraw
    def __init__(self, announce: _Optional[_Union[Announcement, _Mapping]] = ..., keep_alive: _Optional[_Union[KeepAlive, _Mapping]] = ..., withdraw: _Optional[_Union[Withdraw, _Mapping]] = ...) -> None: ...

class Announcement(_message.Message):
    __slots__ = ("key", "value", "lease_id", "ttl_ms", "grace_ms", "take_over")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    TAKE_OVER_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    lease_id: int
    ttl_ms: int
    grace_ms: int
    take_over: bool
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., lease_id: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., grace_ms: _Optional[int] = ..., take_over: _Optional[bool] = ...) -> None: ...

class KeepAlive(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Withdraw(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AnnounceResponse(_message.Message):
    __slots__ = ("header", "kind", "lease_id", "ttl_ms")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ANNOUNCED: _ClassVar[AnnounceResponse.Kind]
        RENEWED: _ClassVar[AnnounceResponse.Kind]
        WITHDRAWN: _ClassVar[AnnounceResponse.Kind]
        LOST: _ClassVar[AnnounceResponse.Kind]
    ANNOUNCED: AnnounceResponse.Kind
    RENEWED: AnnounceResponse.Kind
    WITHDRAWN: AnnounceResponse.Kind
    LOST: AnnounceResponse.Kind
    HEADER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    header: _etcdserverpb_pb2.ResponseHeader
    kind: AnnounceResponse.Kind
    lease_id: int
    ttl_ms: int
    def __init__(self, header: _Optional[_Union[_etcdserverpb_pb2.ResponseHeader, _Mapping]] = ..., kind: _Optional[_Union[AnnounceResponse.Kind, str]] = ..., lease_id: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...
