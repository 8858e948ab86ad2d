"""A watch over the network: one two-way call at a time, replaced when it breaks.

There is no task and no queue: reading the watch reads the call, so a slow reader holds back the server
through HTTP/2 flow control and memory stays bounded. What to deliver and where to resume is watch_state.py's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import MutableSet
from types import TracebackType
from typing import Self

from kvstore.client.caller import PAUSE_FIRST_S, PAUSE_LONGEST_S, Caller, summary
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import ClientClosed, ClientError, InvalidAuthToken, WatchCanceled
from kvstore.client.methods import WATCH
from kvstore.client.results import WatchBatch
from kvstore.client.stream import Stream
from kvstore.client.watch_state import WatchState
from kvstore.pb import etcdserverpb_pb2 as pb

PERMISSION_DENIED = "etcdserver: permission denied"
WatchStream = Stream[pb.WatchRequest, pb.WatchResponse]


class Watch:
    """Iterate over it for batches. One reader at a time. It survives lost connections, and ends by cancel(),
    by the client's close (both end the iteration), or by raising Compacted or another error for good.
    Leaving it to the garbage collector cancels it too."""

    def __init__(self, caller: Caller, state: WatchState, streams: MutableSet[WatchStream]) -> None:
        self._caller = caller
        self._state = state
        self._streams = streams  # the client's open ones, which it closes with itself
        self._stream: WatchStream | None = None
        self._batches: deque[WatchBatch] = deque()
        self._failure: ClientError | None = None
        self._canceled = False
        self._tried_token = ""  # fetched because the one before was refused
        self._token = ""  # what the present stream showed
        self._fruitless_count = 0  # streams lost in a row before the server had confirmed the watch
        self._lock = asyncio.Lock()

    @property
    def next_revision(self) -> int:
        """The first revision of which nothing has been delivered; 0 until the watch is created."""
        return self._state.next_revision

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchBatch:
        while not self._batches:
            if self._canceled:
                raise StopAsyncIteration
            await self._pump()
        return self._batches.popleft()

    async def created(self) -> int:
        """Waits until the server has confirmed the watch. Returns the store's revision at that moment: with
        no start_revision, every later change will be delivered."""
        while not self._state.created_revision:
            if self._canceled:
                raise ClientClosed("the watch was cancelled")
            await self._pump()
        return self._state.created_revision

    async def request_progress(self) -> None:
        """Asks for a progress batch; the server sends one when the watch has caught up, or drops the wish."""
        await self.created()
        if self._stream is not None:
            await self._stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def cancel(self) -> None:
        """Ends the watch here and at the server. Batches not read yet are dropped."""
        self._canceled = True
        self._batches.clear()
        await self._drop_stream()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    def __del__(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._streams.discard(self._stream)

    async def _pump(self) -> None:
        """Takes one response, or replaces the stream. Cancelling it loses nothing."""
        async with self._lock:
            if self._batches or self._canceled:
                return
            if self._failure is not None:
                raise self._failure
            try:
                if self._stream is None:
                    await self._pause()
                    self._stream = await self._open()
                step = self._state.feed(await self._stream.read(self._answer_limit_s()))
                if step.failure is not None:
                    raise step.failure
                self._fruitless_count = 0
                self._batches.extend(step.batches)
            except ClientError as error:
                stream = self._stream
                await self._drop_stream()
                if self._canceled or self._caller.closed:
                    self._canceled = True
                elif stream is not None and await self._renewed(stream, error):
                    self._fruitless_count += 1
                elif error.elsewhere and stream is not None:
                    self._caller.note(stream.endpoint, error)
                    self._fruitless_count += 1
                else:
                    self._failure = error
                    raise

    async def _renewed(self, stream: WatchStream, error: ClientError) -> bool:
        """Whether it was the token, and there is another one. etcd before 3.6 says no more than "permission
        denied" of a token whose time is over (etcd 12385): there, one new token is tried."""
        caller, token = self._caller, self._token
        if isinstance(error, WatchCanceled) and error.refused and PERMISSION_DENIED in error.reason:
            if not token or token == self._tried_token:
                return False
            error = InvalidAuthToken(error.reason)
        try:
            renewed = await caller.renewed(stream.endpoint, error, token, caller.settings.timeout_s)
        except ClientError as problem:
            if problem.elsewhere:
                return False
            self._failure = problem
            raise
        if renewed:
            self._tried_token = caller.token
        return renewed

    def _answer_limit_s(self) -> float | None:
        """A member that takes the stream but never creates the watch is hung; after that, silence is normal."""
        return None if self._state.is_created else self._caller.settings.timeout_s

    async def _pause(self) -> None:
        """Lets members that take streams and drop them again be; the first round of endpoints goes unpaused."""
        excess_count = self._fruitless_count - len(self._caller.choice.endpoints)
        if excess_count >= 0:
            await asyncio.sleep(min(PAUSE_FIRST_S * 2 ** min(excess_count, 8), PAUSE_LONGEST_S))

    async def _open(self) -> WatchStream:
        """A stream with the create request on it, at the first endpoint that takes it. Tries for ever, unless
        the client is not to wait for endpoints."""
        caller, pause_s = self._caller, PAUSE_FIRST_S
        while True:
            failures: dict[Endpoint, ClientError] = {}
            for endpoint in caller.choice.order(asyncio.get_running_loop().time()):
                stream: WatchStream | None = None
                try:
                    await caller.connect(endpoint, caller.settings.dial_timeout_s)
                    self._token = caller.token
                    stream = caller.open_stream(endpoint, WATCH)
                    self._streams.add(stream)
                    await stream.write(self._state.create_request())
                except BaseException as error:
                    if stream is not None:
                        stream.cancel()
                        self._streams.discard(stream)
                    if not isinstance(error, ClientError) or not error.elsewhere:
                        raise
                    caller.note(endpoint, error)
                    failures[endpoint] = error
                else:
                    if not self._canceled:
                        return stream
                    await stream.close()
                    self._streams.discard(stream)
            if self._canceled:
                raise ClientClosed("the watch was cancelled")
            if caller.given_up(failures):
                raise summary(failures)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_LONGEST_S)

    async def _drop_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._streams.discard(stream)
            await stream.close()
