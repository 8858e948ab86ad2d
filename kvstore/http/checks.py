"""Probes: /health as etcd's clients know it, /livez and /readyz as Kubernetes does, and /writez, which is ours.

    livez    serializable_read: state on this member can be read. Restart it where it cannot.
    readyz   and the cluster has a majority that this member reaches, and the data are not known to be corrupt
    writez   and a write would be taken: space, log, disk. Nothing is written to the key space to find out.

A check returns "" or the reason why it failed. Checks of one probe run side by side.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kvstore import errors
from kvstore.api.errors import status_of
from kvstore.http.pages import Page, Query, Route, json_page
from kvstore.meters import HealthMeter
from kvstore.pb.etcdserverpb_pb2 import AlarmType, RangeRequest

if TYPE_CHECKING:
    from kvstore.api.context import Context

Check = Callable[[], Awaitable[str]]
STALL_S = 2.0  # without progress, after which the log or the disk counts as stalled
LOOK_S = 0.02
PROBE_BYTES = b"\0" * 4096
_ONE_KEY = RangeRequest(key=b"\0", keys_only=True, limit=1, serializable=True)


class Checks:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._meter = context.health
        self._disk_probe: asyncio.Future[None] | None = None

    def routes(self) -> list[Route]:
        live: dict[str, Check] = {"serializable_read": self.serializable_read}
        ready: dict[str, Check] = {
            "data_corruption": self.data_corruption,
            "serializable_read": self.serializable_read,
            "linearizable_read": self.linearizable_read,
            "non_learner": self.non_learner,
        }
        write: dict[str, Check] = {
            "leader": self.leader,
            "space": self.space,
            "data_corruption": self.data_corruption,
            "quorum": self.quorum,
            "log": self.log,
            "disk": self.disk,
        }
        return [
            Route("/health", self.health),
            *probe_routes("/livez", live, self._meter),
            *probe_routes("/readyz", ready, self._meter),
            *probe_routes("/writez", write, self._meter),
        ]

    async def health(self, query: Query) -> Page:
        """No alarm, a leader and a linearizable read; ?serializable=true asks of this member alone."""
        excluded, local = query.get("exclude", ()), query.get("serializable", [""])[0] == "true"
        reason = ""
        alarms = [AlarmType.Name(alarm.alarm) for alarm in self._context.machine.alarms]
        alarm = next((name for name in alarms if name not in excluded), "")
        if alarm:
            reason = f"ALARM {alarm}"
        elif not local and not self._context.driver.leader_id:
            reason = "RAFT NO LEADER"
        else:
            problem = await (self.serializable_read() if local else self.linearizable_read())
            reason = f"RANGE ERROR:{problem}" if problem else ""
        self._meter.told(not reason)
        return json_page({"health": "false" if reason else "true", "reason": reason}, 503 if reason else 200)

    async def serializable_read(self) -> str:
        try:
            self._context.machine.range(_ONE_KEY)
        except errors.StoreError as problem:
            return status_of(problem)[1]
        return ""

    async def linearizable_read(self) -> str:
        done: asyncio.Future[errors.StoreError | None] = asyncio.get_running_loop().create_future()

        def answered(problem: errors.StoreError | None) -> None:
            if not done.done():
                done.set_result(problem)

        self._context.driver.read(answered)
        problem = await done
        return "" if problem is None else status_of(problem)[1]

    async def data_corruption(self) -> str:
        alarmed = any(alarm.alarm == AlarmType.CORRUPT for alarm in self._context.machine.alarms)
        return "alarm activated: CORRUPT" if alarmed else ""

    async def non_learner(self) -> str:
        conf = self._context.driver.node.conf
        learner = self._context.member_id in (*conf.learners, *conf.learners_next)
        return "not supported for learner" if learner else ""

    async def leader(self) -> str:
        return "" if self._context.driver.leader_id else "no leader"

    async def space(self) -> str:
        machine = self._context.machine
        if any(alarm.alarm == AlarmType.NOSPACE for alarm in machine.alarms):
            return "alarm activated: NOSPACE"
        if machine.over_quota:
            return f"{machine.db_size} bytes stored, the quota is {self._context.config.quota_backend_bytes}"
        return ""

    async def quorum(self) -> str:
        """A write needs the majority that a linearizable read asks."""
        try:
            async with asyncio.timeout(STALL_S):
                return await self.linearizable_read()
        except TimeoutError:
            return f"no majority answered within {STALL_S:g} s"

    async def log(self) -> str:
        """What has been given to the write-ahead log by now becomes durable."""
        driver = self._context.driver
        target, loop = driver.submitted_to, asyncio.get_running_loop()
        deadline = loop.time() + STALL_S
        while driver.persisted_to < target:
            if loop.time() > deadline:
                return f"the write-ahead log has stalled for {STALL_S:g} s"
            await asyncio.sleep(LOOK_S)
        return ""

    async def disk(self) -> str:
        """A small file beside the log can be written and synced. A probe that hangs is waited for by the next
        one too: one thread at most is ever stuck in it."""
        loop = asyncio.get_running_loop()
        if self._disk_probe is None or self._disk_probe.done():
            folder = os.path.join(self._context.config.data_dir, "member")
            self._disk_probe = loop.run_in_executor(None, _write_and_sync, os.path.join(folder, "writez"))
        try:
            async with asyncio.timeout(STALL_S):
                await asyncio.shield(self._disk_probe)
        except TimeoutError:
            return f"the disk has not synced a small file within {STALL_S:g} s"
        except OSError as problem:
            return f"the disk refuses a small file: {problem.strerror or problem}"
        return ""


def probe_routes(root: str, checks: Mapping[str, Check], meter: HealthMeter | None = None) -> list[Route]:
    """The probe itself, and each of its checks alone below it."""

    async def run(chosen: Mapping[str, Check], query: Query) -> Page:
        reasons = await asyncio.gather(*(check() for check in chosen.values()))
        if meter is not None:
            for name, reason in zip(chosen, reasons):
                meter.checked(root.lstrip("/"), name, not reason)
        return _told(chosen, reasons, query)

    async def whole(query: Query) -> Page:
        allowed, excluded = _names(query, "allowlist"), _names(query, "exclude")
        if allowed and excluded:
            return Page("only one of allowlist and exclude can be given\n", 400)
        unknown = ", ".join(sorted(allowed - checks.keys()))
        if unknown:  # to run none of what was asked for and say ok would be a false promise
            return Page(f"there is no check {unknown}; there are {', '.join(checks)}\n", 400)
        chosen = [name for name in checks if (name in allowed if allowed else name not in excluded)]
        return await run({name: checks[name] for name in chosen}, query)

    def alone(name: str) -> Route:
        async def one(query: Query) -> Page:
            return await run({name: checks[name]}, query)

        return Route(f"{root}/{name}", one)

    return [Route(root, whole), *map(alone, checks)]


def _told(checks: Mapping[str, Check], reasons: Sequence[str], query: Query) -> Page:
    lines = "".join(
        f"[-]{name} failed: {reason}\n" if reason else f"[+]{name} ok\n"
        for name, reason in zip(checks, reasons)
    )
    if any(reasons):
        return Page(f"{lines}\n", 503)
    return Page(f"{lines if 'verbose' in query else ''}ok\n")


def _names(query: Query, name: str) -> set[str]:
    return {value for value in query.get(name, ()) if value}


def _write_and_sync(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, PROBE_BYTES)
        os.fsync(fd)
    finally:
        os.close(fd)
        os.unlink(path)
