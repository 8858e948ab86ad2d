"""Structured logs in etcd's shape: one JSON object a line (or a console line) on stderr.

    {"level":"info","ts":"2026-01-31T12:00:00.000Z","caller":"kvstore/member.py:80","msg":"…","key":value}

Lines are written by a thread of their own: a blocked pipe must not hold up the event loop, where heartbeats
run (etcd issue 22214 shows the same in Go). close() writes out what is queued.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import time
from typing import Any

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "dpanic": logging.CRITICAL,
}
_NAMES = {10: "debug", 20: "info", 30: "warn", 40: "error", 50: "fatal"}

_logger = logging.getLogger("kvstore")
_listener: logging.handlers.QueueListener | None = None


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "level": _NAMES.get(record.levelno, "info"),
            "ts": _timestamp(record.created),
            "caller": _caller(record),
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, separators=(",", ":"), ensure_ascii=False, default=str)


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        text = json.dumps(fields, ensure_ascii=False, default=str) if fields else ""
        level = _NAMES.get(record.levelno, "info")
        return f"{_timestamp(record.created)}\t{level}\t{_caller(record)}\t{record.getMessage()}\t{text}".rstrip()


def _timestamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _caller(record: logging.LogRecord) -> str:
    parts = record.pathname.replace("\\", "/").rsplit("/", 2)
    return "/".join(parts[-2:]) + f":{record.lineno}"


def configure(level: str, log_format: str) -> None:
    """Starts the writer thread. level is one of LEVELS; log_format is json or console."""
    global _listener
    close()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Console())
    lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
    enqueue = logging.handlers.QueueHandler(lines)
    _logger.handlers[:] = [enqueue]
    _logger.setLevel(LEVELS[level])
    _logger.propagate = False
    _listener = logging.handlers.QueueListener(lines, handler)
    _listener.start()


def close() -> None:
    """Writes out everything queued and ends the thread."""
    global _listener
    if _listener is not None:
        _listener.stop()
        _listener = None


def debug(message: str, **fields: Any) -> None:
    _logger.debug(message, extra={"fields": _hyphenated(fields)}, stacklevel=2)


def info(message: str, **fields: Any) -> None:
    _logger.info(message, extra={"fields": _hyphenated(fields)}, stacklevel=2)


def warn(message: str, **fields: Any) -> None:
    _logger.warning(message, extra={"fields": _hyphenated(fields)}, stacklevel=2)


def error(message: str, **fields: Any) -> None:
    _logger.error(message, extra={"fields": _hyphenated(fields)}, stacklevel=2)


def fatal(message: str, **fields: Any) -> None:
    _logger.critical(message, extra={"fields": _hyphenated(fields)}, stacklevel=2)


def _hyphenated(fields: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in fields.items()}
