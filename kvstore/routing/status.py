"""What the builtin proxy knows of itself, on a port of its own: for people and scripts, Prometheus, and a probe.

GET /         JSON: each instance with its state and counts
GET /metrics  the same for Prometheus
GET /ready    200 while somebody is ready, else 503
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from kvstore.routing.builtin import BuiltinProxy


def describe(proxy: BuiltinProxy, now: float) -> dict[str, Any]:
    instances = []
    for upstream in proxy.upstreams.all():
        one = upstream.instance
        answers = {f"{digit}xx": count for digit, count in enumerate(upstream.counts.answers) if count}
        instances.append(
            {
                "instance": one.id,
                "address": one.address,
                "state": one.state.value,
                "weight": one.weight,
                "zone": one.zone,
                "in_flight": upstream.in_flight_count,
                "websockets": upstream.tunnel_count,
                "ejected_s": round(proxy.balance.ejected_for(one.id, now), 3),
                "answers": answers,
                "faults": {fault.value: count for fault, count in upstream.counts.faults.items() if count},
            }
        )
    return {
        "service": proxy.service,
        "stopping": proxy.is_stopping,
        "requests": proxy.request_count,
        "in_flight": len(proxy.busy),
        "retries": {"made": proxy.budget.spent_count, "refused": proxy.budget.refused_count},
        "instances": instances,
    }


class _Metrics(Collector):
    def __init__(self, proxy: BuiltinProxy) -> None:
        self._proxy = proxy

    def collect(self) -> Iterator[Metric]:
        proxy, prefix = self._proxy, "kvstore_route_"
        labels = ["service", "instance"]
        now = time.monotonic()
        answers = CounterMetricFamily(prefix + "answers", "Answers of instances.", labels=[*labels, "class"])
        faults = CounterMetricFamily(prefix + "faults", "Requests without answer.", labels=[*labels, "fault"])
        busy = GaugeMetricFamily(prefix + "in_flight", "Requests on their way.", labels=labels)
        tunnels = GaugeMetricFamily(prefix + "websockets", "Websockets that are open.", labels=labels)
        ejected = GaugeMetricFamily(prefix + "ejected", "1 while it is passed over.", labels=labels)
        for upstream in proxy.upstreams.all():
            whose = [proxy.service, upstream.instance.id]
            for digit, count in enumerate(upstream.counts.answers):
                if count:
                    answers.add_metric([*whose, f"{digit}xx"], count)
            for fault, count in upstream.counts.faults.items():
                faults.add_metric([*whose, fault.value], count)
            busy.add_metric(whose, upstream.in_flight_count)
            tunnels.add_metric(whose, upstream.tunnel_count)
            ejected.add_metric(whose, proxy.balance.ejected_for(upstream.instance.id, now) > 0)
        yield from (answers, faults, busy, tunnels, ejected)
        for name, text, value in (
            ("requests", "Requests of clients.", proxy.request_count),
            ("retries", "Requests sent to one more instance.", proxy.budget.spent_count),
            ("retries_refused", "Not sent again: over budget.", proxy.budget.refused_count),
        ):
            family = CounterMetricFamily(prefix + name, text, labels=["service"])
            family.add_metric([proxy.service], value)
            yield family


@dataclass(slots=True)
class Status:
    """address is set by start()."""

    proxy: BuiltinProxy
    host: str
    port: int
    clock: Callable[[], float] = time.monotonic
    address: str = ""
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Raises OSError when the port cannot be had."""
        registry = CollectorRegistry()
        registry.register(_Metrics(self.proxy))

        async def show(_: web.Request) -> web.Response:
            return web.json_response(describe(self.proxy, self.clock()))

        async def metrics(_: web.Request) -> web.Response:
            return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def ready(_: web.Request) -> web.Response:
            is_ready = not self.proxy.is_stopping and not self.proxy.balance.is_empty(self.clock())
            return web.Response(
                status=200 if is_ready else 503, text="ready\n" if is_ready else "not ready\n"
            )

        app = web.Application()
        app.add_routes([web.get("/", show), web.get("/metrics", metrics), web.get("/ready", ready)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
