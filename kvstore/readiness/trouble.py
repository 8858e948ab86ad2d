"""What an announcer says while the store does not do as it is asked, and how long it waits in between."""

from __future__ import annotations

import asyncio
import logging
import random

from kvstore.client import ClientError
from kvstore.client.errors import Unreachable
from kvstore.readiness.instance import Instance

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


class Trouble:
    """Says once that the store cannot be used, again every REMIND_S, and that it can again; paces the retries."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._since: float | None = None
        self._said_at = 0.0
        self._pause_s = PAUSE_FIRST_S

    async def met(self, problem: ClientError) -> None:
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since, self._pause_s = now, PAUSE_FIRST_S
        if self._said_at == 0.0 or now - self._said_at >= REMIND_S:
            self._said_at = now
            what = "the store cannot be reached" if isinstance(problem, Unreachable) else "the store answered"
            log.warning("%s: %s; %s", what, problem.message or type(problem).__name__, self._doing)
        await asyncio.sleep(self._pause_s * random.uniform(0.7, 1.0))
        self._pause_s = min(self._pause_s * 2, PAUSE_LONGEST_S)

    def over(self) -> None:
        if self._since is not None:
            away_s = asyncio.get_running_loop().time() - self._since
            self._since, self._said_at = None, 0.0
            log.info("the store answers again after %.1f s", away_s)
