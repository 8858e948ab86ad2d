"""Passwords and their bcrypt hashes, off the loop, a few at a time.

A hash takes tens of milliseconds on purpose, so who may ask for one, and how often, is part of the matter:
  - one queue for each user, served in turn: guessing at one user's password holds up nobody else;
  - after a wrong password that user's queue rests for a moment, longer with each that follows;
  - names that are no user's share one queue, and their passwords are hashed like the others', so that neither
    the time nor the answer tells who exists;
  - queues have an end: above it a request is refused, and may come again.
Pure but for the thread at the end, which does the work.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kvstore import errors

PASSWORD_BYTES_MAX = 72  # bcrypt looks at no more
WAITING_PER_USER_MAX = 64
WAITING_MAX = 1024
REST_FIRST_S = 0.05
REST_LONGEST_S = 1.0
_HASH = re.compile(rb"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")
_NOBODY = ""
_MAKING = "\0"  # the queue of new hashes, which only root can ask for

Run = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""run(work, done): has work() done in a thread, then done(its result) on the loop."""


@dataclass(slots=True)
class _Job:
    work: Callable[[], Any]
    done: Callable[[Any], None]
    wanted: Callable[[], bool]


class Passwords:
    def __init__(
        self,
        *,
        cost: int,
        run: Run,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        workers: int = 1,
    ) -> None:
        self._cost = cost
        self._run = run
        self._now = now
        self._call_later = call_later
        self._workers = workers
        self._running = 0
        self._waiting = 0
        self._queues: dict[str, deque[_Job]] = {}  # in the order of their turns
        self._wrong: dict[str, tuple[int, float]] = {}  # how many in a row, and until when to rest
        self._timer_at: float | None = None
        self._decoy = b"$2b$%02d$" % cost + b"." * 53

    def check(
        self,
        user: str,
        hashed: bytes | None,
        password: str,
        done: Callable[[bool], None],
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """done(whether it is right), once; never for a check that nobody wants any more when its turn comes.
        hashed None: there is no such user, or one without a password. Raises TooManyRequests."""
        given = password.encode()
        usable = hashed is not None and _HASH.fullmatch(hashed) is not None
        right_length = len(given) <= PASSWORD_BYTES_MAX
        against = hashed if usable and hashed is not None else self._decoy
        queue = user if hashed is not None else _NOBODY

        def work() -> bool:
            import bcrypt  # in its thread, for those who have passwords

            matches = bcrypt.checkpw(given[:PASSWORD_BYTES_MAX], against)
            return matches and usable and right_length

        def finished(right: bool) -> None:
            if right:
                self._wrong.pop(queue, None)
            else:
                count = self._wrong.get(queue, (0, 0.0))[0]
                rest_s = min(REST_FIRST_S * 2 ** min(count, 10), REST_LONGEST_S)
                self._wrong[queue] = count + 1, self._now() + rest_s
            done(right)

        self._add(queue, _Job(work, finished, wanted))

    def make(self, password: str, done: Callable[[bytes], None]) -> None:
        """done(the hash). Raises PasswordTooLong, TooManyRequests."""
        given = password.encode()
        if len(given) > PASSWORD_BYTES_MAX:
            raise errors.PasswordTooLong

        def work() -> bytes:
            import bcrypt

            return bcrypt.hashpw(given, bcrypt.gensalt(self._cost))

        self._add(_MAKING, _Job(work, done, lambda: True))

    def _add(self, queue: str, job: _Job) -> None:
        jobs = self._queues.setdefault(queue, deque())
        if len(jobs) >= WAITING_PER_USER_MAX or self._waiting >= WAITING_MAX:
            raise errors.TooManyRequests
        jobs.append(job)
        self._waiting += 1
        self._go_on()

    def _go_on(self) -> None:
        while self._running < self._workers and self._waiting:
            now = self._now()
            due = [name for name in self._queues if self._rests_until(name) <= now]
            if not due:
                self._wake_at(min(self._rests_until(name) for name in self._queues))
                return
            job = self._take(due[0])
            if job.wanted():
                self._running += 1
                self._run(job.work, lambda result, job=job: self._finished(job, result))  # type: ignore[misc]

    def _take(self, queue: str) -> _Job:
        """The queue's first; the queue's next turn comes after all others'."""
        jobs = self._queues.pop(queue)
        job = jobs.popleft()
        if jobs:
            self._queues[queue] = jobs
        self._waiting -= 1
        return job

    def _finished(self, job: _Job, result: Any) -> None:
        self._running -= 1
        job.done(result)
        self._go_on()

    def _rests_until(self, queue: str) -> float:
        return self._wrong.get(queue, (0, 0.0))[1]

    def _wake_at(self, when: float) -> None:
        if self._timer_at is not None and self._timer_at <= when:
            return
        self._timer_at = when

        def wake() -> None:
            self._timer_at = None
            self._go_on()

        self._call_later(max(0.0, when - self._now()), wake)


class PasswordThread:
    """Passwords with a thread under them."""

    def __init__(self, cost: int, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="passwords")
        self.passwords = Passwords(cost=cost, run=self.run, now=loop.time, call_later=loop.call_later)

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """done(the result) on the loop, unless the thread has been closed by then."""
        future = self._executor.submit(work)

        def finished(future: Future[Any]) -> None:
            if not future.cancelled():
                self._loop.call_soon_threadsafe(lambda: done(future.result()))

        future.add_done_callback(finished)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def is_hash(hashed: bytes) -> bool:
    return _HASH.fullmatch(hashed) is not None
