"""Announcing in one call: one stream to one member grants, puts, keeps alive and withdraws (kvstore.v1.Readiness).

The stream is opened while the instance is still starting, so that announcing is one message and its answer. A stream
that breaks is opened again, at another endpoint where there is one, and the instance announced under the lease it
had: within the grace nobody notices, and after it it is announced anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from kvstore.client import Client, ClientError
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import InstanceTaken, Unimplemented
from kvstore.client.methods import ANNOUNCE
from kvstore.client.stream import Stream
from kvstore.pb.readiness_pb2 import Announcement, AnnounceRequest, AnnounceResponse, KeepAlive, Withdraw
from kvstore.readiness.instance import Instance, encode
from kvstore.readiness.trouble import Trouble, say_announced, taken

DIAL_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)
AnnounceStream = Stream[AnnounceRequest, AnnounceResponse]


class Streamed:
    """As Registrar; run() raises Unimplemented where the store has no such call, before it has announced."""

    def __init__(
        self,
        client: Client,
        ttl_ms: int,
        *,
        grace_ms: int,
        withdraw_timeout_s: float,
        told: Callable[[int], None] = lambda lease_id: None,
        take_over: bool = False,
    ) -> None:
        self._client = client
        self._caller = client.caller
        self._ttl_ms = ttl_ms
        self._grace_ms = grace_ms
        self._withdraw_timeout_s = withdraw_timeout_s
        self._told = told
        self._wanted: Instance | None = None
        self.announced: Instance | None = None
        self._changed = False
        self._stream: AnnounceStream | None = None
        # One for all its streams: whoever announces again under it is known to be the same.
        self._lease_id = random.SystemRandom().getrandbits(63) | 1
        self._touched = False  # the store may hold it, under this lease
        # Once: two that both take over would take it from each other for ever.
        self._take_over = take_over
        self._trouble = Trouble("trying again until it does")

    def want(self, instance: Instance | None) -> None:
        self._wanted = instance
        self._changed = True
        if self._stream is not None:
            self._stream.wake()

    async def run(self) -> None:
        """Ends by being cancelled: then what is announced is withdrawn first."""
        clock = asyncio.get_running_loop().time
        while True:
            problem: ClientError | None = None
            for endpoint in self._caller.choice.order(clock()):
                token = ""
                try:
                    await self._caller.connect(endpoint, DIAL_TIMEOUT_S)
                    token = self._caller.token
                    await self._hold(endpoint)
                except Unimplemented:
                    raise
                except InstanceTaken as is_taken:  # no other member would say anything else
                    problem = is_taken
                    break
                except ClientError as error:
                    self._caller.note(endpoint, error)
                    problem = error
                    with contextlib.suppress(ClientError):  # what it is about is told by the next stream
                        await self._caller.renewed(endpoint, error, token, DIAL_TIMEOUT_S)
            if problem is not None:
                await self._trouble.met(problem)

    async def _hold(self, endpoint: Endpoint) -> None:
        """One stream, for as long as it lasts. Raises what ended it."""
        stream = self._stream = self._caller.open_stream(endpoint, ANNOUNCE)
        self.announced = None  # on this stream
        try:
            if not self._touched:
                # A withdrawal of nothing tells whether the store knows the call, before it matters.
                await self._ask(stream, AnnounceRequest(withdraw=Withdraw()))
                self._trouble.answered()
            while True:
                await self._follow(stream)
        except asyncio.CancelledError:
            await self._withdraw_at_the_end(stream)
            raise
        finally:
            self._stream = None
            await stream.close()

    async def _follow(self, stream: AnnounceStream) -> None:
        """One step: what is wanted now is made so, or a third of the TTL passes and the lease is renewed."""
        self._changed = False
        wanted = self._wanted
        if wanted is not None and wanted != self.announced:
            await self._announce(stream, wanted)
        elif wanted is None and self._touched:
            await self._ask(stream, AnnounceRequest(withdraw=Withdraw()))
            self._withdrawn()
        elif not await self._rest(stream) and self.announced is not None:
            await self._renew(stream)

    async def _rest(self, stream: AnnounceStream) -> bool:
        """Until something else is wanted (True) or a third of the TTL has passed. Raises what broke the stream:
        the grace begins when the member notices, so this side must not notice later."""
        if await stream.wait(self._ttl_ms / 3000):
            await stream.read(None)
        return self._changed

    async def _announce(self, stream: AnnounceStream, instance: Instance) -> None:
        self._touched = True
        request = Announcement(
            key=instance.key,
            value=encode(instance),
            lease_id=self._lease_id,
            ttl_ms=self._ttl_ms,
            grace_ms=self._grace_ms,
            take_over=self._take_over,
        )
        try:
            answer = await self._ask(stream, AnnounceRequest(announce=request))
        except InstanceTaken:
            self._touched = False
            raise taken(instance, await self._held(instance)) from None
        self.announced, self._take_over = instance, False
        self._trouble.over()
        say_announced(instance, answer.header.revision)
        self._told(self._lease_id)

    async def _held(self, instance: Instance) -> bytes | None:
        with contextlib.suppress(ClientError):
            found = await self._client.get(instance.key)
            return found.kvs[0].value if found.kvs else None
        return None

    async def _renew(self, stream: AnnounceStream) -> None:
        answer = await self._ask(stream, AnnounceRequest(keep_alive=KeepAlive()))
        if answer.kind == AnnounceResponse.LOST:
            log.warning("the lease is lost; announcing again")
            self.announced = None

    async def _withdraw_at_the_end(self, stream: AnnounceStream) -> None:
        if not self._touched:
            return
        try:
            async with asyncio.timeout(self._withdraw_timeout_s):
                await stream.write(AnnounceRequest(withdraw=Withdraw()))
                while (await stream.read(None)).kind != AnnounceResponse.WITHDRAWN:
                    pass  # an answer that was still on its way
        except (ClientError, TimeoutError) as problem:
            reason = str(problem) or "no answer in time"
            log.warning("not withdrawn (%s); the store drops it within %d ms", reason, self._ttl_ms)
        else:
            self._withdrawn()

    def _withdrawn(self) -> None:
        self._touched, self.announced = False, None
        self._told(0)
        log.info("withdrawn")

    async def _ask(self, stream: AnnounceStream, request: AnnounceRequest) -> AnnounceResponse:
        await stream.write(request)
        return await stream.read(max(self._ttl_ms / 1000, self._caller.settings.timeout_s))
