"""Setting and removing quotas: the effects of those commands.

A quota that is new counts what is there, once, on every member at the same place in the log: about a second for a
million keys under its prefix, during which nothing else is applied. A quota that is set again goes on counting.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore import errors
from kvstore.commands import Kind
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.pb.quota_pb2 import (
    QuotaRemoveRequest,
    QuotaRemoveResponse,
    QuotaSetRequest,
    QuotaSetResponse,
)
from kvstore.state.key_ranges import prefix_range
from kvstore.state.mvcc import Keyspace
from kvstore.state.overlay import Overlay
from kvstore.state.quotas import PREFIX_BYTES_MAX, QUOTAS_MAX, Quota, Quotas
from kvstore.state.records import KV_AT
from kvstore.state.storage_process import QUOTAS


class QuotaCommands:
    def __init__(self, quotas: Quotas, keyspace: Keyspace, overlay: Overlay) -> None:
        self._quotas = quotas
        self._keyspace = keyspace
        self._overlay = overlay

    def effects(self) -> dict[int, Callable[[bytes], bytes]]:
        return {Kind.QUOTA_SET: self._set, Kind.QUOTA_REMOVE: self._remove}

    def _set(self, payload: bytes) -> bytes:
        request, quotas = QuotaSetRequest.FromString(payload), self._quotas
        check_prefix(request.prefix)
        known = quotas.get(request.prefix)
        quota = known or Quota(request.prefix)
        limits = [
            getattr(request, name) if request.HasField(name) else getattr(quota, name)
            for name in ("bytes_max", "keys_max", "qps_max")
        ]
        if not any(limits):
            raise errors.InvalidQuota("a quota limits bytes, keys or qps; removing it lifts it altogether")
        if known is None:
            if len(quotas) >= QUOTAS_MAX:
                raise errors.InvalidQuota(f"there are {QUOTAS_MAX} quotas already")
            quota.used_keys, quota.used_bytes = used(self._keyspace, quota.prefix)
        quota.bytes_max, quota.keys_max, quota.qps_max = limits
        quotas.put_in(quota)
        self._keyspace.quotas = quotas
        return QuotaSetResponse(quota=quota.message()).SerializeToString()

    def _remove(self, payload: bytes) -> bytes:
        quota = self._quotas.get(QuotaRemoveRequest.FromString(payload).prefix)
        if quota is None:
            raise errors.QuotaNotFound
        self._quotas.take_out(quota)
        self._overlay.filling.operations[QUOTAS, quota.prefix] = None
        if not self._quotas:
            self._keyspace.quotas = None
        return QuotaRemoveResponse(quota=quota.message()).SerializeToString()


def check_prefix(prefix: bytes) -> None:
    """Raises InvalidQuota."""
    if not prefix:
        raise errors.InvalidQuota(
            "a quota is on a prefix of at least one byte; --quota-backend-bytes is on all"
        )
    if len(prefix) > PREFIX_BYTES_MAX:
        raise errors.InvalidQuota(f"a quota's prefix has at most {PREFIX_BYTES_MAX} bytes, not {len(prefix)}")


def used(keyspace: Keyspace, prefix: bytes) -> tuple[int, int]:
    """(keys, bytes) that lie under a prefix now, by looking at each."""
    keys = size = 0
    for key, record in keyspace.scan(*prefix_range(prefix)):
        keys += 1
        size += len(key) + len(KeyValue.FromString(bytes(record[KV_AT:])).value)
    return keys, size
