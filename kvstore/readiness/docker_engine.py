"""Follows a Docker engine: its list first, its events from then on, both again after every lost connection.

What is known stays while the engine is away: its containers may well go on without it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError

from kvstore.readiness.docker import Containers
from kvstore.readiness.docker_labels import SERVICE

PAUSE_FIRST_S = 0.1
PAUSE_LONGEST_S = 2.0
REMIND_S = 30.0
SETTLED_S = 5.0
LOOKS_AT_ONCE = 8
ASK_TIMEOUT_S = 10.0
_PROBLEMS = (DockerError, aiohttp.ClientError, OSError, TimeoutError, ValueError)
_FILTERS = json.dumps({"type": ["container", "network"]})

log = logging.getLogger(__name__)


class Engine:
    """run() keeps `containers` up to date, and calls changed() when it may be another than before; it ends by
    being cancelled. url: as DOCKER_HOST; "": that, or the engine of this machine."""

    def __init__(self, url: str, containers: Containers, changed: Callable[[], None]) -> None:
        self._url = url
        self._containers = containers
        self._changed = changed
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        pause_s, said_at = PAUSE_FIRST_S, -REMIND_S
        while True:
            began_at = clock()
            try:
                async with self._connected() as docker:
                    problem = await self._follow(docker)
            except* _PROBLEMS as caught:
                problem = _first(caught)
            if clock() - began_at >= SETTLED_S:
                pause_s, said_at = PAUSE_FIRST_S, -REMIND_S
            if clock() - said_at >= REMIND_S:
                said_at = clock()
                log.warning("the Docker engine cannot be followed: %s; trying again", problem)
            await asyncio.sleep(pause_s * random.uniform(0.7, 1.0))
            pause_s = min(pause_s * 2, PAUSE_LONGEST_S)

    def _connected(self) -> Docker:
        try:
            return Docker(self._url or None)
        except AssertionError:  # what it says when it has looked everywhere
            raise FileNotFoundError("there is no socket of one on this machine; is it running?") from None

    async def _follow(self, docker: Docker) -> str:
        """For as long as the connection lasts; how it ended. Events are asked for from a moment before the list
        was, by the engine's own clock, so that nothing falls between the two."""
        async with asyncio.timeout(ASK_TIMEOUT_S):
            info = await docker.system.info()
        since = datetime.fromisoformat(info["SystemTime"]).timestamp()
        every: Any = docker.events  # it has no types
        events = every.subscribe(since=f"{since:.6f}", filters=_FILTERS)
        following: asyncio.Task[None] = every.task
        try:
            async with asyncio.TaskGroup() as looking:
                await self._list(docker, looking)
                while (event := await events.get()) is not None:
                    self._take(event, docker, looking)
            await following  # raises what it ended with
        finally:
            if following.done():
                every.task = None  # closing would raise that again, and leave its connections open
        return "it has ended the connection"

    def _take(self, event: dict[str, Any], docker: Docker, looking: asyncio.TaskGroup) -> None:
        container_id = self._containers.take_event(event)
        if container_id:
            looking.create_task(self._look(docker, container_id))
        else:
            self._changed()

    async def _list(self, docker: Docker, looking: asyncio.TaskGroup) -> None:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            found = await docker.containers.list(filters=json.dumps({"label": [SERVICE]}))
        ids = [container.id for container in found]
        self._containers.keep(ids)
        log.info("the Docker engine runs %d labelled containers", len(ids))
        for container_id in ids:
            looking.create_task(self._look(docker, container_id))
        self._changed()

    async def _look(self, docker: Docker, container_id: str) -> None:
        is_taken = False
        while not is_taken:
            async with self._looks, asyncio.timeout(ASK_TIMEOUT_S):
                version = self._containers.version(container_id)
                document: dict[str, Any] | None
                try:
                    document = await docker.containers.container(container_id).show()
                except DockerError as problem:
                    if problem.status != 404:
                        raise
                    document = None
            is_taken = self._containers.take(container_id, document, version)
        self._changed()


def _first(group: BaseExceptionGroup[Any]) -> str:
    """What the first of them says."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, DockerError):
        return str(error.message)
    if isinstance(error, TimeoutError):
        return f"no answer within {ASK_TIMEOUT_S:g} s"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke"
    return " ".join(str(error).split()) or type(error).__name__
