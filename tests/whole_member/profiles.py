"""What clients do: kinds of traffic, each a generator that runs until it is time to stop."""

from __future__ import annotations

from random import Random

from kvstore.pb.etcdserverpb_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchCreateRequest,
)
from kvstore.pb.quota_pb2 import QuotaRemoveRequest, QuotaSetRequest
from tests.whole_member.session import Script, Session
from tests.whole_member.streams import KeepAlive, WatchSession

KEYS = [b"/a/%d" % number for number in range(6)] + [b"/b/%d" % number for number in range(6)] + [b"/c"]
PREFIXES = [(b"/a/", b"/a0"), (b"/b/", b"/b0"), (b"/", b"0"), (b"\0", b"\0"), (b"/a/2", b"/b/3")]
QUOTA_PREFIXES = [b"/a/", b"/b/", b"/", b"/a/1", b"/lease/"]
SORT_ORDERS = (RangeRequest.NONE, RangeRequest.ASCEND, RangeRequest.DESCEND)
SORT_TARGETS = (
    RangeRequest.KEY,
    RangeRequest.VERSION,
    RangeRequest.CREATE,
    RangeRequest.MOD,
    RangeRequest.VALUE,
)


class Traffic(Session):
    """One session and the profiles it can follow."""

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

    def quota(self) -> Script:
        """Limits that others run into now and then. What it is answered is in nobody's history: what members do with
        it is held against the reference."""
        clients, own = self.clients, Random(self.clients.options.duration_s)
        while not clients.stopping:
            yield self.sleep(own.uniform(0.0, 0.4))
            prefix = own.choice(QUOTA_PREFIXES)
            path, request = "Remove", QuotaRemoveRequest(prefix=prefix).SerializeToString()
            if own.random() < 0.6:
                limits = QuotaSetRequest(prefix=prefix, keys_max=own.randint(1, 8))
                if own.random() < 0.5:
                    limits.bytes_max = own.randint(0, 300)
                path, request = "Set", limits.SerializeToString()
            clients.servers.unary(self.member, f"/kvstore.v1.Quota/{path}", request, lambda answer: None)
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
