"""The flags and variables common to all commands, and what is said about a wrong one."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from kvstore.cli.debug import variables
from kvstore.cli.failures import CommandFailed
from kvstore.cli.main import main, root
from kvstore.cli.options import DURATIONS, NAMES, SWITCHES, Settings, Verb, from_environment


def verbs() -> list[tuple[str, click.Command]]:
    """Every command that does something, by its full name."""
    found: list[tuple[str, click.Command]] = []

    def walk(command: click.Command, context: click.Context, path: tuple[str, ...]) -> None:
        if not isinstance(command, click.Group):
            found.append((" ".join(path), command))
            return
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, f"{path} lists {name} and does not have it"
            walk(inner, click.Context(inner, info_name=name, parent=context), (*path, name))

    walk(root, click.Context(root, info_name="kvctl"), ())
    return found


VERBS = verbs()


@pytest.mark.parametrize(("name", "command"), VERBS, ids=[name for name, _ in VERBS])
def test_every_verb_has_help_with_an_example(name: str, command: click.Command) -> None:
    assert isinstance(command, Verb)
    context = click.Context(command, info_name=name)
    shown = command.get_help(context)
    assert command.help, f"{name} does not say what it does"
    assert "Example" in shown
    assert f"kvctl {name.split()[0]}" in shown
    assert all(option.help or option.hidden for option in command.params if isinstance(option, click.Option))


def test_every_flag_has_its_variables() -> None:
    for name in NAMES:
        if name in SWITCHES:
            value = "false" if getattr(Settings(), name) else "true"
        else:
            value = {"endpoints": "a:1,b:2"}.get(name, "7s" if name in DURATIONS else "x")
        for prefix in ("KVCTL_", "ETCDCTL_"):
            variable = prefix + name.upper()
            assert from_environment({variable: value}) != Settings(), f"{variable} has no effect"
    both = {"ETCDCTL_WRITE_OUT": "json", "KVCTL_WRITE_OUT": "fields"}
    assert from_environment(both).write_out == "fields"
    with pytest.raises(CommandFailed, match="KVCTL_DIAL_TIMEOUT: time: invalid duration"):
        from_environment({"KVCTL_DIAL_TIMEOUT": "soon"})


def test_debug_tells_every_setting_in_etcdctls_words() -> None:
    told = variables(replace(Settings(), endpoints=("a:1", "b:2"), command_timeout_s=90.5, debug=True))
    assert [line.partition("=")[0] for line in told] == sorted(f"ETCDCTL_{name.upper()}" for name in NAMES)
    assert {"ETCDCTL_ENDPOINTS=[a:1,b:2]", "ETCDCTL_COMMAND_TIMEOUT=1m30.5s", "ETCDCTL_HEX=false"} <= set(
        told
    )
    assert {"ETCDCTL_DEBUG=true", "ETCDCTL_KEEPALIVE_TIME=2s", "ETCDCTL_WRITE_OUT=simple"} <= set(told)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gett", "a"], 'unknown command "gett" for "kvctl"; did you mean get?|kvctl'),
        (["user", "ad"], 'unknown command "ad" for "kvctl user"; did you mean add?|kvctl user'),
        (["get", "--nosuch", "a"], "unknown flag: --nosuch|kvctl get"),
        (["get", "a", "--limit"], "Option '--limit' requires an argument.|kvctl get"),
        (["get", "a", "--limit=x"], "Invalid value for '--limit': 'x' is not a valid integer.|kvctl get"),
        (
            ["get", "a", "--prefix=maybe"],
            'Invalid value: "maybe" for "--prefix": strconv.ParseBool: parsing "maybe": invalid syntax|kvctl get',
        ),
        (["help", "lease", "nosuch"], "unknown help topic 'lease nosuch'|kvctl help"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    message, _, path = said.partition("|")
    assert main(words) == 1
    assert capsys.readouterr().err == f"Error: {message}\nRun '{path} --help' for usage.\n"


def test_a_noun_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--endpoints=a:1"], ["lease"], ["help", "lease"], ["lease", "--help"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("Usage: kvctl")


def test_options_prints_the_common_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in shown for name in NAMES)
    assert "Commands:" not in shown


@pytest.mark.parametrize("write_out", ["table", "fields", "protobuf", "yaml"])
def test_a_format_that_a_verb_has_not_is_refused_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], write_out: str
) -> None:
    """No server is running here, so a call would fail in another way."""
    refused = {
        "table": ["put", "a", "b"],
        "fields": ["user", "list"],
        "protobuf": ["endpoint", "status"],
        "yaml": ["get", "a"],
    }[write_out]
    assert main(["--endpoints=127.0.0.1:1", "-w", write_out, *refused]) == 4
    reason = (
        "unsupported output format" if write_out == "yaml" else f"{write_out} not supported as output format"
    )
    assert capsys.readouterr().err == f"Error: {reason}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """The script calls kvctl with a variable, and kvctl answers it."""
    assert main(["completion", shell]) == 0
    assert f"_KVCTL_COMPLETE={shell}_complete" in capsys.readouterr().out
    for begun, expected in (
        ("lease gr", "grant"),
        ("get --min-m", "--min-mod-rev"),
        ("get a -w prot", "protobuf"),
    ):
        words = f"kvctl {begun}".split(" ")
        monkeypatch.setenv("_KVCTL_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1) if shell != "fish" else words[-1])
        with pytest.raises(SystemExit):
            main([])
        assert expected in capsys.readouterr().out
    monkeypatch.delenv("_KVCTL_COMPLETE")
    assert main(["completion", "tcsh"]) == 128


def test_a_name_that_is_no_text_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["role", "add", "a\udc80"], ["user", "get", "a\udc80"]):
        assert main(["--endpoints=127.0.0.1:1", *words]) == 128
        assert capsys.readouterr().err == "Error: 'a\\udc80' is not UTF-8, as a name has to be\n"
