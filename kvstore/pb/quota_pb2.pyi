from kvstore.pb import etcdserverpb_pb2 as _etcdserverpb_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PrefixQuota(_message.Message):
    __slots__ = ("prefix", "bytes_max", "keys_max", "qps_max", "used_bytes", "used_keys")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    KEYS_MAX_FIELD_NUMBER: _ClassVar[int]
    QPS_MAX_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_KEYS_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    bytes_max: int
    keys_max: int
    qps_max: int
    used_bytes: int
    used_keys: int
    def __init__(self, prefix: _Optional[bytes] = ..., bytes_max: _Optional[int] = ..., keys_max: _Optional[int] = ..., qps_max: _Optional[int] = ..., used_bytes: _Optional[int] = ..., used_keys: _Optional[int] = ...) -> None: ...

class QuotaSetRequest(_message.Message):
    __slots__ = ("prefix", "bytes_max", "keys_max", "qps_max")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    KEYS_MAX_FIELD_NUMBER: _ClassVar[int]
    QPS_MAX_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    bytes_max: int
    keys_max: int
    qps_max: int
    def __init__(self, prefix: _Optional[bytes] = ..., bytes_max: _Optional[int] = ..., keys_max: _Optional[int] = ..., qps_max: _Optional[int] = ...) -> None: ...

class QuotaSetResponse(_message.Message):
    __slots__ = ("header", "quota")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    header: _etcdserverpb_pb2.ResponseHeader
    quota: PrefixQuota
    def __init__(self, header: _Optional[_Union[_etcdserverpb_pb2.ResponseHeader, _Mapping]] = ..., quota: _Optional[_Union[PrefixQuota, _Mapping]] = ...) -> None: ...

class QuotaGetRequest(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    def __init__(self, prefix: _Optional[bytes] = ...) -> None: ...

class QuotaGetResponse(_message.Message):
    __slots__ = ("header", "quota")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    header: _etcdserverpb_pb2.ResponseHeader
    quota: PrefixQuota
    def __init__(self, header: _Optional[_Union[_etcdserverpb_pb2.ResponseHeader, _Mapping]] = ..., quota: _Optional[_Union[PrefixQuota, _Mapping]] = ...) -> None: ...

class QuotaListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class QuotaListResponse(_message.Message):
    __slots__ = ("header", "quotas")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    header: _etcdserverpb_pb2.ResponseHeader
    quotas: _containers.RepeatedCompositeFieldContainer[PrefixQuota]
    def __init__(self, header: _Optional[_Union[_etcdserverpb_pb2.ResponseHeader, _Mapping]] = ..., quotas: _Optional[_Iterable[_Union[PrefixQuota, _Mapping]]] = ...) -> None: ...

class QuotaRemoveRequest(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: bytes
    def __init__(self, prefix: _Optional[bytes] = ...) -> None: ...

class QuotaRemoveResponse(_message.Message):
    __slots__ = ("header", "quota")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    header: _etcdserverpb_pb2.ResponseHeader
    quota: PrefixQuota
    def __init__(self, header: _Optional[_Union[_etcdserverpb_pb2.ResponseHeader, _Mapping]] = ..., quota: _Optional[_Union[PrefixQuota, _Mapping]] = ...) -> None: ...
