"""The client library: asyncio, over gRPC of its own.

async with Client("10.0.0.1:2379,10.0.0.2:2379") as client:
    await client.put("greeting", "hello")
    print((await client.get("greeting")).kvs[0].value)
"""

from kvstore.client.client import Client
from kvstore.client.compare import Compare, Op
from kvstore.client.errors import ClientError, OutcomeUnknown
from kvstore.client.lease import LeaseSession
from kvstore.client.quota import Quota
from kvstore.client.results import (
    DeleteResult,
    Event,
    KeyValue,
    Lease,
    LeaseStatus,
    Member,
    MemberStatus,
    PutResult,
    RangeResult,
    TxnResult,
    WatchBatch,
)
from kvstore.client.tls import Tls
from kvstore.client.watch import Watch

__all__ = [
    "Client",
    "ClientError",
    "Compare",
    "DeleteResult",
    "Event",
    "KeyValue",
    "Lease",
    "LeaseSession",
    "LeaseStatus",
    "Member",
    "MemberStatus",
    "Op",
    "OutcomeUnknown",
    "PutResult",
    "Quota",
    "RangeResult",
    "Tls",
    "TxnResult",
    "Watch",
    "WatchBatch",
]
