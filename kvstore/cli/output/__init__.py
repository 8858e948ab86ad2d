"""How answers are printed: one module a format, each a Printer. Pure: messages in, bytes out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from kvstore.client.results import Header, WatchBatch
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.pb.quota_pb2 import PrefixQuota


@dataclass(frozen=True)
class EndpointStatus:
    endpoint: str
    response: pb.StatusResponse


@dataclass(frozen=True)
class EndpointHealth:
    """error is empty where healthy is True."""

    endpoint: str
    healthy: bool
    took_s: float
    error: str = ""


@dataclass(frozen=True)
class EndpointHash:
    endpoint: str
    response: pb.HashKVResponse


@dataclass(frozen=True)
class WatchEnd:
    """A watch that the server ended, or never began: then it has no header."""

    header: Header | None
    compact_revision: int = 0


class Printer(Protocol):
    """Every method gives the bytes for stdout. A format without tables for a command never gets there."""

    def get(self, response: pb.RangeResponse, *, values_only: bool = False) -> bytes: ...
    def put(self, response: pb.PutResponse) -> bytes: ...
    def delete(self, response: pb.DeleteRangeResponse) -> bytes: ...
    def txn(self, response: pb.TxnResponse) -> bytes: ...
    def watch(self, batch: WatchBatch) -> bytes: ...
    def watch_end(self, end: WatchEnd) -> bytes: ...
    def lease_grant(self, response: pb.LeaseGrantResponse) -> bytes: ...
    def lease_revoke(self, lease_id: int, response: pb.LeaseRevokeResponse) -> bytes: ...
    def lease_keep_alive(self, response: pb.LeaseKeepAliveResponse) -> bytes: ...
    def lease_lost(self, lease_id: int) -> bytes: ...
    def lease_list(self, response: pb.LeaseLeasesResponse) -> bytes: ...
    def lease_time_to_live(self, response: pb.LeaseTimeToLiveResponse, *, keys: bool) -> bytes: ...
    def member_list(self, response: pb.MemberListResponse) -> bytes: ...
    def member_change(self, response: Any, text: str) -> bytes: ...
    def endpoint_status(self, found: Sequence[EndpointStatus]) -> bytes: ...
    def endpoint_health(self, found: Sequence[EndpointHealth]) -> bytes: ...
    def endpoint_hashkv(self, found: Sequence[EndpointHash]) -> bytes: ...
    def alarms(self, response: pb.AlarmResponse) -> bytes: ...
    def role(self, name: str, response: pb.AuthRoleGetResponse) -> bytes: ...
    def quotas(self, response: Any, quotas: Sequence[PrefixQuota]) -> bytes: ...
    def names(self, response: Any, names: Sequence[str]) -> bytes: ...
    def reply(self, response: Any, text: str) -> bytes:
        """An answer that says little more than that it was done. text: what simple prints, without line end."""


def printer(name: str, *, hex_strings: bool) -> Printer:
    """Of options.FORMATS. Imports the one it needs: rich alone takes longer than kvctl's start."""
    made = importlib.import_module(f"kvstore.cli.output.as_{name}").Printer(hex_strings=hex_strings)
    return cast(Printer, made)
