"""The flags every command takes, before or after its name, and the settings they amount to.

A flag beats its variable, KVCTL_* beats ETCDCTL_*. click reads them; nothing here imports the client until a
command asks for one, because kvctl's start is mostly imports.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.failures import BAD_ARGUMENTS, BAD_FEATURE, CommandFailed
from kvstore.cli.text import parse_bool, parse_duration_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvstore.cli.output import Printer
    from kvstore.client import Client, Tls

SHORTEST_KEEPALIVE_S = 10.0  # as in every Go client; servers end connections that ping much oftener
DURATIONS = ("command_timeout", "dial_timeout", "keepalive_time", "keepalive_timeout")
FORMATS = ("simple", "json", "fields", "table", "protobuf")


@dataclass(frozen=True)
class Settings:
    """What the flags and the environment say. ctx.obj of every command."""

    endpoints: tuple[str, ...] = ("127.0.0.1:2379",)
    discovery_srv: str = ""
    discovery_srv_name: str = ""
    insecure_discovery: bool = True
    command_timeout_s: float = 5.0
    dial_timeout_s: float = 2.0
    keepalive_time_s: float = 2.0
    keepalive_timeout_s: float = 6.0
    write_out: str = "simple"
    hex: bool = False
    debug: bool = False
    cacert: str = ""
    cert: str = ""
    key: str = ""
    insecure_skip_tls_verify: bool = False
    insecure_transport: bool = True
    user: str = ""  # name, or name:password
    password: str = ""

    def client(self) -> Client:
        """Endpoints in the order given, and no waiting for endpoints that refuse the connection."""
        from kvstore.client import Client

        name, password = self.login()
        return Client(
            self.endpoints,
            user=name,
            password=password,
            timeout_s=self.command_timeout_s,
            dial_timeout_s=self.dial_timeout_s,
            keepalive_s=max(self.keepalive_time_s, SHORTEST_KEEPALIVE_S),
            keepalive_timeout_s=self.keepalive_timeout_s,
            wait_for_endpoints=False,
            shuffle=False,
            tls=self.tls(),
        )

    def login(self) -> tuple[str, str]:
        """(name, password), both "" without --user. A password that is not given is asked for, as etcdctl does:
        with --password all of --user is the name."""
        if not self.user:
            return "", ""
        if self.password:
            return self.user, self.password
        name, colon, password = self.user.partition(":")
        if not colon:
            if not sys.stdin.isatty():
                raise CommandFailed(
                    f"no password for user {name}: --user {name}:PASSWORD or --password", BAD_ARGUMENTS
                )
            password = getpass.getpass("Password: ")
        return name, password

    def printer(self, *, table: bool = False, fields: bool = True, protobuf: bool = True) -> Printer:
        """Of which formats the command's answer has. Refusing comes before anything is done."""
        from kvstore.cli.output import printer

        if self.write_out not in FORMATS:
            raise CommandFailed("unsupported output format", BAD_FEATURE)
        if not {"table": table, "fields": fields, "protobuf": protobuf}.get(self.write_out, True):
            raise CommandFailed(f"{self.write_out} not supported as output format", BAD_FEATURE)
        return printer(self.write_out, hex_strings=self.hex)

    def tls(self) -> Tls | None:
        """For endpoints without a scheme any of these flags means TLS, but for --insecure-skip-tls-verify."""
        from kvstore.client import Tls

        given = self.cacert or self.cert or self.key or not self.insecure_transport
        if not given and not (self.insecure_skip_tls_verify and "https://" in ",".join(self.endpoints)):
            return None
        return Tls(self.cacert, self.cert, self.key, self.insecure_skip_tls_verify)


