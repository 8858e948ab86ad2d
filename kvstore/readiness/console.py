"""How the long-running tools talk: one line per event on stderr, with the time to the microsecond.

    2026-01-31T12:00:00.123456Z announced demo/web-1 at 127.0.0.1:8081 (ready), revision 12

The time is taken when the event happens, so that a reader on the same machine can measure from line to line.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (.*)")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = super().format(record)
        moment = datetime.fromtimestamp(record.created, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z {level}{text}"


def configure(verbose: bool = False) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("kvstore").setLevel(logging.DEBUG if verbose else logging.INFO)


def parse_line(line: str) -> tuple[float, str] | None:
    """(Unix time in seconds, text) of a line written here; None for any other."""
    match = _LINE.match(line)
    if match is None:
        return None
    return datetime.fromisoformat(match[1]).timestamp(), match[2]
