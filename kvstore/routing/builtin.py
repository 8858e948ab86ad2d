"""The embedded reverse proxy: HTTP/1.1 and websockets, balanced over who is ready at this moment.

What a request may count on:
- When a connection could not be made nothing was sent, so any request goes on to another instance.
- When the connection broke before the answer began, the request may have been carried out: only one that may be
  carried out twice (GET, HEAD, OPTIONS, PUT, DELETE, TRACE) and whose body is still at hand goes on, twice at most.
- Both as long as the budget lasts (retry.py), and to each instance once.
- Nobody ready: 503. Nobody could be connected to: 503. Broken off: 502. Too slow: 504. Each with a line that says so.
- A client that goes away takes its request to the instance with it.

balance.py, ejection.py and retry.py decide; exchange.py does; listener.py has the port.
Not here: HTTP/2, TLS to instances, trailers, upgrades to anything but websockets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web

from kvstore.readiness.instance import Instance
from kvstore.routing.balance import Balance, Candidate, Order
from kvstore.routing.ejection import Policy
from kvstore.routing.exchange import ClientFailed, Exchange, Failed, say
from kvstore.routing.headers import NOBODY, Trusted
from kvstore.routing.retry import Budget, Fault, may_repeat
from kvstore.routing.upstreams import Timeouts, Upstream, Upstreams

REPEATS = 2
GATEWAY_ERRORS = frozenset((502, 503, 504))
STATUS = {Fault.NOT_CONNECTED: 503, Fault.BROKEN_OFF: 502, Fault.TOO_SLOW: 504}

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Options:
    """order, zone: as in balance.py. trusted: whose word on who asked counts."""

    order: Order = Order.ROUND_ROBIN
    zone: str = ""
    timeouts: Timeouts = field(default_factory=Timeouts)
    ejection: Policy = field(default_factory=Policy)
    budget: Budget = field(default_factory=Budget)
    trusted: Trusted = NOBODY


class BuiltinProxy:
    """A Driver. handle() answers one request; reconcile() may come at any time between."""

    def __init__(self, service: str, options: Options | None = None) -> None:
        options = options or Options()
        self.service = service
        self.balance = Balance(options.ejection, order=options.order, zone=options.zone)
        self.budget = options.budget
        self.upstreams = Upstreams(options.timeouts)
        self.request_count = 0
        self.busy: set[object] = set()  # connections of clients, with a request that is not answered yet
        self.is_stopping = False  # answers end their connection
        self._timeout_s = options.timeouts.read_s
        self._trusted = options.trusted

    def reconcile(self, instances: Sequence[Instance]) -> None:
        self.upstreams.reconcile(instances)
        self.balance.reconcile(instances)

    async def close(self) -> None:
        await self.upstreams.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.request_count += 1
        self.busy.add(request.protocol)
        try:
            if request.method == "CONNECT":
                return say(501, "CONNECT is not supported")
            exchange = Exchange(request, self._timeout_s, self._trusted, lambda: self.is_stopping)
            response = await self._answer(exchange)
            if not response.prepared and exchange.must_close:
                response.force_close()
            return response
        finally:
            self.busy.discard(request.protocol)

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        now = time.monotonic()
        self.budget.request(now)
        if self.balance.is_empty(now):
            return say(503, f"no instance of {self.service} is ready")
        try:
            await exchange.body.hold()
            return await self._ask_around(exchange)
        except ClientFailed as problem:
            response = say(problem.status, str(problem))
            response.force_close()
            return response

    async def _ask_around(self, exchange: Exchange) -> web.StreamResponse:
        tried: list[str] = []
        broken_count = 0
        last = ""
        while (candidate := self.balance.pick(time.monotonic(), tried)) is not None:
            name = candidate.instance.id
            tried.append(name)
            try:
                return await self._ask(exchange, candidate)
            except Failed as problem:
                last = f"{name}: {problem.fault}: {problem}"
                broken_count += problem.fault is Fault.BROKEN_OFF
                is_at_hand = exchange.body.is_at_hand
                if (
                    not may_repeat(problem.fault, exchange.request.method, is_body_at_hand=is_at_hand)
                    or broken_count > REPEATS
                ):
                    return self._failed(STATUS[problem.fault], last)
                if not self.budget.take(time.monotonic()):
                    return self._failed(STATUS[problem.fault], f"{last}; too many failed to try another")
        if not tried:
            return say(503, f"no instance of {self.service} is ready")
        return self._failed(503, f"none of {len(tried)} instances of {self.service} answered; {last}")

    async def _ask(self, exchange: Exchange, candidate: Candidate) -> web.StreamResponse:
        upstream = self.upstreams.of(candidate.instance)
        sent_at = time.monotonic()
        candidate.in_flight_count += 1
        upstream.begin()
        try:
            return await exchange.forward(
                upstream, lambda status: self._answered(upstream, candidate.instance.id, status, sent_at)
            )
        except Failed as problem:
            upstream.counts.faults[problem.fault] += 1
            is_connected = problem.fault is not Fault.NOT_CONNECTED
            self._count_against(candidate.instance.id, f"{problem.fault}: {problem}", is_connected)
            raise
        finally:
            candidate.in_flight_count -= 1
            upstream.end()

    def _answered(self, upstream: Upstream, name: str, status: int, sent_at: float) -> None:
        upstream.counts.answers[status // 100] += 1
        if status in GATEWAY_ERRORS:
            self._count_against(name, f"status {status}", is_connected=True)
        else:
            self.balance.answered(name, sent_at, time.monotonic())

    def _count_against(self, name: str, why: str, is_connected: bool) -> None:
        seconds = self.balance.failed(name, time.monotonic(), is_connected=is_connected)
        if seconds is not None:
            log.warning("%s is passed over for %g s: %s", name, seconds, why)

    def _failed(self, status: int, text: str) -> web.Response:
        log.warning("%d: %s", status, text)
        return say(status, text)