def one_of(*words: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What a shell offers for a flag that takes one of these; the command itself says what is wrong."""
    return lambda context, parameter, begun: [word for word in words if word.startswith(begun)]


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration_s(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


def _flags() -> list[click.Option]:
    """Options without defaults: None means that neither a flag nor a variable was given here."""
    made = [
        click.Option(
            ["--endpoints"],
            metavar="LIST",
            multiple=True,
            help="Servers, host:port, with commas between.  [default: 127.0.0.1:2379]",
        ),
        click.Option(
            ["-d", "--discovery-srv"],
            metavar="DOMAIN",
            help="Take the endpoints from this domain's SRV records.",
        ),
        click.Option(["--discovery-srv-name"], metavar="NAME", help="Of these, the records for NAME."),
        click.Option(
            ["--insecure-discovery"],
            is_flag=True,
            default=None,
            help="Of these, also those without TLS; =false leaves them out.  [default: true]",
        ),
        click.Option(
            ["--command-timeout"], type=Duration(), help="Limit for one short command.  [default: 5s]"
        ),
        click.Option(["--dial-timeout"], type=Duration(), help="Limit for one connection.  [default: 2s]"),
        click.Option(
            ["--keepalive-time"],
            type=Duration(),
            help="Between pings on a quiet connection, 10s at least.  [default: 2s]",
        ),
        click.Option(
            ["--keepalive-timeout"],
            type=Duration(),
            help="Without an answer to a ping for so long, it is lost.  [default: 6s]",
        ),
        click.Option(
            ["-w", "--write-out"],
            metavar="FORMAT",
            shell_complete=one_of(*FORMATS),
            help="simple, json, fields, table or protobuf.  [default: simple]",
        ),
        click.Option(["--hex"], is_flag=True, default=None, help="Print keys and values as \\x.. escapes."),
        click.Option(["--debug"], is_flag=True, default=None, help="Say more when something fails."),
        click.Option(["--cacert"], metavar="FILE", help="Trust servers certified by this CA."),
        click.Option(["--cert"], metavar="FILE", help="Certificate to show to the server."),
        click.Option(["--key"], metavar="FILE", help="Private key of --cert."),
        click.Option(
            ["--insecure-skip-tls-verify"],
            is_flag=True,
            default=None,
            help="Take whoever answers for the server: only to try things out.",
        ),
        click.Option(
            ["--insecure-transport"],
            is_flag=True,
            default=None,
            help="=false: TLS for endpoints without a scheme.  [default: true]",
        ),
        click.Option(["--user"], metavar="NAME[:PASSWORD]", help="Who to be; the password is asked for."),
        click.Option(
            ["--password"], metavar="PASSWORD", help="The user's password; --user is all name then."
        ),
    ]
    return made


NAMES = tuple(option.name or "" for option in _flags())
SWITCHES = {option.name for option in _flags() if option.is_flag}


class _Flagged:
    """Adds the common flags to a click command, and Go's way of writing them (--flag=true)."""

    params: list[click.Parameter]

    def add_flags(self, *, hidden: bool) -> None:
        flags = _flags()
        for flag in flags:
            flag.hidden = flag.hidden or hidden
        self.params = [*self.params, *flags]

    def plain(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """(arguments, names): --flag=true made --flag, as click knows flags only bare; and the parameters of
        the flags that were given as --flag=false, which click has no word for."""
        switches = {
            spelling: param.name or ""
            for param in self.params
            if isinstance(param, click.Option) and param.is_flag
            for spelling in param.opts
        }
        kept: list[str] = []
        denied: list[str] = []
        for position, argument in enumerate(arguments):
            if argument == "--":
                kept += arguments[position:]
                break
            spelling, equals, value = argument.partition("=")
            if not equals or spelling not in switches:
                kept.append(argument)
                continue
            try:
                (kept if parse_bool(value) else denied).append(spelling)
            except ValueError as problem:
                raise click.BadParameter(f'"{value}" for "{spelling}": {problem}') from None
        return kept, [switches[spelling] for spelling in denied]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            kept, denied = self.plain(args)
            rest: list[str] = super().parse_args(ctx, kept)  # type: ignore[misc]
        except click.UsageError as wrong:
            wrong.ctx = wrong.ctx or ctx  # whose --help is the way out
            raise
        ctx.params.update(dict.fromkeys(denied, False))
        merge(ctx)
        return rest


def merge(ctx: click.Context) -> None:
    """Takes the common flags out of the command's parameters and into its settings."""
    given = {name: ctx.params.pop(name, None) for name in NAMES}
    settings = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
    changes: dict[str, Any] = {name: value for name, value in given.items() if value not in (None, ())}
    if "endpoints" in changes:
        words = [word.strip() for text in changes["endpoints"] for word in text.split(",")]
        changes["endpoints"] = tuple(word for word in words if word)
    for name in DURATIONS:
        if name in changes:
            changes[name + "_s"] = changes.pop(name)
    ctx.obj = replace(settings, **changes)


class Verb(_Flagged, click.Command):
    """A command that also takes the common flags. Its callback finds them in ctx.obj."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.add_flags(hidden=True)

    def invoke(self, ctx: click.Context) -> Any:
        settings = ctx.obj
        if isinstance(settings, Settings) and settings.discovery_srv:
            from kvstore.cli.discovery import discover

            found = discover(
                settings.discovery_srv, settings.discovery_srv_name, insecure=settings.insecure_discovery
            )
            ctx.obj = replace(settings, endpoints=found or settings.endpoints)
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _tell_of_common_flags(formatter)


class Noun(_Flagged, click.Group):
    """A group of verbs that also takes the common flags."""

    command_class = Verb
    shows_flags = False

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **{"invoke_without_command": True, **keywords})
        self.add_flags(hidden=not self.shows_flags)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f'unknown command "{args[0]}" for "{ctx.command_path}"{hint}', ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())
        return result

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if not self.shows_flags:
            _tell_of_common_flags(formatter)


def _tell_of_common_flags(formatter: click.HelpFormatter) -> None:
    formatter.write_paragraph()
    formatter.write_text("--endpoints, --write-out and the other flags of all commands: kvctl --help")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings before any flag. Raises CommandFailed for a value that cannot be read."""
    changes: dict[str, Any] = {}
    for name in NAMES:
        variable = next(
            (
                prefix + name.upper()
                for prefix in ("KVCTL_", "ETCDCTL_")
                if environment.get(prefix + name.upper())
            ),
            None,
        )
        if variable is None:
            continue
        value = environment[variable]
        try:
            if name == "endpoints":
                changes[name] = tuple(word.strip() for word in value.split(",") if word.strip())
            elif name in DURATIONS:
                changes[name + "_s"] = parse_duration_s(value)
            elif name in SWITCHES:
                changes[name] = parse_bool(value)
            else:
                changes[name] = value
        except ValueError as problem:
            raise CommandFailed(f"{variable}: {problem}") from None
    return Settings(**changes)
