"""HAProxy as it is and as it should be in, commands of its runtime API out. Pure.

A server object stands for one address: either one of the slots that the configuration has set aside ("kv1", "kv2", of
`server-template kv 1-20 …`), used first, or one that is added at run time and named after its address
("kv:10.0.0.5:8080"). All other servers belong to the configuration and are never touched, so the state after a
restart of either side is all in `show servers state`: nothing to remember.

A slot may get another address only while nobody can still be talking to the old one through it: it is in maintenance,
and HAProxy counts no connection in use. Re-addressing whatever is at hand is what was refused: a connection that is
in use at that moment goes back to the slot's pool afterwards, and keep-alive clients stayed with the old instance in
up to half of the switches. While no slot is free in that sense a server is added, so nothing ever waits for one. A slot
is enabled only when HAProxy says that it has the address: until then plan() asks for nothing to be taken out.

An instance that drains keeps its server, in HAProxy's state of that name: what it has goes on, nothing new comes.
An instance that has gone is disabled first, which takes it out of the rotation whatever happens next. The rest is
tidying up: HAProxy refuses to delete what was added while connections hang on it, so it is tried again, and once it
has been asked for longer than the drain allows (overdue) the sessions are shut down before it. A slot stays as it is,
and is free when its last connection has gone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from kvstore.readiness.instance import Instance, split_address

NAME_PREFIX = "kv:"
DEFAULT_SLOTS = "kv"
DRAINS = 0x08 | 0x10  # forced, inherited
# Forced, inherited, by DNS. Not 0x04: `disabled` in the configuration sets it beside 0x01 and nothing clears it.
IN_MAINTENANCE = 0x01 | 0x02 | 0x20

BUSY = "Server still has connections attached to it, cannot remove it."
DONE = frozenset(("", "New server registered.", "Server deleted."))
_SET_ADDRESS = re.compile(r"set server \S+/(\S+) addr ")
_ADDRESS_SET = re.compile(
    r"(IP changed from|no need to change the addr).*(port changed from|no need to change the port)"
)


class UnreadableState(ValueError):
    """HAProxy's answer is not the table that was asked for."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server object of ours, as HAProxy has it. stands_for: the name of the target at its address.
    used_count: connections to it that are in use."""

    name: str
    is_enabled: bool
    weight: int
    is_draining: bool = False
    stands_for: str = ""
    used_count: int = 0

    @property
    def is_slot(self) -> bool:
        return not self.name.startswith(NAME_PREFIX)


@dataclass(frozen=True, slots=True)
class Target:
    """A server object as it should be. address: IP:PORT, IPv6 in brackets."""

    name: str
    address: str
    weight: int
    is_draining: bool = False


def targets(instances: Iterable[Instance], ip_of: Mapping[str, str]) -> dict[str, Target]:
    """By name. ip_of: host to IP; an instance whose host is not in it is left out. Two instances that announce
    one address are one server, with the weights of both; it drains only when both do."""
    found: dict[str, Target] = {}
    for instance in instances:
        host, port = split_address(instance.address)
        ip = ip_of.get(host)
        if ip is None:
            continue
        name = f"{NAME_PREFIX}{ip}:{port}"
        address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        other = found.get(name)
        if not instance.is_ready and other is not None:
            continue
        weight = instance.weight + (other.weight if other is not None and not other.is_draining else 0)
        found[name] = Target(name, address, min(weight, 256), not instance.is_ready)
    return found


def parse_state(text: str, slots: str = DEFAULT_SLOTS) -> dict[str, Server]:
    """The answer to `show servers state BACKEND`, ours only, by name, in HAProxy's order. slots: what the names of
    slots begin with, before a number. Raises UnreadableState with the answer itself when that is an error message."""
    is_slot = re.compile(re.escape(slots) + r"\d+").fullmatch
    lines = text.strip().splitlines()
    if len(lines) < 2 or lines[0].strip() != "1" or not lines[1].startswith("# "):
        raise UnreadableState(" ".join(text.split()) or "an empty answer")
    columns = lines[1][2:].split()
    servers = {}
    for line in lines[2:]:
        row = dict(zip(columns, line.split()))
        try:
            name, admin, weight = row["srv_name"], int(row["srv_admin_state"]), int(row["srv_uweight"])
            at = f"{NAME_PREFIX}{row['srv_addr']}:{row['srv_port']}"
        except (KeyError, ValueError):
            raise UnreadableState(f"this line of the state: {line!r}") from None
        if name.startswith(NAME_PREFIX) or is_slot(name):
            stands_for = at if is_slot(name) else name
            is_enabled, is_draining = not admin & IN_MAINTENANCE, bool(admin & DRAINS)
            servers[name] = Server(name, is_enabled, weight, is_draining, stands_for)
    return servers


def parse_used(text: str) -> dict[str, int]:
    """The answer to `show servers conn BACKEND`: how many connections to each server are in use, by its name.
    Raises UnreadableState."""
    lines = text.strip().splitlines()
    if not lines or not lines[0].startswith("# "):
        raise UnreadableState(" ".join(text.split()) or "an empty answer")
    columns = lines[0][2:].split()
    try:
        rows = [dict(zip(columns, line.split())) for line in lines[1:]]
        return {row["bkname/svname"].partition("/")[2]: int(row["used_cur"]) for row in rows}
    except (KeyError, ValueError):
        raise UnreadableState(f"these connections: {' '.join(text.split())!r}") from None


def holders(current: Mapping[str, Server]) -> dict[str, Server]:
    """The server of each address that one stands for, by the name of its target: one that is enabled where there
    are several."""
    found: dict[str, Server] = {}
    for server in current.values():
        other = found.get(server.stands_for)
        if other is None or (server.is_enabled and not other.is_enabled):
            found[server.stands_for] = server
    return found


def surplus(current: Mapping[str, Server], desired: Mapping[str, Target]) -> list[str]:
    """Servers that nobody wants and that are not out of use yet: those added, and slots that are enabled or have
    connections. By name."""
    wanted = {server.name for name, server in holders(current).items() if name in desired}
    return sorted(
        server.name
        for server in current.values()
        if server.name not in wanted and (not server.is_slot or server.is_enabled or server.used_count)
    )


def plan(
    backend: str,
    current: Mapping[str, Server],
    desired: Mapping[str, Target],
    *,
    overdue: Collection[str] = (),
    unusable: Collection[str] = (),
    options: str = "",
) -> list[str]:
    """The commands that lead from current to desired: first in what is ready, then out what is not, so that a
    replacement never passes through an empty backend. Nothing to do: no commands. When slots get addresses these
    are only the first, and another plan follows. unusable: slots that do not take an address."""
    held = holders(current)
    new = [desired[name] for name in sorted(desired.keys() - held.keys()) if not desired[name].is_draining]
    taken = {held[name].name for name in desired.keys() & held.keys()}
    free = [server.name for server in current.values() if _is_free(server) and server.name not in taken]
    commands: list[str] = []
    for target, slot in zip(new, (name for name in free if name not in unusable)):
        commands += _readdress(f"{backend}/{slot}", target)
    for target in new[len(commands) // 2 :]:
        words = f"add server {backend}/{target.name} {target.address} weight {target.weight} {options}"
        commands += [words.strip(), f"enable server {backend}/{target.name}"]
    for name in sorted(desired.keys() & held.keys()):
        commands += _adjust(backend, held[name], desired[name])
    if any(slot_addressed(command) for command in commands):
        return commands
    gone = surplus(current, desired)
    commands += [f"disable server {backend}/{name}" for name in gone if current[name].is_enabled]
    for name in gone:
        if name in overdue:
            commands.append(f"shutdown sessions server {backend}/{name}")
        if not current[name].is_slot:
            commands.append(f"del server {backend}/{name}")
    return commands


def _is_free(server: Server) -> bool:
    return server.is_slot and not server.is_enabled and not server.used_count


def _readdress(server: str, target: Target) -> list[str]:
    """Two commands. The first is for a stream that had chosen the server just before it left the rotation."""
    host, _, port = target.address.rpartition(":")
    return [f"shutdown sessions server {server}", f"set server {server} addr {host.strip('[]')} port {port}"]


def _adjust(backend: str, server: Server, target: Target) -> list[str]:
    commands = []
    if server.weight != target.weight:
        commands.append(f"set server {backend}/{server.name} weight {target.weight}")
    if not server.is_enabled:
        if target.is_draining:
            return []  # it has nothing here that could be finished, unless it never stopped
        commands.append(f"enable server {backend}/{server.name}")
    if target.is_draining != server.is_draining:
        state = "drain" if target.is_draining else "ready"
        commands.append(f"set server {backend}/{server.name} state {state}")
    return commands


def slot_addressed(command: str) -> str | None:
    """The slot that a command of plan() gives an address; None for any other command."""
    found = _SET_ADDRESS.match(command)
    return found[1] if found else None


def trouble(command: str, answer: str) -> str | None:
    """What is wrong with the answer to a command of plan(); None when it is the expected one, or only says
    that a server cannot be deleted yet."""
    text = " ".join(answer.split())
    if text in DONE or (text == BUSY and command.startswith("del server ")):
        return None
    if slot_addressed(command) and _ADDRESS_SET.match(text):
        return None
    if text.startswith("Permission denied"):
        return f"{text} (the stats socket needs `level admin`)"
    return text
