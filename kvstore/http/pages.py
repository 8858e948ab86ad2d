"""What one path outside the JSON gateway answers, without saying by which library it is served."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"

Query = Mapping[str, Sequence[str]]
"""From name to every value given for it."""


@dataclass(frozen=True)
class Page:
    body: str
    status: int = 200
    content_type: str = TEXT


PageHandler = Callable[[Query], Awaitable[Page]]


@dataclass(frozen=True)
class Route:
    """GET and HEAD of one exact path."""

    path: str
    handler: PageHandler


def json_page(value: object, status: int = 200) -> Page:
    return Page(json.dumps(value, separators=(",", ":")), status, JSON)
