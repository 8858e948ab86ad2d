"""Sessions: what clients do, as generators that yield what they wait for, and the history they leave.

    answer = yield session.call(path, request)      until it is answered or the client's patience ends
    yield seconds                                   until then

A session talks to one member and turns to another when that one is gone or says no.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import Any, Protocol

from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
)
from tests.checkers.history import FOREVER, History, Operation
from tests.whole_member.calls import CLIENT_DELAY_S, NOTICE_S, UNKNOWN, Answer, Listener, StreamHere
from tests.whole_member.options import Options
from tests.whole_member.world import World

PATHS: dict[type[Any], tuple[str, type[Any]]] = {
    RangeRequest: ("/etcdserverpb.KV/Range", RangeResponse),
    PutRequest: ("/etcdserverpb.KV/Put", PutResponse),
    DeleteRangeRequest: ("/etcdserverpb.KV/DeleteRange", DeleteRangeResponse),
    TxnRequest: ("/etcdserverpb.KV/Txn", TxnResponse),
    CompactionRequest: ("/etcdserverpb.KV/Compact", CompactionResponse),
    LeaseGrantRequest: ("/etcdserverpb.Lease/LeaseGrant", LeaseGrantResponse),
    LeaseRevokeRequest: ("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeResponse),
    LeaseTimeToLiveRequest: ("/etcdserverpb.Lease/LeaseTimeToLive", LeaseTimeToLiveResponse),
    LeaseLeasesRequest: ("/etcdserverpb.Lease/LeaseLeases", LeaseLeasesResponse),
}
WATCH, KEEP_ALIVE = "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"
KEYS = [b"/a/%d" % number for number in range(6)] + [b"/b/%d" % number for number in range(6)] + [b"/c"]
PREFIXES = [(b"/a/", b"/a0"), (b"/b/", b"/b0"), (b"/", b"0"), (b"\0", b"\0"), (b"/a/2", b"/b/3")]
SORT_ORDERS = (RangeRequest.NONE, RangeRequest.ASCEND, RangeRequest.DESCEND)
SORT_TARGETS = (
    RangeRequest.KEY,
    RangeRequest.VERSION,
    RangeRequest.CREATE,
    RangeRequest.MOD,
    RangeRequest.VALUE,
)

Waiting = Callable[[Callable[[Any], None]], None]
"""Starts something that ends by calling its argument once."""
Script = Generator[Waiting, Any, None]


class Servers(Protocol):
    """The members as clients reach them."""

    count: int

    def unary(
        self, member: int, path: str, data: bytes, answered: Callable[[Answer], None]
    ) -> Callable[[], None]:
        """Starts a call; what it returns cancels it."""

    def stream(
        self, member: int, path: str, listener: Listener, *, read_s: float, scale: int
    ) -> StreamHere | None:
        """None where nobody listens."""


class Clients:
    """All sessions of a run and what they share: the history, and whether it is time to stop."""

    def __init__(self, world: World, options: Options, servers: Servers, history: History) -> None:
        self.world = world
        self.options = options
        self.servers = servers
        self.history = history
        self.stopping = False
        self.running = 0
        self.known_revision = 1
        self.compacted = 0  # the highest compaction that was answered
        self.values = 0
        self.streams: list[WatchSession] = []
        self.open_renewals = 0

    def start(self) -> None:
        for number in range(self.options.sessions):
            profile = self.options.profiles[number]
            session = Session(self, f"c{number}-{profile}")
            self._run(getattr(session, profile)())
        if self.options.compaction_s:
            self._run(Session(self, "compactor").compact())

    def _run(self, script: Script) -> None:
        self.running += 1

        def resume(value: Any) -> None:
            try:
                waiting = script.send(value)
            except StopIteration:
                self.running -= 1
                return
            waiting(resume)

        self.world.at(self.world.random.uniform(0, 0.05), lambda: resume(None))

    def value(self) -> bytes:
        """No two are alike, so what wrote a version can be told from it."""
        self.values += 1
        return b"v%d" % self.values + b"." * self.world.random.randint(0, self.options.value_bytes)

    def settle(self) -> None:
        """The end is near: no reader is slow any more."""
        for session in self.streams:
            session.settle()

    def close(self) -> None:
        """Watches that are open now have heard of everything there was."""
        for session in self.streams:
            session.complete()


class Session:
    def __init__(self, clients: Clients, name: str) -> None:
        self.clients = clients
        self.name = name
        self.world = clients.world
        self.random: Random = clients.world.random
        self.member = self.random.randint(1, clients.servers.count)

    # Waiting

    def sleep(self, seconds: float) -> Waiting:
        return lambda resume: self.world.at(seconds, lambda: resume(None))

    def think(self) -> Waiting:
        return self.sleep(self.random.expovariate(1 / self.clients.options.think_s))

    def turn_away(self) -> None:
        """To another member."""
        self.member = self.member % self.clients.servers.count + 1

    def call(self, request: Any) -> Waiting:
        """Resumes with the Operation."""
        path, kind = PATHS[type(request)]
        world, clients = self.world, self.clients
        operation = Operation(self.name, world.order(), FOREVER, request, invoked_s=world.now, error=UNKNOWN)
        clients.history.operations.append(operation)
        data = request.SerializeToString()
        patience = self.random.choice((0.3, 1.0, 2.0))

        def start(resume: Callable[[Any], None]) -> None:
            waiting = [resume]

            def end() -> None:
                if waiting:
                    if world.telling:
                        world.tell(f"{self.name} n{self.member} {_told(operation)}")
                    if operation.error not in ("", "Compacted", "KeyNotFound", "LeaseNotFound"):
                        self.turn_away()
                    waiting.pop()(operation)

            def answered(answer: Answer) -> None:
                if not waiting:
                    return
                operation.error = answer.error
                if answer.error == UNKNOWN:
                    end()
                    return
                operation.returned, operation.returned_s = world.order(), world.now
                if not answer.error:
                    operation.response = kind.FromString(answer.message)
                    operation.revision = operation.response.header.revision
                    operation.response.ClearField("header")
                    clients.known_revision = max(clients.known_revision, operation.revision)
                end()

            cancel = clients.servers.unary(self.member, path, data, answered)

            def give_up() -> None:
                if waiting:
                    cancel()
                    end()

            world.at(patience, give_up)

        return start

    # Profiles

    def key(self) -> bytes:
        return self.random.choice(KEYS)

    def put(self) -> Script:
        random, clients = self.random, self.clients
        while not clients.stopping:
            yield self.think()
            kind = random.random()
            if kind < 0.7:
                yield self.call(
                    PutRequest(key=self.key(), value=clients.value(), prev_kv=random.random() < 0.3)
                )
            elif kind < 0.8:
                yield self.call(DeleteRangeRequest(key=self.key(), prev_kv=random.random() < 0.5))
            else:
                yield self.call(RangeRequest(key=self.key(), serializable=random.random() < 0.2))

    def mixed(self) -> Script:
        random = self.random
        while not self.clients.stopping:
            yield self.think()
            kind = random.random()
            if kind < 0.4:
                yield self.call(self._any_txn())
            elif kind < 0.75:
                yield self.call(self._any_range())
            elif kind < 0.85:
                start, end = random.choice(PREFIXES)
                yield self.call(DeleteRangeRequest(key=start, range_end=end, prev_kv=random.random() < 0.5))
            else:
                yield self.call(self._any_put())

    def kubernetes(self) -> Script:
        """Lists, watches from there, and writes what it believes to be the newest, if it is."""
        random, clients = self.random, self.clients
        start, end = random.choice(PREFIXES[:3])
        watching: WatchSession | None = None
        known: dict[bytes, int] = {}
        while not clients.stopping:
            if watching is None or watching.ended:
                listed = yield self.call(
                    RangeRequest(key=start, range_end=end, serializable=random.random() < 0.3)
                )
                if not listed.succeeded:
                    yield self.think()
                    continue
                known = {kv.key: kv.mod_revision for kv in listed.response.kvs}
                watching = WatchSession(self, [self._watch_of(start, end, listed.revision + 1)], known)
            yield self.think()
            key = random.choice([*sorted(known), start + b"%d" % random.randint(0, 5)])
            request = TxnRequest()
            compare = request.compare.add(key=key, result=0, target=2)
            compare.mod_revision = known.get(key, 0)
            if random.random() < 0.2 and key in known:
                request.success.add().request_delete_range.key = key
            else:
                request.success.add().request_put.CopyFrom(PutRequest(key=key, value=clients.value()))
            request.failure.add().request_range.key = key
            done = yield self.call(request)
            if done.succeeded and not done.response.succeeded:
                found = done.response.responses[0].response_range.kvs
                known.pop(key, None)
                known.update({kv.key: kv.mod_revision for kv in found})
        if watching is not None:
            watching.leave_or_stay()

    def lease(self) -> Script:
        """Grants, hangs keys on it, keeps it alive for a while, then revokes it or lets it go."""
        random, clients = self.random, self.clients
        while not clients.stopping:
            lease_id = random.choice((0, random.getrandbits(40) + 1))
            granted = yield self.call(LeaseGrantRequest(ID=lease_id, TTL=random.choice((1, 1, 2))))
            if not granted.succeeded:
                yield self.think()
                continue
            lease_id, ttl_s = granted.response.ID, granted.response.TTL
            keeping = KeepAlive(self, lease_id)
            for _ in range(random.randint(0, 8)):
                if clients.stopping:
                    break
                if random.random() < 0.6:
                    key = random.choice((self.key(), b"/lease/%d" % random.randint(0, 5)))
                    yield self.call(PutRequest(key=key, value=clients.value(), lease=lease_id))
                if random.random() < 0.6:
                    keeping.renew()
                yield self.sleep(random.uniform(0, ttl_s / 2))
                if random.random() < 0.3:
                    self.turn_away()
                    yield self.call(LeaseTimeToLiveRequest(ID=lease_id, keys=True))
                elif random.random() < 0.1:
                    yield self.call(LeaseLeasesRequest())
            if random.random() < 0.5:
                yield self.call(LeaseRevokeRequest(ID=lease_id))
                if random.random() < 0.5:
                    keeping.renew()
                    yield self.sleep(0.1)
            yield self.think()
            keeping.close()

    def watch(self) -> Script:
        """Watches of every kind, one after another, and a write now and then."""
        random, clients = self.random, self.clients
        while not clients.stopping:
            requests = [self._any_watch() for _ in range(random.choice((1, 1, 2, 3)))]
            watching = WatchSession(self, requests)
            for _ in range(random.randint(1, 12)):
                if clients.stopping:
                    break
                yield self.sleep(random.uniform(0, 0.3))
                if random.random() < 0.4:
                    watching.ask_progress()
                if random.random() < 0.15:
                    watching.cancel_one()
                if random.random() < 0.3:
                    yield self.call(self._any_put())
                if watching.ended:
                    self.turn_away()
                    watching = WatchSession(self, watching.resumed())
            watching.leave_or_stay()
            self.turn_away()

    def compact(self) -> Script:
        random, clients = self.random, self.clients
        while not clients.stopping:
            yield self.sleep(clients.options.compaction_s * random.uniform(0.7, 1.3))
            revision = clients.known_revision - random.choice((-1, 0, 0, 1, 5, 20, 50))
            if revision > 0:
                done = yield self.call(CompactionRequest(revision=revision, physical=random.random() < 0.2))
                if done.succeeded:
                    clients.compacted = max(clients.compacted, revision)
            if random.random() < 0.3:
                self.turn_away()

    # Requests

    def _any_put(self) -> PutRequest:
        random = self.random
        request = PutRequest(key=self.key(), prev_kv=random.random() < 0.3)
        if random.random() < 0.1:
            request.ignore_value = True
        else:
            request.value = self.clients.value()
        request.ignore_lease = random.random() < 0.1
        return request

    def _any_range(self) -> RangeRequest:
        random = self.random
        request = RangeRequest(key=self.key(), serializable=random.random() < 0.2)
        if random.random() < 0.6:
            request.key, request.range_end = random.choice(PREFIXES)
        if random.random() < 0.3:
            request.revision = max(0, self.clients.known_revision - random.choice((-2, 0, 1, 5, 30)))
        if random.random() < 0.3:
            request.limit = random.randint(1, 6)
        if random.random() < 0.2:
            request.sort_order = random.choice(SORT_ORDERS)
            request.sort_target = random.choice(SORT_TARGETS)
        if random.random() < 0.1:
            request.min_mod_revision = self.clients.known_revision - 10
        request.keys_only = random.random() < 0.1
        request.count_only = random.random() < 0.1
        return request

    def _any_txn(self, depth: int = 0) -> TxnRequest:
        random, request = self.random, TxnRequest()
        for _ in range(random.randint(0, 2)):
            target = random.randint(0, 4)
            compare = request.compare.add(key=self.key(), result=random.randint(0, 3), target=target)
            name = ("version", "create_revision", "mod_revision", "value", "lease")[target]
            value = b"v1" if target == 3 else random.choice((0, 0, 1, self.clients.known_revision))
            setattr(compare, name, value)
            if random.random() < 0.2:
                compare.key, compare.range_end = random.choice(PREFIXES)
        keys = list(KEYS)
        random.shuffle(keys)
        for branch in (request.success, request.failure):
            for _ in range(random.randint(0, 3)):
                op, kind = branch.add(), random.random()
                if kind < 0.4:
                    op.request_put.CopyFrom(self._any_put())
                    op.request_put.key = keys.pop()
                elif kind < 0.55:
                    op.request_delete_range.CopyFrom(DeleteRangeRequest(key=keys.pop(), prev_kv=True))
                elif kind < 0.9 or depth:
                    op.request_range.CopyFrom(self._any_range())
                else:
                    op.request_txn.CopyFrom(self._any_txn(depth + 1))
        return request

    def _watch_of(self, key: bytes, range_end: bytes, start_revision: int) -> WatchCreateRequest:
        return WatchCreateRequest(
            key=key, range_end=range_end, start_revision=start_revision, prev_kv=True, progress_notify=True
        )

    def _any_watch(self) -> WatchCreateRequest:
        random = self.random
        key, range_end = random.choice([*PREFIXES, (self.key(), b"")])
        request = self._watch_of(key, range_end, 0)
        if random.random() < 0.7:
            request.start_revision = max(0, self.clients.known_revision + random.randint(-100, 100))
            if random.random() < 0.5:
                request.start_revision = max(0, self.clients.known_revision + random.randint(-10, 5))
            elif random.random() < 0.4:
                request.start_revision = self.clients.compacted  # the lowest that can be asked for
        request.prev_kv = random.random() < 0.5
        request.progress_notify = random.random() < 0.5
        request.fragment = random.random() < 0.5
        if random.random() < 0.3:
            request.filters.append(random.choice((WatchCreateRequest.NOPUT, WatchCreateRequest.NODELETE)))
        return request


def _told(operation: Operation) -> str:
    request = " ".join(str(operation.request).split())
    outcome = operation.error or f"{operation.revision} {' '.join(str(operation.response).split())}"
    return f"{type(operation.request).__name__}({request[:200]}) -> {outcome[:200]}"


__all__ = ["CLIENT_DELAY_S", "NOTICE_S", "Clients", "Servers", "Session"]
