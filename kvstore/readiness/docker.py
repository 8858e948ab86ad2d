"""Containers in, instances out. Pure: what the Docker engine tells of its containers comes in, as it puts it
(GET /containers/ID/json, GET /events); which instances there should be, and why others are not, comes out.

Events that end something take effect by themselves: a container that was stopped is gone with the event that says so,
and nothing is asked about it. All others say which container to look at. What was found by looking counts only when
no other event of that container has come since it was asked for (version()): it may be older than that event.

    running, health check healthy, or none    ready        paused, or told to stop     gone
    running, health check has no verdict yet  starting     not running                 gone
    running, health check unhealthy           failed

A container that was told to stop is gone until it is started again, however long it takes, and even if it goes on.

The address is, in this order: in the network that kvstore.network names; the host's own, with host networking; where
the port is published; the container's own in the one network that it is in.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvstore.readiness.docker_labels import SERVICE, InvalidLabel, Wish, read_labels, unknown, wants
from kvstore.readiness.instance import Instance, InvalidInstance, State, check, default_id

ANYWHERE = ("", "0.0.0.0", "::")
STOPS = {"2", "3", "9", "15"}  # SIGINT, SIGQUIT, SIGKILL, SIGTERM: what docker stop and docker kill send
ENDS = {"die", "stop", "pause", "destroy"}
LOOKS = {"start", "unpause", "restart", "rename", "update"}
VERSIONS_MAX = 4096
HEALTH = {"healthy": State.READY, "unhealthy": State.FAILED, "starting": State.STARTING}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An instance that there should be, in the state the engine gives it. check: what is still to be asked."""

    instance: Instance
    check: str = ""


@dataclass(slots=True)
class Container:
    """One labelled container as it was looked at last; None in state: it is not there."""

    id: str
    name: str
    created: str
    labels: Mapping[str, str]
    state: State | None
    stop_signal: str
    shares_host: bool
    exposed: tuple[int, ...]  # TCP, in order
    published: Mapping[int, list[tuple[str, int]]]  # (IP, port) on the host, by the container's port
    networks: Mapping[str, str]  # IP by network; those with an address


def read_container(document: Mapping[str, Any]) -> Container:
    """Of what the engine says of one container. Raises ValueError for what it would not say."""
    try:
        settings, state = document["NetworkSettings"], document["State"]
        published = {
            port: [(each["HostIp"], int(each["HostPort"])) for each in places]
            for port, places in _by_tcp_port(settings.get("Ports")).items()
            if places
        }
        exposed = _by_tcp_port(document["Config"].get("ExposedPorts")).keys() | published.keys()
        return Container(
            id=document["Id"],
            name=document["Name"].lstrip("/"),
            created=document.get("Created", ""),
            labels=document["Config"].get("Labels") or {},
            state=_state(state),
            stop_signal=_signal_number(document["Config"].get("StopSignal") or ""),
            shares_host=document["HostConfig"].get("NetworkMode") == "host",
            exposed=tuple(sorted(exposed)),
            published=published,
            networks={
                name: network["IPAddress"] or f"[{network['GlobalIPv6Address']}]"
                for name, network in (settings.get("Networks") or {}).items()
                if network.get("IPAddress") or network.get("GlobalIPv6Address")
            },
        )
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise ValueError(f"the engine's answer is not understood: {problem!r}") from None


def _by_tcp_port(ports: Mapping[str, Any] | None) -> dict[int, Any]:
    return {int(name.removesuffix("/tcp")): of for name, of in (ports or {}).items() if name.endswith("/tcp")}


def _signal_number(name: str) -> str:
    """As events put it: "15" of "SIGTERM", "TERM" or "15"."""
    full = name if name.startswith("SIG") else f"SIG{name}"
    return str(int(signal.Signals[full])) if full in signal.Signals.__members__ else name


def _state(state: Mapping[str, Any]) -> State | None:
    if not state["Running"] or state.get("Paused") or state.get("Restarting") or state.get("Dead"):
        return None
    return HEALTH.get((state.get("Health") or {}).get("Status", ""), State.READY)


