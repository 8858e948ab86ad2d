from kvstore.pb import authpb_pb2 as _authpb_pb2
from kvstore.pb import etcdserverpb_pb2 as _etcdserverpb_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberRecord(_message.Message):
    __slots__ = ("member", "data_id", "promote", "replaces", "level")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    DATA_ID_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    member: _etcdserverpb_pb2.Member
    data_id: int
    promote: bool
    replaces: int
    level: int
    def __init__(self, member: _Optional[_Union[_etcdserverpb_pb2.Member, _Mapping]] = ..., data_id: _Optional[int] = ..., promote: _Optional[bool] = ..., replaces: _Optional[int] = ..., level: _Optional[int] = ...) -> None: ...

class ConfigContext(_message.Message):
    __slots__ = ("added",)
    ADDED_FIELD_NUMBER: _ClassVar[int]
    added: _containers.RepeatedCompositeFieldContainer[MemberRecord]
    def __init__(self, added: _Optional[_Iterable[_Union[MemberRecord, _Mapping]]] = ...) -> None: ...

class MemberChange(_message.Message):
    __slots__ = ("action", "ID", "peerURLs", "learner", "promote", "replaces")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[MemberChange.Action]
        ADD: _ClassVar[MemberChange.Action]
        REMOVE: _ClassVar[MemberChange.Action]
        PROMOTE: _ClassVar[MemberChange.Action]
    NONE: MemberChange.Action
    ADD: MemberChange.Action
    REMOVE: MemberChange.Action
    PROMOTE: MemberChange.Action
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PEERURLS_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    action: MemberChange.Action
    ID: int
    peerURLs: _containers.RepeatedScalarFieldContainer[str]
    learner: bool
    promote: bool
    replaces: int
    def __init__(self, action: _Optional[_Union[MemberChange.Action, str]] = ..., ID: _Optional[int] = ..., peerURLs: _Optional[_Iterable[str]] = ..., learner: _Optional[bool] = ..., promote: _Optional[bool] = ..., replaces: _Optional[int] = ...) -> None: ...

class MemberChanged(_message.Message):
    __slots__ = ("error", "ID")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    error: str
    ID: int
    def __init__(self, error: _Optional[str] = ..., ID: _Optional[int] = ...) -> None: ...

class LeaseExpire(_message.Message):
    __slots__ = ("leader", "term", "IDs", "sessions", "grant_indexes")
    LEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    GRANT_INDEXES_FIELD_NUMBER: _ClassVar[int]
    leader: int
    term: int
    IDs: _containers.RepeatedScalarFieldContainer[int]
    sessions: _containers.RepeatedScalarFieldContainer[int]
    grant_indexes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, leader: _Optional[int] = ..., term: _Optional[int] = ..., IDs: _Optional[_Iterable[int]] = ..., sessions: _Optional[_Iterable[int]] = ..., grant_indexes: _Optional[_Iterable[int]] = ...) -> None: ...

class LeaseRecord(_message.Message):
    __slots__ = ("ID", "ttl_ms", "session", "grace_ms", "remaining_ms", "grant_index")
    ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    GRANT_INDEX_FIELD_NUMBER: _ClassVar[int]
    ID: int
    ttl_ms: int
    session: int
    grace_ms: int
    remaining_ms: int
    grant_index: int
    def __init__(self, ID: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., session: _Optional[int] = ..., grace_ms: _Optional[int] = ..., remaining_ms: _Optional[int] = ..., grant_index: _Optional[int] = ...) -> None: ...

class LeaseCheckpoint(_message.Message):
    __slots__ = ("term", "IDs", "remaining_ms", "grant_indexes")
    TERM_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    GRANT_INDEXES_FIELD_NUMBER: _ClassVar[int]
    term: int
    IDs: _containers.RepeatedScalarFieldContainer[int]
    remaining_ms: _containers.RepeatedScalarFieldContainer[int]
    grant_indexes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, term: _Optional[int] = ..., IDs: _Optional[_Iterable[int]] = ..., remaining_ms: _Optional[_Iterable[int]] = ..., grant_indexes: _Optional[_Iterable[int]] = ...) -> None: ...

class Announce(_message.Message):
    __slots__ = ("lease_id", "ttl_ms", "session", "key", "value", "take_over")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TAKE_OVER_FIELD_NUMBER: _ClassVar[int]
    lease_id: int
    ttl_ms: int
    session: int
    key: bytes
    value: bytes
    take_over: bool
    def __init__(self, lease_id: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., session: _Optional[int] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., take_over: _Optional[bool] = ...) -> None: ...

class AnnounceEnd(_message.Message):
    __slots__ = ("lease_id", "session", "grace_ms")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    lease_id: int
    session: int
    grace_ms: int
    def __init__(self, lease_id: _Optional[int] = ..., session: _Optional[int] = ..., grace_ms: _Optional[int] = ...) -> None: ...

class UserRecord(_message.Message):
    __slots__ = ("user", "changed_revision")
    USER_FIELD_NUMBER: _ClassVar[int]
    CHANGED_REVISION_FIELD_NUMBER: _ClassVar[int]
    user: _authpb_pb2.User
    changed_revision: int
    def __init__(self, user: _Optional[_Union[_authpb_pb2.User, _Mapping]] = ..., changed_revision: _Optional[int] = ...) -> None: ...

class AuthorizedCommand(_message.Message):
    __slots__ = ("user", "revision", "member", "kind", "payload")
    USER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    user: str
    revision: int
    member: bool
    kind: int
    payload: bytes
    def __init__(self, user: _Optional[str] = ..., revision: _Optional[int] = ..., member: _Optional[bool] = ..., kind: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class QuotaRecord(_message.Message):
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

class TokenGrant(_message.Message):
    __slots__ = ("user", "revision", "letters")
    USER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LETTERS_FIELD_NUMBER: _ClassVar[int]
    user: str
    revision: int
    letters: str
    def __init__(self, user: _Optional[str] = ..., revision: _Optional[int] = ..., letters: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("refusal", "code", "cluster_id", "members")
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    refusal: str
    code: str
    cluster_id: int
    members: _containers.RepeatedCompositeFieldContainer[_etcdserverpb_pb2.Member]
    def __init__(self, refusal: _Optional[str] = ..., code: _Optional[str] = ..., cluster_id: _Optional[int] = ..., members: _Optional[_Iterable[_Union[_etcdserverpb_pb2.Member, _Mapping]]] = ...) -> None: ...
