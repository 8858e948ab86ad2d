"""Drives a running HAProxy over its runtime API: no reload, no configuration of its own but a backend.

Converges in three cases: the set changed (at once), the socket's file changed, which is what a restarted or reloaded
HAProxy leaves behind (looked at every LOOK_S), and every interval in any case; while HAProxy does not answer, ever
more slowly. Every round starts from what HAProxy says it has. Each takes a new connection: one that is held open
would go on talking to the old process of a reload, and keep it from ending.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kvstore.readiness.instance import Instance, split_address
from kvstore.routing.haproxy_plan import (
    BUSY,
    DEFAULT_SLOTS,
    Server,
    Target,
    UnreadableState,
    parse_state,
    parse_used,
    plan,
    slot_addressed,
    surplus,
    targets,
    trouble,
)

LOOK_S = 0.1
RETRY_S, RETRY_MAX_S = 0.1, 2.0
PLANS_MAX = 4
DELETE_AGAIN_S = 0.02
COMMANDS_PER_CONNECTION = 100
ASK_TIMEOUT_S = 5.0
RESOLVED_FOR_S = 10.0

log = logging.getLogger(__name__)


class HaproxyError(Exception):
    """HAProxy cannot be talked to, or does not have what it should."""


@dataclass(frozen=True, slots=True)
class Settings:
    """drain_s: how long requests on their way to an instance that has gone may still take. slots: what the names
    of pre-allocated servers begin with."""

    socket_path: str
    backend: str
    interval_s: float = 1.0
    drain_s: float = 1.0
    server_options: str = ""
    slots: str = DEFAULT_SLOTS


async def ask(socket_path: str, commands: Sequence[str]) -> list[str]:
    """One answer per command, over one connection. Raises HaproxyError."""
    text = "".join(f"{command}\n" for command in ["prompt", *commands, "quit"])
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                writer.write(text.encode())
                data = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        raise HaproxyError(f"{socket_path}: no answer within {ASK_TIMEOUT_S:g} s") from None
    except OSError as problem:
        raise HaproxyError(f"{socket_path}: {problem.strerror or problem}") from None
    answers = data.decode(errors="replace").split("\n> ")
    if len(answers) < len(commands) + 2:
        raise HaproxyError(f"{socket_path}: the connection ended before every command was answered")
    return [answer.strip() for answer in answers[1 : len(commands) + 1]]


class HaproxyDriver:
    """A Driver. reconcile() notes the set, run() brings HAProxy to it, until it is cancelled. Before the first
    set HAProxy is left alone: what it has from an earlier run is better than nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._instances: Sequence[Instance] | None = None
        self._wake = asyncio.Event()
        self._gone_since: dict[str, float] = {}
        self._resolved: dict[str, tuple[str, float]] = {}
        self._said: set[str] = set()
        self._unusable: set[str] = set()  # slots that do not take an address
        self._known: dict[str, Server] | None = None  # what it had when nothing was left to plan
        self._identity: tuple[int, ...] = ()

    def reconcile(self, instances: Sequence[Instance]) -> None:
        self._instances = instances
        self._wake.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        away_since, retry_s = 0.0, RETRY_S
        while True:
            self._wake.clear()
            if (identity := self._look()) != self._identity:
                self._identity, retry_s, self._known = identity, RETRY_S, None
                self._unusable.clear()
            pause_s = self._settings.interval_s
            if self._instances is not None:
                try:
                    is_settled = await self._converge(self._instances)
                    pause_s = pause_s if is_settled else DELETE_AGAIN_S
                except HaproxyError as problem:
                    self._known = None
                    away_since = away_since or loop.time()
                    self._say(f"{problem}; trying again")
                    pause_s, retry_s = retry_s, min(retry_s * 2, RETRY_MAX_S)
                else:
                    if away_since:
                        log.info("HAProxy answers again after %.1f s", loop.time() - away_since)
                    away_since, retry_s = 0.0, RETRY_S
            await self._wait(loop.time() + pause_s)

    async def _converge(self, instances: Sequence[Instance]) -> bool:
        """Ask, plan, carry out, until there is no more to plan. False when a server is still to be deleted."""
        desired = targets(instances, await self._resolve(instances))
        known, self._known = self._known, None
        if known is not None:
            await self._act_on(known, desired)
        addressed: set[str] = set()
        for _ in range(PLANS_MAX):
            current = await self._ask_state()
            commands = plan(
                self._settings.backend,
                current,
                desired,
                overdue=self._overdue(current, desired),
                unusable=self._unusable,
                options=self._settings.server_options,
            )
            if not commands:
                self._said.clear()
                self._known = current
                return True
            slots = {slot for command in commands if (slot := slot_addressed(command))}
            self._unusable |= slots & addressed  # it said that it took the address, and has another
            addressed |= slots
            is_settled = await self._carry_out(commands)
            if not slots:
                return is_settled
        return False

    async def _act_on(self, known: dict[str, Server], desired: Mapping[str, Target]) -> None:
        """Carries out at once what follows from what HAProxy had a moment ago, and saves asking first: half of the
        time it takes. Whatever was wrong with that shows in what it is asked next. Not with slots: whether one is
        free to take an address is not known but by asking."""
        if any(server.is_slot for server in known.values()):
            return
        overdue = self._overdue(known, desired)
        options = self._settings.server_options
        if commands := plan(self._settings.backend, known, desired, overdue=overdue, options=options):
            await self._carry_out(commands, is_guess=True)

    async def _ask_state(self) -> dict[str, Server]:
        backend = self._settings.backend
        questions = [f"show servers state {backend}", f"show servers conn {backend}"]
        state, connections = await ask(self._settings.socket_path, questions)
        try:
            servers = parse_state(state, self._settings.slots)
            used = parse_used(connections) if any(server.is_slot for server in servers.values()) else {}
        except UnreadableState as problem:
            raise HaproxyError(f"backend {backend}: HAProxy says: {problem}") from None
        return {name: replace(one, used_count=used.get(name, 0)) for name, one in servers.items()}

    async def _carry_out(self, commands: Sequence[str], *, is_guess: bool = False) -> bool:
        """is_guess: what it refuses is no news yet."""
        is_settled, has_trouble = True, False
        done: list[str] = []
        for start in range(0, len(commands), COMMANDS_PER_CONNECTION):
            some = commands[start : start + COMMANDS_PER_CONNECTION]
            for command, answer in zip(some, await ask(self._settings.socket_path, some)):
                if (problem := trouble(command, answer)) and is_guess:
                    has_trouble = True
                elif problem:
                    self._say(f"HAProxy refused {command!r}: {problem}")
                    has_trouble = True
                    self._unusable |= {slot_addressed(command) or ""} - {""}
                elif BUSY in answer:
                    is_settled = False
                elif not command.startswith("shutdown "):
                    done.append(command)
        if any(not command.startswith("del ") for command in done) or (done and is_settled):
            log.info("HAProxy: %s", "; ".join(done))
        if not has_trouble:
            self._said.clear()
        return is_settled

    def _overdue(self, current: Mapping[str, Server], desired: Mapping[str, Target]) -> set[str]:
        """Those nobody wants that are out of the rotation and have had their time. After a restart of ours it
        begins again."""
        now = asyncio.get_running_loop().time()
        gone = surplus(current, desired)
        self._gone_since = {name: self._gone_since.get(name, now) for name in gone}
        if self._settings.drain_s <= 0:
            return set(gone)
        return {
            name
            for name, since in self._gone_since.items()
            if now - since >= self._settings.drain_s and not current[name].is_enabled
        }

    async def _resolve(self, instances: Sequence[Instance]) -> dict[str, str]:
        """Host names to IPs, kept for RESOLVED_FOR_S; HAProxy takes only IPs for servers added at run time."""
        loop = asyncio.get_running_loop()
        found: dict[str, str] = {}
        for host in {split_address(instance.address)[0] for instance in instances}:
            if _is_ip(host):
                found[host] = str(ipaddress.ip_address(host))  # as HAProxy writes it
                continue
            ip, until = self._resolved.get(host, ("", 0.0))
            if loop.time() >= until:
                try:
                    answers = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                    ip = str(answers[0][4][0])
                except OSError as problem:
                    self._say(
                        f"{host}: {problem.strerror or problem}" + ("; using the last known IP" if ip else "")
                    )
                self._resolved[host] = (ip, loop.time() + (RESOLVED_FOR_S if ip else 1.0))
            if ip:
                found[host] = ip
        return found

    async def _wait(self, until: float) -> None:
        """Until there is a new set, HAProxy's socket is another one, or the time has come."""
        loop = asyncio.get_running_loop()
        while (left_s := until - loop.time()) > 0 and not self._wake.is_set():
            try:
                async with asyncio.timeout(min(left_s, LOOK_S)):
                    await self._wake.wait()
            except TimeoutError:
                if self._look() != self._identity:
                    return

    def _look(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._settings.socket_path)
        except OSError:
            return ()
        return (found.st_dev, found.st_ino, found.st_ctime_ns)

    def _say(self, text: str) -> None:
        """Once, until everything is well again."""
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
