"""Quotas on prefixes: the part of the client's face that sets and reads them."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.client.caller import Caller
from kvstore.client.compare import Key, to_bytes
from kvstore.client.methods import QUOTA_GET, QUOTA_LIST, QUOTA_REMOVE, QUOTA_SET
from kvstore.pb import quota_pb2 as pb


@dataclass(frozen=True)
class Quota:
    """A limit of 0 is none. used_*: the keys that are there, and the bytes of their names and values."""

    prefix: bytes
    bytes_max: int
    keys_max: int
    qps_max: int
    used_bytes: int
    used_keys: int


class QuotaMethods:
    """Mixed into Client. A write that a quota refuses raises QuotaExceeded, and certainly had no effect."""

    caller: Caller

    async def quota_set(
        self,
        prefix: Key,
        *,
        bytes_max: int | None = None,
        keys_max: int | None = None,
        qps_max: int | None = None,
    ) -> Quota:
        """None leaves a limit as it is, 0 lifts it. Raises InvalidRequest where none would be left."""
        request = pb.QuotaSetRequest(
            prefix=to_bytes(prefix), bytes_max=bytes_max, keys_max=keys_max, qps_max=qps_max
        )
        return _quota((await self.caller.write(QUOTA_SET, request)).quota)

    async def quota(self, prefix: Key) -> Quota:
        """Raises QuotaNotFound."""
        response = await self.caller.read(QUOTA_GET, pb.QuotaGetRequest(prefix=to_bytes(prefix)))
        return _quota(response.quota)

    async def quotas(self) -> list[Quota]:
        """By prefix; with authentication on those of prefixes that the user may read."""
        response = await self.caller.read(QUOTA_LIST, pb.QuotaListRequest())
        return [_quota(each) for each in response.quotas]

    async def quota_remove(self, prefix: Key) -> Quota:
        """As it was. Raises QuotaNotFound."""
        request = pb.QuotaRemoveRequest(prefix=to_bytes(prefix))
        return _quota((await self.caller.write(QUOTA_REMOVE, request)).quota)


def _quota(message: pb.PrefixQuota) -> Quota:
    return Quota(
        message.prefix,
        message.bytes_max,
        message.keys_max,
        message.qps_max,
        message.used_bytes,
        message.used_keys,
    )
