"""Breadth first through every state of a small world, then at random far beyond it.

Of a state that was seen only a 64-bit hash is kept, and eight bytes that say how it was reached; of the frontier,
the states themselves, packed. Two states in 5 million share a hash with a probability of about one in a million.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from tests.exhaustive.scopes import IDENTITY, Scope
from tests.exhaustive.snapshot import Permutation, decode_message
from tests.exhaustive.tables import State
from tests.exhaustive.world import Action, Violation, World
from tests.simulation.cluster import describe

TABLES_MAX = 400_000
"""Node states a walk keeps before it forgets them."""


@dataclass
class Outcome:
    scope: str
    states: int = 1
    depth: int = 0  # every state at most so many steps away was seen
    complete: bool = False  # there is nothing beyond
    node_states: int = 0
    transitions: int = 0
    seconds: float = 0.0
    walks: int = 0
    walk_steps: int = 0
    violation: str = ""
    path: list[str] = field(default_factory=list)
    levels: list[int] = field(default_factory=lambda: [1])


Report = Callable[[Outcome, int], None]
"""Is told now and then: what was seen so far, and the frontier's size."""


class Search:
    def __init__(
        self, scope: Scope, *, depth: int, states_max: int, report: Report = lambda outcome, frontier: None
    ) -> None:
        self.world = World(scope)
        self.depth = depth
        self.states_max = states_max
        self.report = report
        self.outcome = Outcome(scope.name)
        self._actions: list[Action] = []
        self._action_ids: dict[Action, int] = {}
        self._parents = array("I", [0])
        self._steps = array("I", [0])

    def run(self) -> Outcome:
        """Ends at the depth, at so many states, where there is nothing new, or at the first violation, which is
        one of the nearest there are."""
        started = time.monotonic()
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            self._breadth_first(started)
        finally:
            if was_enabled:
                gc.enable()
        self.outcome.seconds = time.monotonic() - started
        self.outcome.node_states = len(self.world.tables.nodes)
        return self.outcome

    def _breadth_first(self, started: float) -> None:
        world, outcome = self.world, self.outcome
        first = self._beginning()
        seen = {hash(first)}
        frontier, first_number = [_pack(first)], 0
        while frontier and outcome.depth < self.depth:
            following: list[bytes] = []
            for offset, packed in enumerate(frontier):
                state = _unpack(packed)
                for action in world.actions(state):
                    outcome.transitions += 1
                    try:
                        after = world.after(state, action)
                    except Violation as problem:
                        outcome.violation = str(problem)
                        outcome.path = self._path(first_number + offset, action)
                        return
                    if after is None:
                        continue
                    after, _ = world.tables.canonical(after)
                    digest = hash(after)
                    if digest in seen:
                        continue
                    seen.add(digest)
                    following.append(_pack(after))
                    self._parents.append(first_number + offset)
                    self._steps.append(self._number(action))
                    outcome.states += 1
                    if outcome.states >= self.states_max:
                        return
                if not offset & 1023:
                    outcome.seconds = time.monotonic() - started
                    self.report(outcome, len(frontier) - offset + len(following))
            first_number += len(frontier)
            frontier = following
            outcome.depth += 1
            outcome.levels.append(len(frontier))
        outcome.complete = not frontier

    def _beginning(self) -> State:
        state = self.world.initial()
        for action in self.world.prelude():
            state = self.world.after(state, action) or state
        return self.world.tables.canonical(state)[0]

    def _number(self, action: Action) -> int:
        number = self._action_ids.setdefault(action, len(self._actions))
        if number == len(self._actions):
            self._actions.append(action)
        return number

    def _path(self, number: int, last: Action) -> list[str]:
        steps = [last]
        while number:
            steps.append(self._actions[self._steps[number]])
            number = self._parents[number]
        return tell(self.world, steps[::-1])


