"""kvctl announce docker: one engine's labelled containers, each announced for as long as it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvstore.readiness.docker import Containers, Wanted
from kvstore.readiness.docker_engine import Engine
from kvstore.readiness.fleet import Fleet, Manner, usable
from kvstore.readiness.health import Policy
from kvstore.readiness.registrar import Registrar

if TYPE_CHECKING:
    from kvstore.client import Client

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DockerPlan:
    """engine: as DOCKER_HOST, "" for the usual place. host: as Containers; announcer_host: as Instance.host."""

    engine: str
    host: str
    announcer_host: str
    make_client: Callable[[], Client]
    policy: Policy
    check_timeout_s: float = 1.0
    ttl_ms: int = 2000
    grace_ms: int = 500
    withdraw_timeout_s: float = 1.0
    show_unready: bool = False


async def run(plan: DockerPlan) -> int:
    """Until SIGTERM or SIGINT; then all are withdrawn, and the containers left as they are."""
    containers = Containers(plan.host, plan.announcer_host)
    async with plan.make_client() as client:

        def make_registrar() -> Registrar:
            return Registrar(
                client, plan.ttl_ms, grace_ms=plan.grace_ms, withdraw_timeout_s=plan.withdraw_timeout_s
            )

        manner = Manner(make_registrar, plan.policy, plan.check_timeout_s, plan.show_unready)
        async with Fleet(manner) as fleet:
            teller = Teller()

            def changed() -> None:
                wanted, wrong = containers.desired()
                fleet.reconcile(teller.tell(wanted, wrong, containers.remarks()))

            following = asyncio.create_task(Engine(plan.engine, containers, changed).run())
            try:
                await _until_asked_to_end(following)
            finally:
                following.cancel()
                await asyncio.wait((following,))
    return 0


class Teller:
    """Says each thing that is wrong with a container once, for as long as it stays so."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def tell(
        self, wanted: dict[bytes, Wanted], wrong: dict[str, str], remarks: dict[str, list[str]]
    ) -> dict[bytes, Wanted]:
        """Those of wanted that can be announced."""
        lines = [f"container {name} is not announced: {problem}" for name, problem in sorted(wrong.items())]
        good = {}
        for key, one in wanted.items():
            if problem := usable(one):
                lines.append(f"{one.instance.service}/{one.instance.id} is not announced: kvstore.{problem}")
            else:
                good[key] = one
        lines += [f"container {name}: {line}" for name, some in sorted(remarks.items()) for line in some]
        for line in lines:
            if line not in self._said:
                log.warning("%s", line)
        self._said = set(lines)
        return good


async def _until_asked_to_end(following: asyncio.Task[None]) -> None:
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[str] = loop.create_future()

    def ask(number: signal.Signals) -> None:
        if not asked.done():
            asked.set_result(number.name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    try:
        await asyncio.wait((asked, following), return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()  # it ends only with an error that nobody expected
        with contextlib.suppress(asyncio.InvalidStateError):
            log.info("%s received: withdrawing", asked.result())
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
