"""Between a command and the client: run it, say what went wrong in one line, write the answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from kvstore.cli.failures import BAD_CONNECTION, ERROR, CommandFailed
from kvstore.cli.options import Settings
from kvstore.client import Client, OutcomeUnknown
from kvstore.client.errors import ClientError, RequestTimeout, Unreachable
from kvstore.client.methods import Method, Request, Response

Result = TypeVar("Result")
WRONG_LOGIN = "etcdserver: authentication failed, invalid user ID or password"  # etcdctl never gets a client


def with_client(
    settings: Settings, action: Callable[[Client], Awaitable[Result]], *, failing: str = ""
) -> Result:
    """Runs action with a client. failing: what to say around the server's reason, as in "failed to grant
    lease (...)"."""

    if settings.debug:
        from kvstore.cli.debug import variables

        click.echo("\n".join(variables(settings)), err=True)

    async def run() -> Result:
        try:
            async with settings.client() as client:
                return await action(client)
        except UnicodeEncodeError:
            raise
        except ValueError as problem:  # an endpoint that cannot be read
            raise CommandFailed(str(problem)) from None

    try:
        return asyncio.run(run())
    except ClientError as error:
        if settings.debug:
            click.echo(f"{type(error).__name__} ({error.code.name}): {error.message}", err=True)
        text = explain(error, settings)
        status = BAD_CONNECTION if error.message == WRONG_LOGIN else ERROR
        raise CommandFailed(f"{failing} ({text})" if failing else text, status) from None


def ask(
    settings: Settings, method: Method[Request, Response], request: Request, *, write: bool = True
) -> Response:
    """One call. write: it has an effect, so it is not repeated where that would be in doubt."""

    async def do(client: Client) -> Response:
        call = client.caller.write if write else client.caller.read
        return await call(method, request)

    return with_client(settings, do)


def explain(error: ClientError, settings: Settings) -> str:
    """One line: what went wrong, where, and what to try."""
    if isinstance(error, Unreachable):
        reasons = error.reasons or {", ".join(settings.endpoints): error.message}
        if error.by_tls:
            return "; ".join(
                f"cannot connect to {endpoint}: {reason}" for endpoint, reason in reasons.items()
            )
        told = "; ".join(f"{endpoint} ({reason})" for endpoint, reason in reasons.items())
        return f"cannot reach {told}: is a server running there? --endpoints host:port names another"
    if isinstance(error, OutcomeUnknown):
        return f"{error.message}: it is unknown whether this took effect; read before repeating it"
    if isinstance(error, RequestTimeout):
        return f"no answer within {settings.command_timeout_s:g} s ({error.message}); see --command-timeout"
    return error.message or type(error).__name__


def write(data: bytes) -> None:
    """To stdout, byte for byte, at once: a watch is read through pipes."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
