"""What is measured, in which order, how often, and beside whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from benchmarks.bench import Bench
from benchmarks.figures import OURS, THEIRS
from benchmarks.routed import announcing, dying, ready, steady
from benchmarks.routed import crowd as crowds
from benchmarks.routed.proxies import Proxy
from benchmarks.routed.rows import Row

KINDS = {
    "announce": "announce → event at a watcher on another member",
    "ready": "READY=1 → first answer through each proxy, every hop",
    "dead": "SIGKILL → last request sent there",
    "rolling": "every instance replaced under load: failed requests",
    "crowd": "5,000 instances, 100 routers: age of the events, memory",
    "outage": "every member killed for half a minute under load: failed requests",
}
BOTH = (OURS, THEIRS)


@dataclass(frozen=True, slots=True)
class Sizes:
    """rounds: of what costs little; what starts a container for each takes a tenth of them. is_smoke: deaths through
    one proxy only, and what takes long of ours alone."""

    rounds: int
    instances: int = 20
    away_s: float = 30.0
    crowd: crowds.Crowd = field(default_factory=crowds.Crowd)
    is_smoke: bool = False


SMOKE = Sizes(2, 2, 1.0, crowds.Crowd(60, 6, 10.0, 1.5, processes=1), is_smoke=True)


@dataclass(frozen=True, slots=True)
class Step:
    """ticks: how often it calls its second argument, for a progress bar. servers: who is measured."""

    what: str
    ticks: int
    servers: Sequence[str]
    measure: Callable[[Bench, Callable[[], None]], Awaitable[list[Row]]]


def steps(
    kinds: Sequence[str], drivers: Sequence[type[Proxy]], sizes: Sizes, servers: Sequence[str] = BOTH
) -> list[Step]:
    """In the order of KINDS: the one that harms the clusters comes last."""
    rounds, everybody = sizes.rounds, len(servers)
    few = servers[:1] if sizes.is_smoke else servers
    http = [one for one in drivers if one.speaks == "http"]
    dead_rounds = dying.rounds_of(rounds)
    dead_ticks = 2 * sum(dead_rounds[server] for server in few)
    found: dict[str, list[Step]] = {
        "announce": [
            Step(
                "announce → event",
                everybody * (rounds + announcing.WARM_UP),
                servers,
                partial(announcing.measure, rounds=rounds),
            )
        ],
        "ready": [
            Step(
                f"ready → routed: {one.name}",
                everybody * (rounds + ready.WARM_UP),
                servers,
                partial(ready.measure, proxy_class=one, rounds=rounds),
            )
            for one in drivers
        ],
        "dead": [
            Step(
                f"dead → not routed: {one.name}",
                dead_ticks,
                few,
                partial(dying.measure, proxy_class=one, rounds=dead_rounds),
            )
            for one in (http[:1] if sizes.is_smoke else http)
        ],
        "rolling": [
            Step(
                "rolling replacement",
                len(few) * sizes.instances,
                few,
                partial(steady.rolling, classes=http, instances=sizes.instances),
            )
        ],
        "crowd": [Step("crowd", len(few), few, partial(crowds.measure, crowd=sizes.crowd))],
        "outage": [
            Step("store away", len(few), few, partial(steady.outage, classes=http, away_s=sizes.away_s))
        ],
    }
    if not http:
        found.update(rolling=[], outage=[])
    return [step for kind in KINDS if kind in kinds for step in found[kind]]
