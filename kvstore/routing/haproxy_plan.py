"""HAProxy as it is and as it should be in, commands of its runtime API out. Pure.

One server object per address, named after it ("kv:10.0.0.5:8080"). Re-addressing a fixed set of slots is the
alternative that was refused: keep-alive clients stayed with the old instance behind a re-addressed slot in up to half
of the switches. Servers whose name does not begin with "kv:" belong to the configuration and are never touched, so
the state after a restart of either side is all in `show servers state`: what we made, and nothing to remember.

An instance that drains keeps its server, in HAProxy's state of that name: what it has goes on, nothing new comes.
An instance that has gone is disabled first, which takes it out of the rotation whatever happens next. Deleting it is
tidying up: HAProxy refuses while connections hang on it, so it is tried again, and once it has been asked for longer
than the drain allows (overdue) the sessions are shut down before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from kvstore.readiness.instance import Instance, split_address

NAME_PREFIX = "kv:"
DRAINS = 0x08 | 0x10  # forced, inherited
IN_MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20  # forced, inherited, by configuration, by DNS

BUSY = "Server still has connections attached to it, cannot remove it."
DONE = frozenset(("", "New server registered.", "Server deleted."))


class UnreadableState(ValueError):
    """HAProxy's answer is not the table that was asked for."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server object of ours, as HAProxy has it."""

    name: str
    is_enabled: bool
    weight: int
    is_draining: bool = False


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


def parse_state(text: str) -> dict[str, Server]:
    """The answer to `show servers state BACKEND`, ours only, by name. Raises UnreadableState with the answer
    itself when that is an error message."""
    lines = text.strip().splitlines()
    if len(lines) < 2 or lines[0].strip() != "1" or not lines[1].startswith("# "):
        raise UnreadableState(" ".join(text.split()) or "an empty answer")
    columns = lines[1][2:].split()
    servers = {}
    for line in lines[2:]:
        row = dict(zip(columns, line.split()))
        try:
            name, admin, weight = row["srv_name"], int(row["srv_admin_state"]), int(row["srv_uweight"])
        except (KeyError, ValueError):
            raise UnreadableState(f"this line of the state: {line!r}") from None
        if name.startswith(NAME_PREFIX):
            servers[name] = Server(name, not admin & IN_MAINTENANCE, weight, bool(admin & DRAINS))
    return servers


def plan(
    backend: str,
    current: Mapping[str, Server],
    desired: Mapping[str, Target],
    *,
    overdue: Collection[str] = (),
    options: str = "",
) -> list[str]:
    """The commands that lead from current to desired: first in what is ready, then out what is not, so that a
    replacement never passes through an empty backend. Nothing to do: no commands."""
    commands: list[str] = []
    for name in sorted(desired.keys() - current.keys()):
        target = desired[name]
        if target.is_draining:
            continue  # it has nothing here that could be finished
        words = f"add server {backend}/{name} {target.address} weight {target.weight} {options}"
        commands += [words.strip(), f"enable server {backend}/{name}"]
    for name in sorted(desired.keys() & current.keys()):
        if current[name].weight != desired[name].weight:
            commands.append(f"set server {backend}/{name} weight {desired[name].weight}")
        if not current[name].is_enabled:
            commands.append(f"enable server {backend}/{name}")
        if desired[name].is_draining != current[name].is_draining:
            state = "drain" if desired[name].is_draining else "ready"
            commands.append(f"set server {backend}/{name} state {state}")
    gone = sorted(current.keys() - desired.keys())
    commands += [f"disable server {backend}/{name}" for name in gone if current[name].is_enabled]
    for name in gone:
        if name in overdue:
            commands.append(f"shutdown sessions server {backend}/{name}")
        commands.append(f"del server {backend}/{name}")
    return commands


def trouble(command: str, answer: str) -> str | None:
    """What is wrong with the answer to a command of plan(); None when it is the expected one, or only says
    that a server cannot be deleted yet."""
    text = " ".join(answer.split())
    if text in DONE or (text == BUSY and command.startswith("del server ")):
        return None
    return text
