"""How a command fails: one line on stderr and an exit status, etcdctl's own where it has one."""

from __future__ import annotations

ERROR = 1
BAD_CONNECTION = 2
INVALID_INPUT = 3
BAD_FEATURE = 4
INTERRUPTED = 5
BAD_ARGUMENTS = 128


class CommandFailed(Exception):
    """message is printed after "Error: "; None prints nothing, because the command has said it already."""

    def __init__(self, message: str | None, status: int = ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def bad_arguments(message: str) -> CommandFailed:
    return CommandFailed(message, BAD_ARGUMENTS)
