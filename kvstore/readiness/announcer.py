"""One instance from start to end: run its command, watch its health, keep the store in agreement.

The order at the end is the point of it: withdraw first, then let proxies notice, then stop the command. A command
that ends by itself is withdrawn within a turn of the event loop. The store is never a reason to stop the command:
while it cannot be reached the command runs on and announcing is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kvstore.readiness.health import BecameReady, Effect, Health, Policy
from kvstore.readiness.instance import Instance, State
from kvstore.readiness.probes import InvalidCheck, Probe, make_probe
from kvstore.readiness.process import PASSED_ON, Child, Children

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.readiness.registrar import Registrar
    from kvstore.readiness.traefik_schema import Route

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `kvctl announce` was asked to do. drain_s: between withdrawing and stopping the command.
    show_unready: the store holds it while it starts or has failed too, in that state. take_over: from whoever
    announces it now. make_client: of a client that says at once when nobody can be reached
    (wait_for_endpoints=False); the waiting is done here, and said."""

    instance: Instance
    make_client: Callable[[], Client]
    check: str = "tcp"
    check_timeout_s: float = 1.0
    watchdog_s: float = 0.0
    policy: Policy = field(default_factory=Policy)
    ttl_ms: int = 2000
    grace_ms: int = 500
    drain_s: float = 0.05
    stop_timeout_s: float = 10.0
    withdraw_timeout_s: float = 1.0
    show_unready: bool = False
    take_over: bool = False
    command: Sequence[str] = ()
    traefik: Route | None = None


async def run(plan: Plan) -> int:
    """Runs until the command exits or a signal arrives; the exit status to end with. Raises CommandNotStarted
    and probes.InvalidCheck before anything else has happened. The command is started first of all: what it
    takes to load and connect the client happens while it starts too."""
    async with Children() as children:
        if plan.check == "notify" and not plan.command:
            raise InvalidCheck("check 'notify' is for a command that is given after --")
        probe = make_probe(
            plan.check, plan.instance.address, plan.check_timeout_s, children, watchdog_s=plan.watchdog_s
        )
        ending = Ending()
        with contextlib.closing(probe), ending.signals():
            environment = {**os.environ, **probe.environment}
            child = children.start(plan.command, env=environment) if plan.command else None
            if child is not None:
                probe.started(child)
            ending.watch(child)
            if child is not None:
                log.info("started %s, pid %d", plan.command[0], child.pid)
            from kvstore.readiness.registrar import Registrar
            from kvstore.readiness.traefik import beside

            async with (
                plan.make_client() as client,
                beside(client, plan.instance, plan.traefik) as told,
            ):
                registrar = Registrar(
                    client,
                    plan.ttl_ms,
                    grace_ms=plan.grace_ms,
                    withdraw_timeout_s=plan.withdraw_timeout_s,
                    told=told,
                    take_over=plan.take_over,
                )
                await Announcer(plan, registrar, probe, ending).run()
            return await _stop(plan, child, ending)


class Ending:
    """Why it ends: the command exited, or a signal asked for it. The first reason counts."""

    def __init__(self) -> None:
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.signal: signal.Signals | None = None
        self._child: Child | None = None

    def watch(self, child: Child | None) -> None:
        self._child = child
        if child is not None:
            child.exited.add_done_callback(
                lambda done: self._end(f"the command exited with status {done.result()}")
            )

    @contextmanager
    def signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked, number)
        for number in PASSED_ON:
            loop.add_signal_handler(number, self._pass_on, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, *PASSED_ON):
                loop.remove_signal_handler(number)

    def _asked(self, number: signal.Signals) -> None:
        if self.reason.done():  # asked again: no more waiting for a command that takes its time
            self._pass_on(number)
        self.signal = number
        self._end(f"{number.name} received")

    def _pass_on(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.signal(number)
        elif number == signal.SIGQUIT:
            self._asked(number)

    def _end(self, reason: str) -> None:
        if not self.reason.done():
            self.reason.set_result(reason)


class Announcer:
    """Carries out what Health decides. run() returns when the instance is withdrawn, and is not run again."""

    def __init__(self, plan: Plan, registrar: Registrar, probe: Probe, ending: Ending) -> None:
        self._plan = plan
        self._registrar = registrar
        self._probe = probe
        self._ending = ending
        self._health = Health(probe.policy(plan.policy), time.monotonic(), random.Random())

    async def run(self) -> None:
        if self._plan.show_unready:
            self._want(State.STARTING)
        async with asyncio.TaskGroup() as group:
            probing = group.create_task(self._keep_probing(), name="probe")
            keeping = group.create_task(self._registrar.run(), name="registrar")
            reason = await self._ending.reason
            log.info("%s: withdrawing", reason)
            self._health.ended(reason, time.monotonic())
            probing.cancel()
            keeping.cancel()

    async def _keep_probing(self) -> None:
        last_reason = ""
        while (due_at := self._health.next_probe_at) is not None:
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            answer = await self._probe.ask()
            if answer.reason != last_reason and answer.reason:
                log.info("not ready: %s", answer.reason)
            last_reason = answer.reason
            for effect in self._health.probed(answer.ok, time.monotonic(), answer.reason):
                self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, BecameReady):
            log.info("ready after %.1f ms", effect.after_s * 1e3)
            self._want(State.READY)
            return
        log.warning("%s: withdrawing", effect.reason)
        if effect.held_s:
            log.warning("it flaps: held withdrawn and not asked for %g s", effect.held_s)
        if self._plan.show_unready:
            self._want(State.FAILED)
        else:
            self._registrar.want(None)

    def _want(self, state: State) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._registrar.want(replace(self._plan.instance, state=state, since_ms=now_ms))


async def _stop(plan: Plan, child: Child | None, ending: Ending) -> int:
    """Gives proxies a moment to notice, then ends the command; its exit status, or 0 without one."""
    if child is None:
        return 0
    if not child.exited.done() and plan.drain_s > 0:
        await asyncio.wait([child.exited], timeout=plan.drain_s)
    if child.exited.done():
        return child.exited.result()
    child.signal(ending.signal or signal.SIGTERM)
    done, _ = await asyncio.wait([child.exited], timeout=plan.stop_timeout_s)
    if not done:
        log.warning("the command did not stop within %g s: killed", plan.stop_timeout_s)
        child.kill_group()
    return await asyncio.shield(child.exited)
