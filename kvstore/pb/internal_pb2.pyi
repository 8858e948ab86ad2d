from kvstore.pb import etcdserverpb_pb2 as _etcdserverpb_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberRecord(_message.Message):
    __slots__ = ("member", "data_id")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DATA_ID_FIELD_NUMBER: _ClassVar[int]
    member: _etcdserverpb_pb2.Member
    data_id: int
    def __init__(self, member: _Optional[_Union[_etcdserverpb_pb2.Member, _Mapping]] = ..., data_id: _Optional[int] = ...) -> None: ...

class LeaseExpire(_message.Message):
    __slots__ = ("leader", "term", "IDs")
    LEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    leader: int
    term: int
    IDs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, leader: _Optional[int] = ..., term: _Optional[int] = ..., IDs: _Optional[_Iterable[int]] = ...) -> None: ...

class LeaseRecord(_message.Message):
    __slots__ = ("ID", "ttl_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    ID: int
    ttl_ms: int
    def __init__(self, ID: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class PeerHello(_message.Message):
    __slots__ = ("protocol", "cluster_id", "from_id", "to_id", "data_id", "channel", "incarnation")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_ID_FIELD_NUMBER: _ClassVar[int]
    TO_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    cluster_id: int
    from_id: int
    to_id: int
    data_id: int
    channel: str
    incarnation: int
    def __init__(self, protocol: _Optional[int] = ..., cluster_id: _Optional[int] = ..., from_id: _Optional[int] = ..., to_id: _Optional[int] = ..., data_id: _Optional[int] = ..., channel: _Optional[str] = ..., incarnation: _Optional[int] = ...) -> None: ...

class PeerWelcome(_message.Message):
    __slots__ = ("refusal", "code")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    refusal: str
    code: str
    def __init__(self, refusal: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...
