"""Whose turn it is, out of keys and leases: what locks and elections have in common, in etcd's layout of keys.

Whoever wants its turn has a key of its own, NAME/LEASE in hexadecimal, that its lease holds; the oldest key below
NAME/ has the turn. A wish waits for the one key just before its own to go, so that a turn that ends wakes one waiter.

    join ─► one transaction: put the key, unless it is there ─► older() ─┬─ none ─► read index: still mine? ─► granted
                                          ▲                              └─ watch the youngest of them
                                          └──────────── it was deleted ◄────────┘

Everything but the two ends is read from this member's own state, which holds the transaction by then: what is older
than a key only goes, it never comes. A turn is as good as its lease; who must not act after it was lost compares the
key's create revision in its own transactions.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore import errors
from kvstore.api.context import Context
from kvstore.api.errors import fail
from kvstore.commands import Kind
from kvstore.pb.etcdserverpb_pb2 import (
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from kvstore.pb.mvccpb_pb2 import KeyValue
from kvstore.replication.outbox import Outcome
from kvstore.rpc import Status, UnaryCall
from kvstore.state.space import LEASE_COST, PUT_COST
from kvstore.state.watch_hub import Watcher

SESSION_TTL_S = 60
"""Of the lease that is granted to a caller who brings none (etcd's concurrency.NewSession)."""


def prefix_of(name: bytes) -> bytes:
    return name + b"/"


def below(prefix: bytes) -> bytes:
    """The end of the range of keys that begin with a prefix that ends in "/"."""
    return prefix[:-1] + b"0"


def oldest(prefix: bytes) -> RangeRequest:
    """Who has the turn."""
    return RangeRequest(
        key=prefix,
        range_end=below(prefix),
        limit=1,
        sort_order=RangeRequest.ASCEND,
        sort_target=RangeRequest.CREATE,
    )


def created_at(key: bytes, revision: int) -> Compare:
    """The key is there since that revision; 0: it is not there."""
    return Compare(key=key, target=Compare.CREATE, result=Compare.EQUAL, create_revision=revision)


def put_op(key: bytes, value: bytes, lease_id: int) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, value=value, lease=lease_id))


def grant_session(
    context: Context,
    call: UnaryCall,
    lease_id: int,
    granted: Callable[[], None],
    refused: Callable[[errors.StoreError], None],
) -> None:
    """A lease for a caller who brings none, of SESSION_TTL_S, which nobody keeps alive."""

    def done(outcome: Outcome) -> None:
        if isinstance(outcome, errors.StoreError):
            refused(outcome)
        else:
            granted()

    try:
        context.machine.space.admit(LEASE_COST)
    except errors.NoSpace as problem:
        refused(problem)
        return
    request = LeaseGrantRequest(ID=lease_id, TTL=SESSION_TTL_S)
    context.propose(call, Kind.LEASE_GRANT, request.SerializeToString(), done)


def refusing(call: UnaryCall, who: str) -> Callable[[errors.StoreError | str], None]:
    """Ends the call with a refusal: the store's, or in the recipe's own words (etcd: code Unknown)."""

    def refused(problem: errors.StoreError | str) -> None:
        if isinstance(problem, str):
            call.fail(Status.UNKNOWN, f"{who}: {problem}")
        else:
            fail(call, problem)

    return refused


