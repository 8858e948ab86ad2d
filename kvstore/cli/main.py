"""kvctl: the root command. Commands are imported when they are called, not before.

Every failure ends here as one line on stderr and an exit status.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

import click

from kvstore.cli import failures
from kvstore.cli.failures import CommandFailed
from kvstore.cli.options import Noun, Verb, from_environment

# Name to (module, help in the list of commands). The module's attribute is the name, `-` as `_`.
COMMANDS: dict[str, tuple[str, str]] = {
    "get": ("kvstore.cli.kv", "Read a key or a range of keys"),
    "put": ("kvstore.cli.kv", "Write a key"),
    "del": ("kvstore.cli.kv", "Delete a key or a range of keys"),
    "txn": ("kvstore.cli.txn", "Compare, and do several things as one"),
    "watch": ("kvstore.cli.watch", "Follow the changes of keys"),
    "compaction": ("kvstore.cli.kv", "Give up history before a revision"),
    "lease": ("kvstore.cli.lease", "Leases: grant, revoke, timetolive, list, keep-alive"),
    "member": ("kvstore.cli.member", "Members: list, add, replace, promote, update, remove"),
    "move-leader": ("kvstore.cli.member", "Hand leadership over to a member"),
    "endpoint": ("kvstore.cli.cluster", "Servers one by one: status, health, hashkv"),
    "snapshot": ("kvstore.cli.snapshot", "Snapshots: save, status, restore"),
    "migrate": ("kvstore.cli.migrate", "Move in from etcd: from a snapshot, or from a running cluster"),
    "alarm": ("kvstore.cli.cluster", "Alarms: list, disarm"),
    "auth": ("kvstore.cli.auth", "Authentication: enable, disable, status"),
    "user": ("kvstore.cli.user", "Users: add, delete, get, list, passwd, grant-role, revoke-role"),
    "role": ("kvstore.cli.role", "Roles: add, delete, get, list, grant-permission, revoke-permission"),
    "quota": ("kvstore.cli.quota", "Quotas on prefixes: set, get, list, remove"),
    "defrag": ("kvstore.cli.cluster", "Have servers give back the space they do not use"),
    "downgrade": ("kvstore.cli.downgrade", "Downgrades: validate, enable, cancel"),
    "lock": ("kvstore.cli.lock", "Hold a lock, or run a command that holds it"),
    "elect": ("kvstore.cli.lock", "Take part in an election, or follow it"),
    "make-mirror": ("kvstore.cli.mirror", "Copy keys to another cluster, and follow their changes"),
    "check": ("kvstore.cli.check", "Is the cluster fit for a load: perf, datascale"),
    "announce": ("kvstore.cli.announce", "Tell the store that this instance is ready"),
    "services": ("kvstore.cli.services", "Who is announced: list, watch"),
    "drain": ("kvstore.cli.services", "Give an instance nothing new to do"),
    "route": ("kvstore.cli.route", "Send traffic to the instances that are ready"),
    "completion": ("kvstore.cli.completion", "The script that completes commands in a shell"),
}
OWN = {"version": "Print the version", "options": "Print the flags of all commands", "help": "Print help"}
ATTRIBUTES = {"del": "delete", "move-leader": "move_leader", "make-mirror": "make_mirror"}


class Root(Noun):
    """Finds commands by name, and shows their help without importing them."""

    shows_flags = True

    def list_commands(self, ctx: click.Context) -> list[str]:
        there = [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module)]
        return [*there, *OWN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = COMMANDS[cmd_name][0]
        if importlib.util.find_spec(module) is None:
            return None
        found = getattr(importlib.import_module(module), ATTRIBUTES.get(cmd_name, cmd_name))
        assert isinstance(found, click.Command), f"{module} has no command {cmd_name}"
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, COMMANDS[name][1]) for name in self.list_commands(ctx) if name in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl([*rows, *OWN.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = from_environment(os.environ)
        return super().parse_args(ctx, args)


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="\b\nExamples:\n  kvctl put greeting hello\n  kvctl get greeting\n  kvctl watch services/ --prefix",
    subcommand_metavar="COMMAND [ARGUMENTS]...",
)
def root() -> None:
    """Read, write and watch a store that speaks etcd's v3 protocol.

    The commands, their flags and their output are etcdctl's. Every flag below may also follow the command,
    and has a variable: KVCTL_ENDPOINTS, or ETCDCTL_ENDPOINTS.
    """


@root.command("version", cls=Verb, epilog="\b\nExample:\n  kvctl version")
def version() -> None:
    """Print the version of kvctl, and of the API it speaks."""
    from kvstore.version import CLUSTER_VERSION, VERSION

    click.echo(f"kvctl version: {VERSION}\nAPI version: {CLUSTER_VERSION.rpartition('.')[0]}")


@root.command("options", cls=Verb, epilog="\b\nExample:\n  kvctl options")
@click.pass_context
def options(context: click.Context) -> None:
    """Print the flags that every command takes."""
    parent = context.find_root()
    formatter = parent.make_formatter()
    root.format_options(parent, formatter)
    click.echo(formatter.getvalue().partition("\nCommands:")[0].rstrip())


@root.command("help", cls=Verb, epilog="\b\nExample:\n  kvctl help lease grant")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of a command."""
    inner: click.Context = context.find_root()
    for word in words:
        command = inner.command
        reserved: dict[str, click.Command] = getattr(command, "reserved", dict)()
        if word in reserved:
            name = f"{inner.info_name} {word}"
            inner = click.Context(reserved[word], info_name=name, parent=inner.parent)
            continue
        found = command.get_command(inner, word) if isinstance(command, click.Group) else None
        if found is None:
            raise click.UsageError(f"unknown help topic {' '.join(words)!r}")
        inner = click.Context(found, info_name=word, parent=inner)
    click.echo(inner.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" not in words:  # where grpcio is loaded it writes lines of its own; ours say it once
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        status = root.main(words, prog_name="kvctl", standalone_mode=False)
    except CommandFailed as failed:
        if failed.message is not None:
            click.echo(f"Error: {failed.message}", err=True)
        return failed.status
    except click.NoSuchOption as unknown:
        _complain(unknown, f"unknown flag: {unknown.option_name}")
        return failures.ERROR
    except click.ClickException as wrong:
        _complain(wrong, wrong.format_message())
        return failures.ERROR
    except UnicodeEncodeError as wrong_name:  # keys are bytes; names of users, roles and members are text
        click.echo(f"Error: {wrong_name.object!a} is not UTF-8, as a name has to be", err=True)
        return failures.BAD_ARGUMENTS
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader has left (kvctl get | head). Nothing more can be said to it, at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.ERROR
    return status if isinstance(status, int) else 0


def _complain(wrong: click.ClickException, message: str) -> None:
    context = getattr(wrong, "ctx", None)
    path = context.command_path if isinstance(context, click.Context) else "kvctl"
    click.echo(f"Error: {message}\nRun '{path} --help' for usage.", err=True)


if __name__ == "__main__":
    sys.exit(main())
