"""Many instances at once: whatever is wanted is announced, each on a stream of its own, and nothing else is.

One that is wanted no more is withdrawn at once. Its name is given to another only when that is done, so that two of
one's own never contend for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kvstore.readiness.docker import Wanted
from kvstore.readiness.health import BecameReady, Health, Policy
from kvstore.readiness.instance import State
from kvstore.readiness.probes import InvalidCheck, Probe, make_network_probe
from kvstore.readiness.registrar import Registrar

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manner:
    """How each is announced. policy, check_timeout_s: for those with a check of their own."""

    make_registrar: Callable[[], Registrar]
    policy: Policy
    check_timeout_s: float = 1.0
    show_unready: bool = False


class Fleet:
    """Use as a context manager: at its end all are withdrawn."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._members: dict[bytes, tuple[_Member, asyncio.Task[None]]] = {}
        self._ending: dict[bytes, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.reconcile({})
        if self._ending:
            await asyncio.wait(self._ending.values())

    def reconcile(self, wanted: Mapping[bytes, Wanted]) -> None:
        """By key. Their checks are such that usable() has nothing against."""
        for key in self._members.keys() - wanted.keys():
            _, task = self._members.pop(key)
            task.cancel()
            self._ending[key] = task
        for key, one in sorted(wanted.items()):
            if key in self._members:
                self._members[key][0].update(one)
                continue
            member = _Member(one, self._manner)
            task = asyncio.create_task(member.run(self._ending.get(key)), name=key.decode())
            task.add_done_callback(lambda done, key=key: self._ended(key, done))  # type: ignore[misc]
            self._members[key] = member, task

    def _ended(self, key: bytes, task: asyncio.Task[None]) -> None:
        if self._ending.get(key) is task:
            del self._ending[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %r", key.decode(), error)


def usable(wanted: Wanted) -> str:
    """Why its check cannot be made; "" when it can."""
    try:
        if wanted.check:
            make_network_probe(wanted.check, wanted.instance.address, 1.0).close()
    except InvalidCheck as problem:
        return str(problem)
    return ""


class _Member:
    """One of them."""

    def __init__(self, wanted: Wanted, manner: Manner) -> None:
        self._wanted = wanted
        self._manner = manner
        self._changed = asyncio.Event()
        self._registrar = manner.make_registrar()
        self._state: State | None = None
        self._since_ms = 0

    def update(self, wanted: Wanted) -> None:
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    async def run(self, predecessor: asyncio.Task[None] | None) -> None:
        if predecessor is not None:
            await asyncio.wait((predecessor,))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._registrar.run())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            wanted = self._wanted
            if wanted.check and wanted.instance.is_ready:
                await self._ask_until_changed(wanted)
            else:
                self._is_now(wanted.instance.state)
                await self._changed.wait()

    async def _ask_until_changed(self, wanted: Wanted) -> None:
        address, timeout_s = wanted.instance.address, self._manner.check_timeout_s
        with contextlib.closing(make_network_probe(wanted.check, address, timeout_s)) as probe:
            asking = asyncio.ensure_future(self._ask(probe))
            try:
                await self._changed.wait()
            finally:
                asking.cancel()
                await asyncio.wait((asking,))

    async def _ask(self, probe: Probe) -> None:
        name = f"{self._wanted.instance.service}/{self._wanted.instance.id}"
        health = Health(probe.policy(self._manner.policy), time.monotonic(), random.Random())
        self._is_now(State.STARTING)
        last_reason = ""
        while (due_at := health.next_probe_at) is not None:
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            answer = await probe.ask()
            if answer.reason not in ("", last_reason):
                log.info("%s is not ready: %s", name, answer.reason)
            last_reason = answer.reason
            for effect in health.probed(answer.ok, time.monotonic(), answer.reason):
                if isinstance(effect, BecameReady):
                    self._is_now(State.READY)
                    continue
                log.warning("%s: %s: withdrawing", name, effect.reason)
                if effect.held_s:
                    log.warning("%s flaps: held withdrawn and not asked for %g s", name, effect.held_s)
                self._is_now(State.FAILED)

    def _is_now(self, state: State) -> None:
        if state is not self._state:
            self._state, self._since_ms = state, time.time_ns() // 1_000_000
        if state is State.READY or self._manner.show_unready:
            instance = self._wanted.instance
            self._registrar.want(replace(instance, state=state, since_ms=self._since_ms))
        else:
            self._registrar.want(None)
