"""kvctl watch -i: watches, and requests for progress, as lines of stdin.

Each watch is its own stream and task. What goes wrong with a line is told, and the next is read; a line that
cannot be a command line at all ends the program, as etcdctl does it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.failures import INVALID_INPUT, CommandFailed, bad_arguments
from kvstore.cli.txn_parser import split_words

if TYPE_CHECKING:
    from kvstore.cli.output import Printer
    from kvstore.client import Client, Watch


class Session:
    def __init__(self, client: Client, printer: Printer, command: click.Command) -> None:
        """command: kvctl watch itself, which knows its flags."""
        self._client = client
        self._printer = printer
        self._command = command
        self._watches: list[Watch] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until stdin ends, which is an error, or a command of a watch fails."""
        lines = stdin_lines()
        try:
            while True:
                coming = asyncio.create_task(lines.get())
                self._tasks.add(coming)  # type: ignore[arg-type]
                while not coming.done():
                    done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                    self._tasks -= done
                    for task in done - {coming}:
                        task.result()
                self._do(coming.result())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _do(self, line: str | None) -> None:
        if line is None:
            raise CommandFailed("error reading watch request line: EOF", INVALID_INPUT)
        words = split_words(line)
        match words:
            case []:
                _complain(f"Invalid command: {line} (watch and progress supported)")
            case ["watch"] if not _named_by_environment():
                _complain(f"Invalid command {line} (command type or key is not provided)")
            case ["watch", *arguments]:
                self._watch(line, arguments)
            case ["progress", *_]:
                for watch in self._watches:
                    self._start(watch.request_progress())
            case _:
                _complain(f"Invalid command {line} (only support watch)")

    def _watch(self, line: str, arguments: list[str]) -> None:
        from kvstore.cli import watch

        try:
            with self._command.make_context("watch", arguments) as context:
                flags = context.params
        except click.NoSuchOption as unknown:
            raise bad_arguments(f"unknown flag: {unknown.option_name}") from None
        except (click.ClickException, click.exceptions.Exit) as wrong:
            raise bad_arguments(str(wrong)) from None
        if len(flags["arguments"]) == 2 and flags["prefix"]:
            _complain(f"Invalid command {line} ({watch.EXCLUSIVE})")
            return
        made = watch.open_watch(self._client, flags)
        self._watches.append(made)
        self._start(watch.follow(made, self._printer, flags["command"], progress=True))

    def _start(self, work: Any) -> None:
        self._tasks.add(asyncio.create_task(work))


def stdin_lines() -> asyncio.Queue[str | None]:
    """Lines without their ends, and None at the end of the input. A thread reads them, as stdin may be a file,
    which an event loop cannot wait for; and a daemon, without buffers that Python would want back at its exit,
    as nothing can end its read."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as source:
            rest = b""
            while data := source.read(65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    loop.call_soon_threadsafe(queue.put_nowait, line.decode("utf-8", "surrogateescape"))
            loop.call_soon_threadsafe(queue.put_nowait, None)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return queue


def _named_by_environment() -> bool:
    return any(os.environ.get(f"{prefix}_WATCH_KEY") for prefix in ("KVCTL", "ETCDCTL"))


def _complain(text: str) -> None:
    click.echo(text, err=True)
