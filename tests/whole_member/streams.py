"""The clients' half of streams: watches and keep-alives, recorded as what each was sent."""

from __future__ import annotations

from collections.abc import Iterable

from kvstore.pb.etcdserverpb_pb2 import (
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from tests.checkers.history import Received, Renewal, WatchRecord
from tests.whole_member.calls import Listener, StreamHere
from tests.whole_member.session import Session

WATCH, KEEP_ALIVE = "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"


class WatchSession:
    """One stream with its watches, recorded as what each of them was sent."""

    def __init__(
        self, session: Session, requests: Iterable[WatchCreateRequest], known: dict[bytes, int] | None = None
    ) -> None:
        self.session = session
        self.ended = False
        self.records: list[WatchRecord] = []
        self._known = known if known is not None else {}
        self._waiting: list[WatchRecord] = []
        self._by_id: dict[int, WatchRecord] = {}
        self._next: dict[int, int] = {}
        clients, random = session.clients, session.random
        listener = Listener()
        listener.on_message, listener.on_end = self._received, self._over
        slow = random.random() < 0.2
        self._stream = clients.servers.stream(
            session.member,
            WATCH,
            listener,
            read_s=random.uniform(0.01, 0.3) if slow else 0.0,
            scale=random.choice((1, 1 << 14, 1 << 16)) if slow else 1,
        )
        clients.streams.append(self)
        self._requests = list(requests)
        if self._stream is None:
            self._over("refused")
            return
        for request in self._requests:
            record = WatchRecord(f"{session.name} n{session.member}", request, clients.world.order())
            clients.history.watches.append(record)
            self.records.append(record)
            self._waiting.append(record)
            self._send(WatchRequest(create_request=request))

    def _send(self, request: WatchRequest) -> None:
        if self._stream is not None and not self.ended:
            self._stream.tell(request.SerializeToString())

    def _received(self, data: bytes, order: int) -> None:
        response = WatchResponse.FromString(data)
        received = Received(response, order)
        if response.created:
            record = self._waiting.pop(0)
            record.responses.append(received)
            if not response.canceled:
                assert response.watch_id not in self._by_id, f"id {response.watch_id} twice on one stream"
                self._by_id[response.watch_id] = record
            return
        if response.watch_id == -1:
            for record in self._by_id.values():
                record.responses.append(received)
            return
        record = self._by_id[response.watch_id]
        record.responses.append(received)
        if response.canceled:
            del self._by_id[response.watch_id]
            if response.compact_revision and not self._by_id and not self._waiting:
                self._close()
        for event in response.events:
            if event.type:
                self._known.pop(event.kv.key, None)
            else:
                self._known[event.kv.key] = event.kv.mod_revision

    def resumed(self) -> list[WatchCreateRequest]:
        """The same watches from where each had come, as a client's library asks for them at another member."""
        requests = []
        for record in self.records:
            whole = [each.response for each in record.responses if not each.response.canceled]
            events = [event for each in whole if not each.fragment for event in each.events]
            request = WatchCreateRequest()
            request.CopyFrom(record.request)
            if events:
                request.start_revision = events[-1].kv.mod_revision + 1
            requests.append(request)
        return requests or self._requests

    def ask_progress(self) -> None:
        request = WatchRequest()
        request.progress_request.SetInParent()
        self._send(request)

    def cancel_one(self) -> None:
        if self._by_id:
            request = WatchRequest()
            request.cancel_request.watch_id = self.session.random.choice(sorted(self._by_id))
            self._send(request)

    def leave_or_stay(self) -> None:
        if self.session.random.random() < 0.6 and not self.session.clients.stopping:
            self._close()

    def _close(self) -> None:
        self.ended = True
        if self._stream is not None:
            self._stream.close()

    def _over(self, error: str) -> None:
        self.ended = True

    def settle(self) -> None:
        if self._stream is not None:
            self._stream.read_s = 0.0

    def complete(self) -> None:
        if not self.ended:
            assert not self._waiting, f"{self.session.name}: a watch was never created"
            for record in self._by_id.values():
                record.complete = True


class KeepAlive:
    """A keep-alive stream: answers come in the order of the questions."""

    def __init__(self, session: Session, lease_id: int) -> None:
        self.session = session
        self.lease_id = lease_id
        self._asked: list[tuple[int, float]] = []
        self._stream: StreamHere | None = None

    def renew(self) -> None:
        session, world = self.session, self.session.world
        if self._stream is None:
            listener = Listener()
            listener.on_message, listener.on_end = self._answered, self._over
            self._stream = session.clients.servers.stream(
                session.member, KEEP_ALIVE, listener, read_s=0.0, scale=1
            )
            if self._stream is None:
                session.turn_away()
                return
        self._asked.append((world.order(), world.now))
        self._stream.tell(LeaseKeepAliveRequest(ID=self.lease_id).SerializeToString())

    def _answered(self, data: bytes, order: int) -> None:
        world, response = self.session.world, LeaseKeepAliveResponse.FromString(data)
        assert response.ID == self.lease_id, f"asked for {self.lease_id}, answered {response}"
        sent, sent_s = self._asked.pop(0)
        renewal = Renewal(self.lease_id, response.TTL, sent, world.order(), sent_s, world.now)
        self.session.clients.history.renewals.append(renewal)
        if world.telling:
            world.tell(f"{self.session.name} renews {self.lease_id:x}: {response.TTL}")

    def _over(self, error: str) -> None:
        self._stream = None
        self._asked.clear()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
