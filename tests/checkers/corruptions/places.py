"""What corruptions have in common: how they are listed, and how they find and change a place in a history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from tests.checkers.history import History, Operation

Corruption = Callable[[Random, History], History | None]
T = TypeVar("T")
ALL: list[Corruption] = []


def corruption(function: Corruption) -> Corruption:
    ALL.append(function)
    return function


def pick(random: Random, options: Sequence[T]) -> T | None:
    return random.choice(options) if options else None


def operations(history: History, wanted: Callable[[Operation], bool]) -> list[int]:
    return [at for at, each in enumerate(history.operations) if each.succeeded and wanted(each)]


def with_operation(history: History, at: int, operation: Operation) -> History:
    operations = list(history.operations)
    operations[at] = operation
    return replace(history, operations=operations)


def response_edited(history: History, at: int, edit: Callable[[Any], None]) -> History:
    operation = history.operations[at]
    response = type(operation.response)()
    response.CopyFrom(operation.response)
    edit(response)
    return with_operation(history, at, replace(operation, response=response))


def asks(kind: type[Any]) -> Callable[[Operation], bool]:
    return lambda operation: isinstance(operation.request, kind)
