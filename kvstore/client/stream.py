"""One two-way call, with grpcio's ways of ending it turned into this package's errors."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, cast

import grpc.aio
from google.protobuf.message import Message

from kvstore.client.caller import cancelled_from_outside
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import ClientError, ConnectionLost, RequestTimeout, from_status
from kvstore.client.methods import Request, Response

LAST_OPERATION = "_handle_status_once_received"
SETTLE_S = 0.05


class Stream(Generic[Request, Response]):
    """One two-way call. A read that its caller gives up on goes on, and its message is kept for the next."""

    def __init__(self, endpoint: Endpoint, call: Any) -> None:
        self.endpoint = endpoint
        self._call = call
        self._reading: asyncio.Task[Any] | None = None

    async def write(self, request: Request) -> None:
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as failure:
            raise from_status(failure.code(), failure.details(), write=False) from None
        except asyncio.InvalidStateError:
            raise await self._ended() from None
        except asyncio.CancelledError:
            if cancelled_from_outside():
                raise
            raise ConnectionLost("the stream was cancelled") from None

    async def read(self, timeout_s: float | None) -> Response:
        """The next response. Raises ConnectionLost or another ClientError when there will be none."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
            self._reading.add_done_callback(_retrieve)
        await asyncio.wait((self._reading,), timeout=timeout_s)
        if not self._reading.done():
            raise RequestTimeout(f"no answer from {self.endpoint.name} within {timeout_s} s")
        task, self._reading = self._reading, None
        try:
            response = task.result()
        except grpc.aio.AioRpcError as failure:
            raise from_status(failure.code(), failure.details(), write=False) from None
        except asyncio.CancelledError:
            raise ConnectionLost("the stream was cancelled") from None
        if not isinstance(response, Message):  # grpcio's end-of-stream marker
            raise ConnectionLost("the server ended the stream")
        return cast(Response, response)

    def cancel(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        self._call.cancel()
        if self._reading is not None:
            await asyncio.wait((self._reading,))

    async def _ended(self) -> ClientError:
        return from_status(await self._call.code(), await self._call.details(), write=False)


async def settled() -> None:
    """grpcio calls a cancelled call done before its last operation is, and has no way to wait for that one.
    Should it complete after the loop was closed, the error would show up in the next loop of the process. So
    wait a moment for the tasks that grpcio keeps for it; where there are none of that name, this does nothing."""
    waiting = [
        task for task in asyncio.all_tasks() if LAST_OPERATION in getattr(task.get_coro(), "__qualname__", "")
    ]
    if waiting:
        await asyncio.wait(waiting, timeout=SETTLE_S)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """A read that ends after everybody left is no news: take its exception so that nobody reports it."""
    if not task.cancelled():
        task.exception()