class Lookout:
    """Looks at keys, watches one of them or a range, and looks again when something happens there: not within the
    watch hub's turn, in which nothing may be watched anew."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._watcher: Watcher | None = None

    def _look(self) -> None:
        raise NotImplementedError

    def _look_again(self) -> None:
        self._stop_watching()
        self._context.call_later(0.0, self._look)

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._context.machine.hub.cancel(self._watcher)
            self._watcher = None


class Wish(Lookout):
    """One caller's wish for a turn, until it is granted, refused or given up.

    granted() and refused(problem) are called once, whichever comes first; neither after the caller has gone: then
    the key is deleted. revision is that at which the key was created, joined_at that of the transaction's answer.
    """

    def __init__(
        self,
        context: Context,
        call: UnaryCall,
        name: bytes,
        lease_id: int,
        value: bytes,
        *,
        new_lease_id: Callable[[], int],
        granted: Callable[[Wish], None],
        refused: Callable[[errors.StoreError | str], None],
    ) -> None:
        """lease_id 0: one of SESSION_TTL_S is granted, which nobody keeps alive."""
        super().__init__(context)
        self.prefix = prefix_of(name)
        self.lease_id = lease_id
        self.key = b""
        self.revision = 0
        self.joined_at = 0
        self.value_before: bytes | None = None  # where the key was there already
        self._call = call
        self._value = value
        self._new_lease_id = new_lease_id
        self._granted = granted
        self._refused = refused
        self._ended = False

    def begin(self) -> None:
        self._call.when_cancelled(self._give_up)
        if self.lease_id:
            self._join()
            return
        self.lease_id = self._new_lease_id()
        grant_session(self._context, self._call, self.lease_id, self._join, self._refuse)

    def _join(self) -> None:
        if self._ended:
            return
        self.key = self.prefix + b"%x" % (self.lease_id & 0xFFFF_FFFF_FFFF_FFFF)
        try:
            self._context.machine.space.admit(PUT_COST + len(self.key) + len(self._value))
        except errors.NoSpace as problem:
            self._refuse(problem)
            return
        request = TxnRequest(
            compare=[created_at(self.key, 0)],
            success=[put_op(self.key, self._value, self.lease_id)],
            failure=[RequestOp(request_range=RangeRequest(key=self.key))],
        )
        self._propose(Kind.TXN, request.SerializeToString(), self._joined)

    def _joined(self, revision: int, body: bytes) -> None:
        response = TxnResponse.FromString(body)
        self.joined_at = self.revision = revision
        if not response.succeeded:
            mine = response.responses[0].response_range.kvs[0]
            self.revision, self.value_before = mine.create_revision, mine.value
        if self._ended:
            self._leave()  # the caller went while its key was on its way
        else:
            self._look()

    def _look(self) -> None:
        """Is anybody older? Then until that one has gone."""
        if self._ended:
            return
        request = RangeRequest(
            key=self.prefix,
            range_end=below(self.prefix),
            limit=1,
            sort_order=RangeRequest.DESCEND,
            sort_target=RangeRequest.CREATE,
            max_create_revision=self.revision - 1,
            keys_only=True,
        )
        revision, found = self._read(request)
        if found:
            self._watcher = self._context.machine.hub.watch(
                found[0].key, b"", revision + 1, no_put=True, sink=self
            )
        else:
            self._context.driver.read(self._confirm)

    def _confirm(self, problem: errors.StoreError | None) -> None:
        """Its own key may have gone with its lease while it waited."""
        if self._ended:
            return
        if problem is not None:
            self._refuse(problem)
            return
        _, found = self._read(RangeRequest(key=self.key, keys_only=True))
        if found and found[0].create_revision == self.revision:
            self._ended = True
            self._granted(self)
        else:
            self.revision = 0
            self._refuse("session is expired")

    def _read(self, request: RangeRequest) -> tuple[int, list[KeyValue]]:
        revision, body = self._context.machine.range(request)
        return revision, list(RangeResponse.FromString(body).kvs)

    def _propose(self, kind: Kind, payload: bytes, then: Callable[[int, bytes], None]) -> None:
        def done(outcome: Outcome) -> None:
            if isinstance(outcome, errors.StoreError):
                self._refuse(outcome)
            else:
                then(*outcome)

        self._context.propose(self._call, kind, payload, done)

    # From the watch hub

    def ready(self, watcher: Watcher) -> bool:
        return True

    def events(self, watcher: Watcher, revision: int, encoded: bytes, count: int) -> None:
        self._look_again()

    def compacted(self, watcher: Watcher, compact_revision: int) -> None:
        self._look_again()

    # Ends

    def _refuse(self, problem: errors.StoreError | str) -> None:
        if not self._ended:
            self._ended = True
            self._stop_watching()
            self._leave()
            self._refused(problem)

    def _give_up(self) -> None:
        """The caller has gone."""
        if not self._ended:
            self._ended = True
            self._stop_watching()
            self._leave()

    def _leave(self) -> None:
        """Best effort: what stays goes with its lease."""
        if self.revision:
            leave(self._context, self._call, self.key, self.revision, lambda outcome: None)


def leave(
    context: Context, call: UnaryCall, key: bytes, revision: int, done: Callable[[Outcome], None]
) -> None:
    """Ends a turn, or the wish for one: deletes the key if it still is the one created at that revision."""
    request = TxnRequest(
        compare=[created_at(key, revision)],
        success=[RequestOp(request_delete_range=DeleteRangeRequest(key=key))],
    )
    context.propose(call, Kind.TXN, request.SerializeToString(), done)
