"""A range that may be too long for one turn of the loop: read a step at a time, at one revision, answered when all of
it is there. A member that read a million keys at once would do nothing else for seconds, and lose its leadership.

    KvService ─► step ─► step ─► … ─► filtered, sorted, cut ─► reply
"""

from __future__ import annotations

from kvstore import errors
from kvstore.api.context import Context
from kvstore.api.errors import fail
from kvstore.pb.etcdserverpb_pb2 import RangeRequest
from kvstore.rpc import UnaryCall
from kvstore.state.ranges import Gathering

RESTARTS_MAX = 3


class LongRange:
    def __init__(self, context: Context, call: UnaryCall, request: RangeRequest) -> None:
        """Raises Compacted, FutureRevision."""
        self._context = context
        self._call = call
        self._request = request
        self._restarts = 0
        self._began = context.now()
        self._start()
        context.machine.meter.times_read(single=False)

    def _start(self) -> None:
        keyspace = self._context.machine.keyspace
        self._revision = keyspace.revision  # for the header: now
        self._gathering = Gathering(keyspace, self._request)

    def go_on(self) -> None:
        """A step. What is short after all is answered at once."""
        if self._call.cancelled:
            return
        try:
            parts = self._gathering.step()
        except errors.StoreError as problem:
            if not self._begin_anew(problem):
                self._note(ok=False)
                fail(self._call, problem)
                return
            parts = None
        if parts is None:
            self._context.call_later(0.0, self.go_on)
        else:
            self._note(ok=True)
            self._call.reply(b"".join((self._context.header(self._revision), *parts)))

    def _begin_anew(self, problem: errors.StoreError) -> bool:
        """Where the newest revision was asked for, and has been compacted while it was read, there is a newer one."""
        if not isinstance(problem, errors.Compacted) or self._request.revision > 0:
            return False
        self._restarts += 1
        if self._restarts > RESTARTS_MAX:
            return False
        self._start()
        return True

    def _note(self, *, ok: bool) -> None:
        request = self._request
        self._context.machine.meter.read(
            self._context.now() - self._began, ok, request.key, request.range_end
        )
