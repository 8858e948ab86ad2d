"""One stream's I/O: requests in as they come, and one writer, woken by them and by news.

Nothing is queued for a client: a write waits until the client takes it, and then what is owed is worked out afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from kvstore.routing.xds import delta, sotw, wire
from kvstore.routing.xds.kinds import NAMES_MAX, Reply, TooManyNames
from kvstore.routing.xds.plane import Plane

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Variant:
    """State of the world or incremental. method: its name in the gRPC service."""

    label: str
    method: str
    stream: Callable[[], sotw.Stream | delta.Stream]
    read: Callable[[bytes], wire.Request]
    write: Callable[[Reply], bytes]


VARIANTS = (
    Variant("state of the world", "StreamAggregatedResources", sotw.Stream, wire.read, wire.write),
    Variant("incremental", "DeltaAggregatedResources", delta.Stream, wire.read_delta, wire.write_delta),
)


class Session:
    def __init__(self, plane: Plane, variant: Variant, context: Any) -> None:
        self._plane = plane
        self._variant = variant
        self._context = context
        self._stream = variant.stream()
        self._client = str(context.peer())
        self._zone = ""
        self._is_known = False
        self._foreign: set[str] = set()

    async def run(self, requests: AsyncIterator[bytes]) -> None:
        """Until the client ends it, or does what ends it: an answer with a status then."""
        with self._plane.news() as wake:
            reading = asyncio.ensure_future(self._read(requests, wake))
            try:
                await self._write(reading, wake)
                await reading
            except wire.Malformed as problem:
                log.warning("%s: %s", self._client, problem)
                await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(problem))
            except TooManyNames:
                text = f"more than {NAMES_MAX} names of one kind"
                log.warning("%s subscribes to %s", self._client, text)
                await self._context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            finally:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await reading
                if self._is_known:
                    log.info("%s has gone", self._client)

    async def _read(self, requests: AsyncIterator[bytes], wake: asyncio.Event) -> None:
        try:
            async for data in requests:
                self._receive(self._variant.read(data))
                wake.set()
        finally:
            wake.set()

    def _receive(self, request: wire.Request) -> None:
        if not self._is_known:
            self._is_known = True
            self._zone = request.zone
            self._client = request.id or self._client
            log.info("%s (%s) is connected, %s", self._client, request.program, self._variant.label)
        if request.ask is None:
            if request.type_url not in self._foreign and len(self._foreign) < 10:
                self._foreign.add(request.type_url)
                log.warning("%s asks for %s, and there is none here", self._client, request.type_url)
            return
        refusal = self._stream.receive(request.ask, self._now())
        if refusal is not None:
            self._plane.refused(self._client, refusal)

    async def _write(self, reading: asyncio.Task[None], wake: asyncio.Event) -> None:
        while not reading.done():
            wake.clear()
            for reply in self._stream.take(self._plane.snapshot(self._zone), self._now()):
                await self._context.write(self._variant.write(reply))
            deadline = self._stream.deadline
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await wake.wait()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
