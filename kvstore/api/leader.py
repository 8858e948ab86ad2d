"""Streams whose client asks for a leader (metadata `hasleader: true`): one that there is not ends them.

A new one fails at once, one that is open when there has been none for three election timeouts: etcd's rule, so that
nobody waits on a member that is cut off and says nothing. Unary calls ask in their handlers (Context.has_leader),
and watches look after themselves. Free of it are the calls that tell of one member, which is how people find out:
they answer whatever the client asks for. So is Announce: its instance is to outlast a time without a leader, and the
end of its stream would begin the instance's grace.
"""

from __future__ import annotations

import itertools
import weakref

from kvstore import errors
from kvstore.api.context import Context
from kvstore.api.errors import status_of
from kvstore.rpc import Methods, StreamCall, StreamHandler, StreamMethod, StreamOpener, UnaryMethod

ELECTIONS = 3
FREE = frozenset(
    (
        "/etcdserverpb.Maintenance/Status",
        "/etcdserverpb.Maintenance/Alarm",
        "/etcdserverpb.Maintenance/Defragment",
        "/etcdserverpb.Maintenance/Hash",
        "/etcdserverpb.Maintenance/HashKV",
        "/etcdserverpb.Maintenance/Snapshot",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/kvstore.v1.Readiness/Announce",
    )
)
"""Of Alarm the question which there are; its changes are replicated, and wait for a leader as long as any write."""
WATCH = "/etcdserverpb.Watch/Watch"


class LeaderDoor:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._patience_s = ELECTIONS * context.config.election_timeout_ms / 1000
        self._since: float | None = None  # there has been no leader
        self._numbers = itertools.count()
        self._open: weakref.WeakValueDictionary[int, LeaderStream] = weakref.WeakValueDictionary()

    def wrap(self, methods: Methods) -> Methods:
        wrapped: dict[str, UnaryMethod | StreamMethod] = dict(methods)
        for path, method in methods.items():
            if isinstance(method, StreamMethod) and path not in FREE and path != WATCH:
                wrapped[path] = StreamMethod(self._stream(method.opener))
        return wrapped

    def _stream(self, opener: StreamOpener) -> StreamOpener:
        def opened(call: StreamCall) -> StreamHandler:
            if call.metadata.get("hasleader") != "true":
                return opener(call)
            stream = LeaderStream(call, opener(call))
            if not self._context.driver.leader_id:
                stream.end()
            else:
                self._open[next(self._numbers)] = stream
            return stream

        return opened

    def tick(self) -> None:
        now = self._context.now()
        if self._context.driver.leader_id:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= self._patience_s:
            for _, stream in sorted(self._open.items()):
                stream.end()


class LeaderStream:
    """What the service has of a stream, until there is no leader for it."""

    def __init__(self, call: StreamCall, handler: StreamHandler) -> None:
        self._call = call
        self._handler = handler
        self._ended = False

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._handler.cancelled()
            self._call.finish(*status_of(errors.NoLeader()))

    def message(self, data: bytes) -> None:
        if not self._ended:
            self._handler.message(data)

    def half_closed(self) -> None:
        if not self._ended:
            self._handler.half_closed()

    def cancelled(self) -> None:
        if not self._ended:
            self._ended = True
            self._handler.cancelled()

    def drained(self) -> None:
        if not self._ended:
            self._handler.drained()
