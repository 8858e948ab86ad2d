"""docs/kvctl.md, made of the commands themselves: python -m kvstore.cli.reference > docs/kvctl.md

What is here by hand is only how each verb stands to etcdctl's; a verb without a word of that fails.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import click

from kvstore.cli.announce import Announce
from kvstore.cli.main import root
from kvstore.cli.options import NAMES

SAME = "same"
OURS = "-"

# Verb to (etcdctl's verb, or when it came with it; what differs).
VERSUS: dict[str, tuple[str, str]] = {
    "get": (SAME, "`--min-create-rev` and its three sisters are newer than 3.5"),
    "put": (SAME, ""),
    "del": (SAME, ""),
    "txn": (SAME, "in JSON an answer is named as by 3.5, `response_put`; 3.4 has `ResponsePut`"),
    "watch": (SAME, "resumes at another endpoint without losing or repeating a change"),
    "compaction": (SAME, ""),
    "lease grant": (SAME, ""),
    "lease revoke": (SAME, ""),
    "lease timetolive": (SAME, ""),
    "lease list": (SAME, ""),
    "lease keep-alive": (SAME, ""),
    "member list": (SAME, "`--consistency` is of 3.6"),
    "member add": (SAME, "a voter is added as a learner that gets its vote when it has caught up"),
    "member replace": (OURS, "one step; needs our own server"),
    "member promote": (SAME, ""),
    "member update": (SAME, ""),
    "member remove": (SAME, ""),
    "move-leader": (SAME, ""),
    "endpoint status": (SAME, "all servers are asked at once"),
    "endpoint health": (SAME, "all servers are asked at once"),
    "endpoint hashkv": (SAME, "all servers are asked at once"),
    "alarm list": (SAME, ""),
    "alarm disarm": (SAME, "`-w fields` without an alarm prints zeros, where etcdctl panics"),
    "auth enable": (SAME, ""),
    "auth disable": (SAME, ""),
    "auth status": ("3.5", ""),
    "user add": (SAME, "a password from stdin is the whole line, and not empty"),
    "user delete": (SAME, ""),
    "user get": (SAME, ""),
    "user list": (SAME, ""),
    "user passwd": (SAME, "as user add"),
    "user grant-role": (SAME, ""),
    "user revoke-role": (SAME, ""),
    "role add": (SAME, ""),
    "role delete": (SAME, ""),
    "role get": (SAME, ""),
    "role list": (SAME, ""),
    "role grant-permission": (SAME, "an argument too many is refused, not ignored"),
    "role revoke-permission": (SAME, "an argument too many is refused, not ignored"),
    "snapshot save": (SAME, "the bar is on stderr; the SHA-256 is checked before the file has its name"),
    "snapshot status": (SAME, "checks the SHA-256 too"),
    "snapshot restore": (
        SAME,
        "makes our data directory; `--wal-dir` is ignored; `--bump-revision` and `--mark-compacted` are of 3.6",
    ),
    "migrate": (OURS, "3.4's of that name was for v2 stores; see [backup.md](backup.md)"),
    "quota set": (OURS, "needs our own server: [quota.md](quota.md)"),
    "quota get": (OURS, ""),
    "quota list": (OURS, ""),
    "quota remove": (OURS, ""),
    "defrag": (SAME, "`--data-dir` is refused"),
    "downgrade validate": ("3.5", ""),
    "downgrade enable": ("3.5", ""),
    "downgrade cancel": ("3.5", ""),
    "lock": (SAME, "the lease ends with it; SIGTERM is passed on to the command, which has our stdin"),
    "elect": (SAME, "the lease ends with it"),
    "make-mirror": (
        SAME,
        "`--rev` and `--max-txn-ops` are of 3.6; waits out a destination that fails, says at its end where to "
        "go on, and copies what was there in transactions, not key by key",
    ),
    "check perf": (SAME, "the bar is on stderr; says so when kvctl itself could not keep up"),
    "check datascale": (SAME, "the bar is on stderr"),
    "announce": (OURS, ""),
    "announce docker": (OURS, "needs aiodocker: `pip install 'kvstore[docker]'`"),
    "services list": (OURS, "what bare `kvctl services` does"),
    "services watch": (OURS, ""),
    "drain": (OURS, ""),
    "route builtin": (OURS, ""),
    "route caddy": (OURS, ""),
    "route dns": (OURS, "needs dnspython: `pip install 'kvstore[dns]'`"),
    "route haproxy": (OURS, ""),
    "route template": (OURS, "needs Jinja2: `pip install 'kvstore[template]'`"),
    "route xds": (OURS, "needs xds-protos: `pip install 'kvstore[xds]'`"),
    "route xds-bootstrap": (OURS, ""),
    "completion": ("3.5", "click's scripts; `powershell` needs click 8.5"),
    "version": (SAME, ""),
    "options": ("3.6", ""),
    "help": (SAME, ""),
}

HEAD = """\
# kvctl

