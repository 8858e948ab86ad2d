"""What an announcer says while the store does not do as it is asked, and how long it waits in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

from kvstore.client import ClientError
from kvstore.client.errors import InstanceTaken, Unreachable
from kvstore.readiness.instance import Instance, InvalidInstance, decode

PAUSE_FIRST_S = 0.05
PAUSE_LONGEST_S = 0.5
REMIND_S = 10.0

log = logging.getLogger(__name__)


def say_announced(instance: Instance, revision: int) -> None:
    log.info(
        "announced %s/%s at %s (%s), revision %d",
        instance.service,
        instance.id,
        instance.address,
        instance.state,
        revision,
    )


def taken(instance: Instance, value: bytes | None) -> InstanceTaken:
    """That the key is somebody else's, and whose; value: what stands there now, None where it is not known."""
    holder = None
    if value is not None:
        with contextlib.suppress(InvalidInstance):
            holder = decode(instance.key, value)
    who = "somebody else"
    if holder is not None:
        host = f" of host {holder.host}" if holder.host else ""
        who = f"another announcer{host}, at {holder.address}"
    return InstanceTaken(
        f"{instance.service}/{instance.id} is announced already by {who}: "
        "give this one another --id, stop the other, or take it with --take-over"
    )


class Trouble:
    """Says once that the store cannot be used, again every REMIND_S, and that it can again; paces the retries."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._since: float | None = None
        self._is_taken = False
        self._said_at = 0.0
        self._pause_s = PAUSE_FIRST_S

    async def met(self, problem: ClientError) -> None:
        now = asyncio.get_running_loop().time()
        is_taken = isinstance(problem, InstanceTaken)
        if self._since is None or is_taken != self._is_taken:
            self._since, self._is_taken = now, is_taken
            self._said_at, self._pause_s = 0.0, PAUSE_FIRST_S
        if self._said_at == 0.0 or now - self._said_at >= REMIND_S:
            self._said_at = now
            what = "the store cannot be reached" if isinstance(problem, Unreachable) else "the store answered"
            text = problem.message or type(problem).__name__
            log.warning("%s; %s", text if is_taken else f"{what}: {text}", self._doing)
        await asyncio.sleep(self._pause_s * random.uniform(0.7, 1.0))
        self._pause_s = min(self._pause_s * 2, PAUSE_LONGEST_S)

    def answered(self) -> None:
        """The store answers; whether it does as it is asked is another matter."""
        if not self._is_taken:
            self.over()

    def over(self) -> None:
        if self._since is not None:
            away_s = asyncio.get_running_loop().time() - self._since
            what = "the name is free" if self._is_taken else "the store answers again"
            self._since, self._is_taken, self._said_at = None, False, 0.0
            log.info("%s after %.1f s", what, away_s)