@dataclass(slots=True)
class Containers:
    """host: the address of the engine's machine, for what is published or shares its network."""

    host: str
    announcer_host: str = ""
    _there: dict[str, Container] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)
    _unread: dict[str, str] = field(default_factory=dict)
    _told_to_stop: set[str] = field(default_factory=set)

    def version(self, container_id: str) -> int:
        return self._versions.get(container_id, 0)

    def take_event(self, event: Mapping[str, Any]) -> str:
        """The id of the container to look at now; "" for none."""
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        action = str(event.get("Action", ""))
        if event.get("Type") == "network" and action in ("connect", "disconnect"):
            return self._touched(str(attributes.get("container", "")))
        if event.get("Type") != "container":
            return ""
        container_id = str(actor.get("ID", ""))
        kind, _, rest = action.partition(": ")
        known = self._there.get(container_id)
        is_stopping = kind == "kill" and self._stops(known, str(attributes.get("signal", "")))
        if is_stopping and SERVICE in attributes:
            self._told_to_stop.add(container_id)
        elif kind in ("die", "start", "destroy"):
            self._told_to_stop.discard(container_id)
        if kind in ENDS or is_stopping:
            self._touched(container_id)
            if known is not None:
                known.state = None
            if kind == "destroy":
                self._forget(container_id)
        elif kind == "health_status" and rest in HEALTH and known is not None and known.state is not None:
            self._touched(container_id)
            known.state = HEALTH[rest]
        elif (kind in LOOKS or kind == "health_status") and SERVICE in attributes:
            return self._touched(container_id)
        return ""

    def take(self, container_id: str, document: Mapping[str, Any] | None, version: int) -> bool:
        """What was found by looking (None: no such container), at the version when it was asked for. False when
        it came too late, and it has to be looked at again."""
        if version != self.version(container_id):
            return False
        self._unread.pop(container_id, None)
        if document is None:
            self._forget(container_id)
            return True
        try:
            found = read_container(document)
        except ValueError as problem:
            self._there.pop(container_id, None)
            self._unread[container_id] = str(problem)
            return True
        if container_id in self._told_to_stop:
            found.state = None
        if wants(found.labels):
            self._there[container_id] = found
        else:
            self._there.pop(container_id, None)
        return True

    def keep(self, container_ids: Iterable[str]) -> None:
        """The whole list: who is not in it is not there."""
        for container_id in self._there.keys() - set(container_ids):
            self._forget(container_id)

    def desired(self) -> tuple[dict[bytes, Wanted], dict[str, str]]:
        """By key; and what is wrong, by the container's name. Of two that want one key the older has it."""
        wanted: dict[bytes, Wanted] = {}
        holder: dict[bytes, str] = {}
        wrong: dict[str, str] = {cid[:12]: problem for cid, problem in self._unread.items()}
        for container in sorted(self._there.values(), key=lambda each: (each.created, each.id)):
            if container.state is None:
                continue
            try:
                one = self._wanted(container, container.state)
            except (InvalidLabel, InvalidInstance) as problem:
                wrong[container.name] = str(problem)
                continue
            if other := holder.get(one.instance.key):
                name = f"{one.instance.service}/{one.instance.id}"
                wrong[container.name] = (
                    f"{name} is container {other} already; label kvstore.id names it otherwise"
                )
                continue
            wanted[one.instance.key], holder[one.instance.key] = one, container.name
        return wanted, wrong

    def remarks(self) -> dict[str, list[str]]:
        """What has no effect, by the container's name."""
        found = {each.name: unknown(each.labels) for each in self._there.values() if each.state is not None}
        return {name: lines for name, lines in found.items() if lines}

    def _wanted(self, container: Container, state: State) -> Wanted:
        wish = read_labels(container.labels)
        address = address_of(container, wish, self.host)
        instance = Instance(
            service=wish.service,
            id=wish.id or default_id(address),
            address=address,
            protocol=wish.protocol,
            weight=wish.weight,
            zone=wish.zone,
            tags=wish.tags,
            state=state,
            host=self.announcer_host,
        )
        return Wanted(check(instance), wish.check)

    def _touched(self, container_id: str) -> str:
        if container_id:
            self._versions[container_id] = self._versions.pop(container_id, 0) + 1
            while len(self._versions) > VERSIONS_MAX:  # of the one that nothing was heard of for longest
                del self._versions[next(iter(self._versions))]
        return container_id

    def _forget(self, container_id: str) -> None:
        """Its version stays: an answer about it may still be on its way. A container's id never comes back."""
        self._there.pop(container_id, None)
        self._unread.pop(container_id, None)

    @staticmethod
    def _stops(container: Container | None, signal: str) -> bool:
        return signal in STOPS or (container is not None and signal == container.stop_signal)


def address_of(container: Container, wish: Wish, host: str) -> str:
    """Where it is reached. Raises InvalidLabel with the way out."""
    port = wish.port or _only_port(container)
    if wish.network:
        ip = container.networks.get(wish.network)
        if ip is None:
            known = ", ".join(sorted(container.networks)) or "none"
            raise InvalidLabel(f"kvstore.network: it is not in network {wish.network!r}, but in: {known}")
        return f"{ip}:{port}"
    if container.shares_host:
        return f"{host}:{port}"
    if places := container.published.get(port):
        ip, outside = sorted(places, key=lambda place: ":" in place[0])[0]  # IPv4 first
        where = host if ip in ANYWHERE else f"[{ip}]" if ":" in ip else ip
        return f"{where}:{outside}"
    if len(container.networks) == 1:
        (ip,) = container.networks.values()
        return f"{ip}:{port}"
    if container.networks:
        names = ", ".join(sorted(container.networks))
        raise InvalidLabel(f"label kvstore.network says in which network it is reached: {names}")
    raise InvalidLabel(f"port {port} is not published, and the container has no address of its own")


def _only_port(container: Container) -> int:
    if len(container.exposed) == 1:
        return container.exposed[0]
    count = "no port" if not container.exposed else f"{len(container.exposed)} ports"
    raise InvalidLabel(f"it exposes {count}: label kvstore.port says which")
