"""How a seeded bug gets into the package, and out again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

Patches = list[tuple[Any, str, Any]]
"""(owner, attribute, what stands in its place) of everything a bug touches."""

Mutant = Callable[[], Patches]


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """The package with one bug in it."""
    patches = [patch.object(owner, name, value) for owner, name, value in mutant()]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()
