"""Leases: one call each, and a session that keeps one alive.

A session counts a lease as lost from the time the server told it so, or when a whole TTL has passed since the
last renewal that was answered was sent. The server's clock started later than that, so lost is never noticed
late by a session that runs; a session whose event loop is blocked notices when it runs again.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from kvstore.client import results
from kvstore.client.caller import Caller, repeatable, summary
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import ClientClosed, ClientError, LeaseNotFound, RequestTimeout
from kvstore.client.methods import LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE
from kvstore.pb import etcdserverpb_pb2 as pb
from kvstore.rpc import Status

REVOKE_TIMEOUT_S = 2.0


async def grant(caller: Caller, ttl_s: int, lease_id: int = 0) -> results.Lease:
    response = await caller.write(LEASE_GRANT, pb.LeaseGrantRequest(TTL=ttl_s, ID=lease_id))
    return results.Lease(response.ID, response.TTL)


async def keep_alive_once(
    caller: Caller, lease_id: int, *, timeout_s: float | None = None
) -> pb.LeaseKeepAliveResponse:
    """Renews the lease; a renewal may be repeated, so it goes on to other endpoints. Raises LeaseNotFound."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + (caller.settings.timeout_s if timeout_s is None else timeout_s)
    failures: dict[Endpoint, ClientError] = {}
    while True:
        for endpoint in caller.choice.order(clock()):
            left_s = deadline - clock()
            if left_s <= 0:
                raise summary(failures) if failures else RequestTimeout("no time left")
            try:
                response = await _renew_at(caller, endpoint, lease_id, max(left_s / 2, min(left_s, 0.5)))
            except ClientError as error:
                caller.note(endpoint, error)
                if not repeatable(error, write=False):
                    raise
                failures[endpoint] = error
                continue
            caller.choice.answered(endpoint)
            if response.TTL <= 0:
                raise LeaseNotFound("etcdserver: requested lease not found", code=Status.NOT_FOUND)
            return response
        if caller.given_up(failures):
            raise summary(failures)
        await asyncio.sleep(min(0.05, max(deadline - clock(), 0)))


async def _renew_at(
    caller: Caller, endpoint: Endpoint, lease_id: int, timeout_s: float
) -> pb.LeaseKeepAliveResponse:
    await caller.connect(endpoint, timeout_s)
    token = caller.token
    try:
        return await _renew_with_token(caller, endpoint, lease_id, timeout_s)
    except ClientError as error:
        if not await caller.renewed(endpoint, error, token, timeout_s):
            raise
    return await _renew_with_token(caller, endpoint, lease_id, timeout_s)


async def _renew_with_token(
    caller: Caller, endpoint: Endpoint, lease_id: int, timeout_s: float
) -> pb.LeaseKeepAliveResponse:
    stream = caller.open_stream(endpoint, LEASE_KEEP_ALIVE)
    try:
        await stream.write(pb.LeaseKeepAliveRequest(ID=lease_id))
        return await stream.read(timeout_s)
    finally:
        await stream.close()


class LeaseSession:
    """`async with client.lease(10) as lease`: granted, kept alive every third of its TTL, revoked at the end.
    When it is gone before that, lost is set and stays set; nothing is raised into the block."""

    def __init__(self, caller: Caller, ttl_s: int, lease_id: int = 0) -> None:
        self._caller = caller
        self._asked = (ttl_s, lease_id)
        self._task: asyncio.Task[None] | None = None
        self.id = lease_id
        self.ttl_s = ttl_s
        self.lost = asyncio.Event()

    async def __aenter__(self) -> Self:
        sent_at = asyncio.get_running_loop().time()
        granted = await grant(self._caller, *self._asked)
        self.id, self.ttl_s = granted.id, granted.ttl_s
        self._task = asyncio.create_task(self._keep_alive(sent_at), name=f"lease {self.id:x}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        if self.lost.is_set() or self._caller.closed:
            return
        # Revoking twice does no harm, so it is sent as a read: again elsewhere when in doubt. An error means
        # that it is gone already, or that nobody is there to tell: then it expires by itself.
        with contextlib.suppress(ClientError):
            await self._caller.read(
                LEASE_REVOKE,
                pb.LeaseRevokeRequest(ID=self.id),
                timeout_s=min(REVOKE_TIMEOUT_S, self.ttl_s),
            )

    async def _keep_alive(self, renewed_at: float) -> None:
        clock = asyncio.get_running_loop().time
        interval_s = self.ttl_s / 3
        next_at = renewed_at + interval_s
        while True:
            await asyncio.sleep(max(next_at - clock(), 0))
            sent_at = clock()
            left_s = renewed_at + self.ttl_s - sent_at
            if left_s <= 0:
                break
            try:
                await keep_alive_once(self._caller, self.id, timeout_s=left_s)
            except (LeaseNotFound, ClientClosed):
                break
            except ClientError:
                next_at = clock() + min(interval_s, 0.2)  # refused or unreachable: soon again, while it lives
            else:
                renewed_at = sent_at
                next_at = sent_at + interval_s
        self.lost.set()
