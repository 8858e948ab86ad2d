"""The face of the client: every operation as one method. What a call may raise is in errors.py."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from kvstore.client import lease as leases
from kvstore.client import results
from kvstore.client.auth import AuthMethods
from kvstore.client.caller import Caller, Settings
from kvstore.client.compare import (
    Compare,
    Key,
    Op,
    SortOrder,
    SortTarget,
    delete_request,
    is_read_only,
    key_range,
    put_request,
    range_request,
    txn_request,
)
from kvstore.client.endpoints import EndpointChoice, parse_endpoints
from kvstore.client.lease import LeaseSession
from kvstore.client.methods import (
    COMPACT,
    DELETE_RANGE,
    LEASE_LEASES,
    LEASE_REVOKE,
    LEASE_TIME_TO_LIVE,
    MEMBER_ADD,
    MEMBER_LIST,
    MEMBER_PROMOTE,
    MEMBER_REMOVE,
    MEMBER_UPDATE,
    PUT,
    RANGE,
    STATUS,
    TXN,
)
from kvstore.client.quota import QuotaMethods
from kvstore.client.results import (
    DeleteResult,
    Lease,
    LeaseStatus,
    Member,
    MemberStatus,
    PutResult,
    RangeResult,
    TxnResult,
)
from kvstore.client.tls import Tls
from kvstore.client.watch import Watch, WatchStream
from kvstore.client.watch_state import WatchState
from kvstore.pb import etcdserverpb_pb2 as pb


class Client(AuthMethods, QuotaMethods):
    """Use as `async with Client("10.0.0.1:2379,10.0.0.2:2379") as client`. Connections are made on first use.

    timeout_s bounds each operation, its repetitions at other endpoints included. The order in which the
    endpoints are tried first is drawn anew by each client, so that many clients spread; shuffle=False or a
    random source of one's own settles it. user and password say who to be where the cluster asks for that.
    The other settings are those of caller.Settings."""

    def __init__(
        self,
        endpoints: str | Sequence[str] = "127.0.0.1:2379",
        *,
        timeout_s: float = 5.0,
        dial_timeout_s: float = 2.0,
        wait_for_endpoints: bool = True,
        require_leader: bool = True,
        max_message_bytes: int = 2**31 - 1,
        keepalive_s: float = 10.0,
        keepalive_timeout_s: float = 5.0,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        shuffle: bool = True,
        entropy: random.Random | None = None,
    ) -> None:
        found = parse_endpoints(endpoints)
        if shuffle:
            (entropy or random.Random()).shuffle(found)
        settings = Settings(
            timeout_s=timeout_s,
            dial_timeout_s=dial_timeout_s,
            wait_for_endpoints=wait_for_endpoints,
            require_leader=require_leader,
            max_message_bytes=max_message_bytes,
            keepalive_s=keepalive_s,
            keepalive_timeout_s=keepalive_timeout_s,
            tls=tls,
            user=user,
            password=password,
        )
        self.caller = Caller(EndpointChoice(found), settings)
        self._watch_streams: set[WatchStream] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every watch and call, and the connections. Calls made after it raise ClientClosed."""
        self.caller.closed = True
        for stream in list(self._watch_streams):
            await stream.close()
        self._watch_streams.clear()
        await self.caller.close()

    @property
    def endpoints(self) -> list[str]:
        return [endpoint.name for endpoint in self.caller.choice.endpoints]

    async def get(
        self,
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
        revision: int = 0,
        limit: int = 0,
        serializable: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        sort_order: SortOrder | None = None,
        sort_target: SortTarget | None = None,
        min_mod_revision: int = 0,
        max_mod_revision: int = 0,
        min_create_revision: int = 0,
        max_create_revision: int = 0,
    ) -> RangeResult:
        """Linearizable unless serializable, which reads what the asked member has, without its leader."""
        request = range_request(
            key,
            range_end=range_end,
            prefix=prefix,
            from_key=from_key,
            revision=revision,
            limit=limit,
            serializable=serializable,
            keys_only=keys_only,
            count_only=count_only,
            sort_order=sort_order,
            sort_target=sort_target,
            min_mod_revision=min_mod_revision,
            max_mod_revision=max_mod_revision,
            min_create_revision=min_create_revision,
            max_create_revision=max_create_revision,
        )
        return results.range_result(await self.caller.read(RANGE, request, leader=not serializable))

    async def put(
        self,
        key: Key,
        value: str | bytes = b"",
        *,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> PutResult:
        """Without lease and ignore_lease the key is taken off the lease it had."""
        request = put_request(
            key, value, lease=lease, prev_kv=prev_kv, ignore_value=ignore_value, ignore_lease=ignore_lease
        )
        return results.put_result(await self.caller.write(PUT, request))

    async def delete(
        self,
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
        prev_kv: bool = False,
    ) -> DeleteResult:
        request = delete_request(key, range_end=range_end, prefix=prefix, from_key=from_key, prev_kv=prev_kv)
        return results.delete_result(await self.caller.write(DELETE_RANGE, request))

    async def txn(
        self, compare: Sequence[Compare] = (), success: Sequence[Op] = (), failure: Sequence[Op] = ()
    ) -> TxnResult:
        """Runs success when every comparison holds, else failure, as one revision. A transaction that only
        reads is repeated like a read."""
        request = txn_request(compare, success, failure)
        call = self.caller.read if is_read_only(request) else self.caller.write
        return results.txn_result(await call(TXN, request))

    async def compact(self, revision: int, physical: bool = False) -> int:
        """Gives up the history before revision. physical: waits until its space is free. Returns the store's
        revision."""
        request = pb.CompactionRequest(revision=revision, physical=physical)
        return (await self.caller.write(COMPACT, request)).header.revision

    def watch(
        self,
        key: Key,
        *,
        range_end: Key | None = None,
        prefix: bool = False,
        from_key: bool = False,
        start_revision: int = 0,
        prev_kv: bool = False,
        no_put: bool = False,
        no_delete: bool = False,
        progress_notify: bool = True,
    ) -> Watch:
        """Every change of the keys, in order, each once, from start_revision on (0: from now on; now is when
        the server confirms it, which Watch.created() awaits). Nothing is sent before the first await."""
        first, end = key_range(key, range_end=range_end, prefix=prefix, from_key=from_key)
        filters = [pb.WatchCreateRequest.NOPUT] * no_put + [pb.WatchCreateRequest.NODELETE] * no_delete
        request = pb.WatchCreateRequest(
            key=first,
            range_end=end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            filters=filters,
            progress_notify=progress_notify,
        )
        return Watch(self.caller, WatchState(request), self._watch_streams)

    async def lease_grant(self, ttl_s: int, lease_id: int = 0) -> Lease:
        """lease_id 0: the server chooses one."""
        return await leases.grant(self.caller, ttl_s, lease_id)

    async def lease_revoke(self, lease_id: int) -> int:
        """Ends the lease and deletes its keys. Returns the store's revision."""
        return (await self.caller.write(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease_id))).header.revision

    async def lease_time_to_live(self, lease_id: int, keys: bool = False) -> LeaseStatus:
        request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        return results.lease_status(await self.caller.read(LEASE_TIME_TO_LIVE, request))

    async def leases(self) -> list[int]:
        response = await self.caller.read(LEASE_LEASES, pb.LeaseLeasesRequest())
        return [status.ID for status in response.leases]

    async def lease_keep_alive_once(self, lease_id: int) -> Lease:
        """Renews the lease by its whole TTL. Raises LeaseNotFound when it is gone."""
        response = await leases.keep_alive_once(self.caller, lease_id)
        return Lease(response.ID, response.TTL)

    def lease(self, ttl_s: int, lease_id: int = 0) -> LeaseSession:
        """A lease for the length of a block; see LeaseSession."""
        return LeaseSession(self.caller, ttl_s, lease_id)

    async def members(self) -> list[Member]:
        response = await self.caller.read(MEMBER_LIST, pb.MemberListRequest(linearizable=True))
        return [results.member(member) for member in response.members]

    async def member_add(self, peer_urls: Sequence[str], *, learner: bool = False) -> int:
        """Adds a member that is reached there by the others, a voter or a learner; returns its id. It is to be
        started with --initial-cluster-state=existing. Raises as writes do."""
        request = pb.MemberAddRequest(peerURLs=peer_urls, isLearner=learner)
        return (await self.caller.write(MEMBER_ADD, request)).member.ID

    async def member_remove(self, member_id: int) -> None:
        """Removes a member for good: its id never comes back."""
        await self.caller.write(MEMBER_REMOVE, pb.MemberRemoveRequest(ID=member_id))

    async def member_update(self, member_id: int, peer_urls: Sequence[str]) -> None:
        """Tells the others where a member is reached from now on."""
        await self.caller.write(MEMBER_UPDATE, pb.MemberUpdateRequest(ID=member_id, peerURLs=peer_urls))

    async def member_promote(self, member_id: int) -> None:
        """Gives a learner that has caught up its vote."""
        await self.caller.write(MEMBER_PROMOTE, pb.MemberPromoteRequest(ID=member_id))

    async def status(self, endpoint: str | None = None) -> MemberStatus:
        """The state of the member at endpoint, which need not be one of the client's; default: the current."""
        target = parse_endpoints(endpoint)[0] if endpoint else self.caller.choice.pinned
        return results.member_status(target.name, await self.caller.at(target, STATUS, pb.StatusRequest()))