def walk(scope: Scope, *, walks: int, depth: int, seed: int, report: Report, outcome: Outcome) -> None:
    """Random paths through a wider world of the same kind, into outcome."""
    wider = replace(
        scope,
        elected=False,
        terms=scope.terms + 9,
        entries=scope.entries + 7,
        crashes=4,
        duplicates=6,
        drops=4,
        heartbeats=30,
        changes_max=4 if scope.changes else 0,
        compactions=4 if scope.compactions else 0,
    )
    world = World(wider)
    start = time.monotonic() - outcome.seconds
    for number in range(walks):
        if len(world.tables.nodes) > TABLES_MAX:
            world.clear()
        random = Random(seed * 1_000_003 + number)
        state, steps = world.initial(), []
        for _ in range(depth):
            actions = list(world.actions(state))
            if not actions:
                break
            action = _choose(actions, random)
            steps.append(action)
            outcome.walk_steps += 1
            try:
                state = world.after(state, action) or state
            except Violation as problem:
                outcome.violation, outcome.path = str(problem), tell(world, steps, renaming=False)
                return
        outcome.walks += 1
        outcome.seconds = time.monotonic() - start
        if not number % 16:
            report(outcome, 0)


def _choose(actions: list[Action], random: Random) -> Action:
    """Kinds with equal odds, but messages oftener: else nothing gets anywhere."""
    deliveries = [action for action in actions if action.kind == "deliver"]
    if deliveries and random.random() < 0.6:
        return random.choice(deliveries)
    kind = random.choice(sorted({action.kind for action in actions}))
    return random.choice([action for action in actions if action.kind == kind])


# A path, told


def tell(world: World, steps: list[Action], *, renaming: bool = True) -> list[str]:
    """One line a step, with the names nodes had in the beginning: the search renames them on the way."""
    state = world.initial()
    names: Permutation = IDENTITY
    lines = []
    prelude = world.prelude()
    for number, action in enumerate([*prelude, *steps], 1 - len(prelude)):
        if renaming and number == 1:
            state, names = _renamed(world, state, names)
        lines.append(f"{number:3}  {_told(world, state, action, names)}")
        try:
            after = world.after(state, action)
        except Violation as problem:
            return [
                *lines,
                f"     {problem}" + ("" if names == IDENTITY else f"   (names there: {_key(names)})"),
            ]
        if after is None:
            continue
        state = after
        if renaming and number >= 1:
            state, names = _renamed(world, state, names)
    return lines


def _renamed(world: World, state: State, names: Permutation) -> tuple[State, Permutation]:
    state, p = world.tables.canonical(state)
    return state, tuple(names[p.index(each)] for each in range(len(p)))


def _key(names: Permutation) -> str:
    return ", ".join(f"n{there} is n{here} above" for there, here in enumerate(names) if there)


def _told(world: World, state: State, action: Action, names: Permutation) -> str:
    node = world.tables.nodes[state.nodes[action.node - 1]]
    name = f"n{names[action.node]}@{node[1]}"
    if action.kind in ("deliver", "duplicate", "drop"):
        message = decode_message(world.tables.messages[action.argument])
        message.sender, message.to = names[message.sender], names[message.to]
        extra = {"deliver": "", "duplicate": "  (and once more)", "drop": "  (lost)"}[action.kind]
        return f"{describe(message)}{extra}"
    argument = {
        "crash": f" with {action.argument} of {len(node[21])} writes done, and restarts",
        "change": f" {world.scope.changes[action.argument]}" if action.kind == "change" else "",
        "compact": f" to {action.argument}",
    }.get(action.kind, "")
    return f"{name} {_VERBS[action.kind]}{argument}"


_VERBS = {
    "heartbeat": "sends heartbeats",
    "propose": "proposes",
    "quorum": "has led for an election timeout",
    "change": "is asked for",
    "timeout": "hears nothing and campaigns",
    "expire": "hears nothing",
    "read": "is asked to read",
    "persist": "has written the oldest write",
    "crash": "crashes",
    "compact": "compacts",
}


def _pack(state: State) -> bytes:
    return array("I", (*state.nodes, state.history, state.budget, *state.messages)).tobytes()


def _unpack(packed: bytes) -> State:
    row = array("I", packed).tolist()
    return State((row[0], row[1], row[2]), row[3], row[4], tuple(row[5:]))
