"""kvctl's TLS flags: what they amount to, and one line for each mistake."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kvstore.cli.main import main
from kvstore.cli.options import Noun, Settings, Verb, from_environment
from kvstore.client import Tls


def settings_of(*flags: str, environment: dict[str, str] | None = None) -> Settings:
    found: list[Settings] = []

    @click.command(cls=Verb)
    @click.pass_obj
    def verb(settings: Settings) -> None:
        found.append(settings)

    root = Noun("root", commands=[verb])
    done = CliRunner().invoke(root, ["verb", *flags], obj=from_environment(environment or {}))
    assert done.exit_code == 0, done.output
    return found[0]


@pytest.mark.parametrize(
    ("flags", "tls"),
    [
        ([], None),
        (["--insecure-transport"], None),
        (["--insecure-transport=false"], Tls()),
        (["--cacert", "ca"], Tls("ca")),
        (["--cert", "c", "--key", "k"], Tls("", "c", "k")),
        (["--cacert", "ca", "--insecure-skip-tls-verify"], Tls("ca", insecure_skip_verify=True)),
        (["--insecure-skip-tls-verify"], None),  # as etcdctl: by itself it makes TLS of nothing
        (["--insecure-skip-tls-verify", "--endpoints=https://h:1"], Tls(insecure_skip_verify=True)),
    ],
)
def test_what_the_flags_amount_to(flags: list[str], tls: Tls | None) -> None:
    assert settings_of(*flags).tls() == tls


def test_variables() -> None:
    environment = {"ETCDCTL_CACERT": "e", "KVCTL_CACERT": "k", "ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "true"}
    assert settings_of(environment=environment).tls() == Tls("k", insecure_skip_verify=True)
    off = {"ETCDCTL_INSECURE_TRANSPORT": "false"}
    assert settings_of(environment=off).tls() == Tls()
    assert settings_of("--cacert=f", environment=environment).cacert == "f"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--cacert", "{}/nowhere"], "Error: open {}/nowhere: no such file or directory"),
        (["--cert", "{}/c"], "Error: KeyFile and CertFile must both be present[key: , cert: {}/c]"),
        (["--cacert", "{}/empty"], "Error: cannot use {}/empty as CA: it has no certificate in PEM"),
    ],
)
def test_a_mistake_is_one_line(
    flags: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    words = [word.format(tmp_path) for word in flags]
    assert main(["--endpoints", "https://127.0.0.1:1", *words, "get", "a"]) == 1
    assert capsys.readouterr().err.strip() == line.format(tmp_path)