One command for a store that speaks etcd's v3 protocol, ours or etcd. Verbs, flags, output and exit status are \
etcdctl's: tests run both and compare the bytes (`tests/conformance/test_kvctl_*.py`, against etcdctl 3.5.1).

This page is made of `kvctl --help` (`make docs`).

## Output

`-w simple`, `json`, `fields`, `table` and `protobuf`, each where etcdctl has it. A format that a verb has not is \
refused with exit status 4 before anything is done; etcdctl does it first and refuses then. `--hex` prints keys and \
values as escapes, and with `-w json` the ids that `member` prints.

## Exit status

| | |
|---|---|
| 0 | done |
| 1 | the server refused it, or a flag or command that there is not |
| 2 | no connection, or a lease that is gone (`lease keep-alive`) |
| 3 | what was read from stdin makes no sense |
| 4 | a format or choice that there is not |
| 5 | the server ended the watch |
| 128 | wrong arguments |
| other | the command's own (`lock`, `announce`) |

An unknown verb under a noun (`kvctl user nosuch`) is an error; etcdctl prints help and succeeds.
"""


def page() -> str:
    verbs = list(_verbs())
    lines = [HEAD, "## Flags of every command", ""]
    lines += ["| flag | variable | |", "|---|---|---|"]
    lines += [
        f"| {_spelling(option)} | `KVCTL_{name.upper()}`, `ETCDCTL_{name.upper()}` | {_help(option)} |"
        for name, option in _common_flags()
    ]
    lines += ["", "A flag wins over its variable, `KVCTL_*` over `ETCDCTL_*`.", ""]
    lines += ["## Verbs", "", "| kvctl | etcdctl | notes |", "|---|---|---|"]
    for name, _, _ in verbs:
        theirs, notes = VERSUS[name]
        lines.append(f"| [`{name}`](#{name.replace(' ', '-')}) | {theirs} | {notes} |")
    missing = VERSUS.keys() - {name for name, _, _ in verbs}
    lines += [f"| absent | `{name}` | {VERSUS[name][1]} |" for name in sorted(missing)]
    for name, command, context in verbs:
        lines += ["", f"## {name}", "", *_section(command, context)]
    return "\n".join(lines).rstrip() + "\n"


def _verbs() -> Iterator[tuple[str, click.Command, click.Context]]:
    """In the order of the help."""

    def walk(
        command: click.Command, context: click.Context
    ) -> Iterator[tuple[str, click.Command, click.Context]]:
        if not isinstance(command, click.Group):
            yield context.command_path.removeprefix("kvctl "), command, context
            for name, reserved in (command.reserved() if isinstance(command, Announce) else {}).items():
                word = f"{context.info_name} {name}"
                yield from walk(reserved, click.Context(reserved, info_name=word, parent=context.parent))
            return
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner, click.Context(inner, info_name=name, parent=context))

    return walk(root, click.Context(root, info_name="kvctl"))


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"    {context.command_path} {pieces}".rstrip()
    yield ""
    yield " ".join((command.help or "").split())
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        yield from ("", "| flag | |", "|---|---|")
        yield from (f"| {_spelling(each)} | {_help(each)} |" for each in options)
    yield ""
    fenced = False
    for line in re.sub("\b\n?", "", command.epilog or "").splitlines():
        if line.startswith(" ") != fenced and line:
            fenced = not fenced
            yield from ("", "```sh") if fenced else ("```", "")
        yield line.removeprefix("  ") if fenced else line
    if fenced:
        yield "```"


def _common_flags() -> Iterator[tuple[str, click.Option]]:
    options = {each.name: each for each in root.params if isinstance(each, click.Option)}
    return ((name, options[name]) for name in NAMES)


def _spelling(option: click.Option) -> str:
    spellings = ", ".join(f"`{each}`" for each in [*option.opts, *option.secondary_opts])
    metavar = option.make_metavar(click.Context(root)).replace("|", "\\|")
    return spellings if option.is_flag else f"{spellings} {metavar}"


def _help(option: click.Option) -> str:
    record = option.get_help_record(click.Context(root))
    return " ".join((record[1] if record else "").replace("|", "\\|").split())


if __name__ == "__main__":
    sys.stdout.write(page())
