"""The network between members: delays, loses, doubles and reorders, link by link and direction by direction.

Messages pass through their real encoding, so nothing is shared between members. What a broken connection loses
is reported to the sender now and then, as the real transport does. Requests are answered once or time out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvstore.replication.codec import decode_message, encode_message
from raft import Message
from tests.whole_member.options import Options
from tests.whole_member.world import Life, World

REPORT_S = 0.02


class Peer(Protocol):
    """A member as the network reaches it."""

    id: int
    life: Life | None

    def received(self, messages: list[Message]) -> None: ...

    def notified(self, kind: int, payload: bytes) -> None: ...

    def requested(self, kind: int, payload: bytes, reply: Callable[[bytes], None]) -> None: ...

    def unreachable(self, node_id: int) -> None: ...

    def refused_by(self, node_id: int) -> None: ...


class Network:
    def __init__(self, world: World, options: Options) -> None:
        self.world = world
        self.options = options
        self.peers: dict[int, Peer] = {}
        self.cut: set[tuple[int, int]] = set()  # directed pairs that lose everything
        self.healed = False
        self.lost = 0
        self._arrivals: dict[tuple[int, int], float] = {}

    def up(self, sender: int, to: int) -> bool:
        return (sender, to) not in self.cut and self.peers[to].life is not None

    def carry(self, sender: int, to: int, deliver: Callable[[Peer], None], *, doubles: bool = True) -> None:
        """Delivers once, never or, with doubles, twice."""
        random, options = self.world.random, self.options
        copies = 1
        if not self.healed:
            if random.random() < options.loss:
                copies = 0
            elif doubles and random.random() < options.duplication:
                copies = 2
        if not copies:
            self._lose(sender, to)
        for _ in range(copies):
            self.world.at(self._delay(sender, to), lambda: self._arrive(sender, to, deliver))

    def _delay(self, sender: int, to: int) -> float:
        world, options = self.world, self.options
        delay = world.random.uniform(0.0002, 0.002 if self.healed else options.delay_s)
        if options.reorder:
            return delay
        at = max(self._arrivals.get((sender, to), 0.0), world.now + delay)
        self._arrivals[sender, to] = at
        return at - world.now

    def _arrive(self, sender: int, to: int, deliver: Callable[[Peer], None]) -> None:
        if not self.up(sender, to):
            self._lose(sender, to)
            return
        peer = self.peers[to]
        assert peer.life is not None
        peer.life.later(0.0, lambda: deliver(peer))

    def _lose(self, sender: int, to: int) -> None:
        self.lost += 1
        life = self.peers[sender].life
        if life is not None and self.world.random.random() < 0.2:
            life.later(REPORT_S, lambda: self.peers[sender].unreachable(to))
        if life is not None and self.options.gone and self.world.random.random() < self.options.gone:
            life.later(REPORT_S, lambda: self.peers[sender].refused_by(to))


class Connections:
    """One member's transport for one life: the driver's Transport and the lease keeper's Requests."""

    def __init__(self, network: Network, sender: int, life: Life) -> None:
        self._network = network
        self._sender = sender
        self._life = life

    def send(self, messages: list[Message]) -> None:
        for message in messages:
            parts: list[bytes] = []
            encode_message(message, parts)
            self._send(message.to, b"".join(parts))

    def _send(self, to: int, data: bytes) -> None:
        sender, world = self._sender, self._network.world

        def deliver(peer: Peer) -> None:
            message = decode_message(data, 0, len(data), sender=sender, to=to)
            if world.telling:
                world.tell(f"n{sender} -> n{to} {message}")
            peer.received([message])

        self._network.carry(sender, to, deliver)

    def notify(self, to_id: int, kind: int, payload: bytes) -> bool:
        if not self._network.up(self._sender, to_id):
            return False
        self._network.carry(self._sender, to_id, lambda peer: peer.notified(kind, payload))
        return True

    def request(
        self,
        to_id: int,
        kind: int,
        payload: bytes,
        timeout_s: float,
        done: Callable[[bytes | None, Exception | None], None],
    ) -> None:
        open_call = [done]

        def finish(answer: bytes | None, problem: Exception | None) -> None:
            if open_call:
                open_call.pop()(answer, problem)

        def reply(answer: bytes) -> None:
            self._network.carry(
                to_id, self._sender, lambda own: self._finish_here(finish, answer), doubles=False
            )

        if not self._network.up(self._sender, to_id):
            self._life.later(0.001, lambda: finish(None, ConnectionError("not connected")))
            return
        self._network.carry(
            self._sender, to_id, lambda peer: peer.requested(kind, payload, reply), doubles=False
        )
        self._life.later(timeout_s, lambda: finish(None, TimeoutError("no answer")))

    def _finish_here(self, finish: Callable[[bytes | None, Exception | None], None], answer: bytes) -> None:
        """An answer to a question of an earlier life is nobody's."""
        if not self._life.ended:
            finish(answer, None)
