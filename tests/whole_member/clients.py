"""All clients of a run: started, stopped, and in the end asked whether they heard of everything."""

from __future__ import annotations

from typing import Any

from tests.checkers.history import History
from tests.whole_member.options import Options
from tests.whole_member.profiles import Traffic
from tests.whole_member.session import Script, Servers, Shared
from tests.whole_member.world import World


class Clients:
    """All sessions of a run."""

    def __init__(self, world: World, options: Options, servers: Servers, history: History) -> None:
        self.world = world
        self.options = options
        self.shared = Shared(world, options, servers, history)
        self.running = 0

    def start(self) -> None:
        for number in range(self.options.sessions):
            profile = self.options.profiles[number]
            session = Traffic(self.shared, f"c{number}-{profile}")
            self._run(getattr(session, profile)())
        if self.options.compaction_s:
            self._run(Traffic(self.shared, "compactor").compact())
        if self.options.quotas:
            self._run(Traffic(self.shared, "quotas").quota())

    def _run(self, script: Script) -> None:
        self.running += 1

        def resume(value: Any) -> None:
            try:
                waiting = script.send(value)
            except StopIteration:
                self.running -= 1
                return
            waiting(resume)

        self.world.at(self.world.random.uniform(0, 0.05), lambda: resume(None))

    def stop(self) -> None:
        """Each ends with what it is at."""
        self.shared.stopping = True

    def settle(self) -> None:
        """The end is near: no reader is slow any more."""
        for session in self.shared.streams:
            session.settle()

    def close(self) -> None:
        """Watches that are open now have heard of everything there was."""
        for session in self.shared.streams:
            session.complete()
