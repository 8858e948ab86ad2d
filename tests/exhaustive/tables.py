"""A number for each node state, message and history that was ever seen, and what each is called when nodes are
renamed. A global state is a short tuple of such numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.exhaustive.scopes import IDENTITY
from tests.exhaustive.snapshot import Encoded, Member, Permutation, decode_message, encode, encode_message

Budget = tuple[int, ...]
Seen = tuple[Encoded, Encoded, Encoded]  # leaders; committed; commit indices when reads were asked


class State(NamedTuple):
    """Numbers of three node states, of what the cluster has seen so far, of what is left to spend, and of the
    messages under way, ascending."""

    nodes: tuple[int, int, int]
    history: int
    budget: int
    messages: tuple[int, ...]


class Tables:
    def __init__(self, permutations: list[Permutation]) -> None:
        self.permutations = permutations
        self.node_ids: dict[Encoded, int] = {}
        self.nodes: list[Encoded] = []
        self.node_images: list[tuple[int, ...]] = []  # under each permutation
        self.orbits: list[int] = []  # the lowest of them
        self.disk_terms: list[int] = []
        self.message_ids: dict[Encoded, int] = {}
        self.messages: list[Encoded] = []
        self.message_images: list[tuple[int, ...]] = []
        self.history_ids: dict[Seen, int] = {}
        self.histories: list[Seen] = []
        self.budget_ids: dict[Budget, int] = {}
        self.budgets: list[Budget] = []

    def intern_node(self, member: Member) -> int:
        encoded = encode(member, IDENTITY)
        known = self.node_ids.get(encoded)
        if known is not None:
            return known
        images = [encode(member, p) for p in self.permutations]
        for each in images:
            if each not in self.node_ids:
                self.node_ids[each] = len(self.nodes)
                self.nodes.append(each)
                self.node_images.append(())
                self.orbits.append(-1)
                self.disk_terms.append(each[18][0])
        return self._complete(self.node_ids[encoded], [self.node_ids[each] for each in images])

    def _complete(self, number: int, images: list[int]) -> int:
        """Fills the table of images for the whole orbit at once: image r of image p is image (r after p)."""
        lowest = min(images)
        for p, image in zip(self.permutations, images, strict=True):
            if not self.node_images[image]:
                self.node_images[image] = tuple(
                    images[self.permutations.index(tuple(_before(p, r)))] for r in self.permutations
                )
                self.orbits[image] = lowest
        return number

    def intern_message(self, encoded: Encoded) -> int:
        known = self.message_ids.get(encoded)
        if known is not None:
            return known
        message = decode_message(encoded)
        images = [encode_message(message, p) for p in self.permutations]
        for each in images:
            if each not in self.message_ids:
                self.message_ids[each] = len(self.messages)
                self.messages.append(each)
                self.message_images.append(())
        numbers = [self.message_ids[each] for each in images]
        for p, image in zip(self.permutations, numbers, strict=True):
            if not self.message_images[image]:
                self.message_images[image] = tuple(
                    numbers[self.permutations.index(tuple(_before(p, r)))] for r in self.permutations
                )
        return self.message_ids[encoded]

    def intern_history(self, seen: Seen) -> int:
        number = self.history_ids.setdefault(seen, len(self.histories))
        if number == len(self.histories):
            self.histories.append(seen)
        return number

    def intern_budget(self, budget: Budget) -> int:
        number = self.budget_ids.setdefault(budget, len(self.budgets))
        if number == len(self.budgets):
            self.budgets.append(budget)
        return number

    def spend(self, number: int, what: int) -> int:
        budget = list(self.budgets[number])
        budget[what] -= 1
        return self.intern_budget(tuple(budget))

    def canonical(self, state: State) -> tuple[State, Permutation]:
        """The one that stands for all that differ from state by the names of nodes alone, and the renaming."""
        if len(self.permutations) == 1:
            return state, IDENTITY
        orbits = [self.orbits[node] for node in state.nodes]
        best: State | None = None
        chosen = IDENTITY
        for number, p in enumerate(self.permutations):
            order = [0, 0, 0]
            nodes = [0, 0, 0]
            for at, node in enumerate(state.nodes):
                order[p[at + 1] - 1] = orbits[at]
                nodes[p[at + 1] - 1] = self.node_images[node][number]
            if not order[0] <= order[1] <= order[2]:
                continue
            images = self.message_images
            renamed = State(
                (nodes[0], nodes[1], nodes[2]),
                self._renamed_history(state.history, p) if number else state.history,
                state.budget,
                tuple(sorted([images[each][number] for each in state.messages])),
            )
            if best is None or renamed < best:
                best, chosen = renamed, p
        assert best is not None
        return best, chosen

    def _renamed_history(self, number: int, p: Permutation) -> int:
        leaders, committed, reads = self.histories[number]
        return self.intern_history((tuple((term, p[node]) for term, node in leaders), committed, reads))


def _before(p: Permutation, r: Permutation) -> Iterator[int]:
    """r after p."""
    return (r[each] for each in p)
