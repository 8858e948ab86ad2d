"""Every flag that etcd's own help lists is taken, refused where that is said, and never unheard of."""

from __future__ import annotations

import re
import subprocess

import pytest

from kvstore.config import ConfigError, FlagError, load, read_arguments
from tests.conformance.etcd_process import program_path

REFUSED = re.compile(r"discovery.*|config-file")


def listed() -> dict[str, str]:
    """Name to default, as the help has it; etcd itself takes each of them."""
    text = subprocess.run([program_path("etcd"), "--help"], capture_output=True, text=True, timeout=20).stdout
    found = re.findall(r"^\s+--([a-z0-9-]+)(?: '(.*?)'| (\S+))?$", text, re.MULTILINE)
    return {name: quoted or plain for name, quoted, plain in found if name not in ("version", "help")}


def test_no_flag_of_etcds_is_unheard_of() -> None:
    flags = listed()
    assert len(flags) > 80
    for name, default in flags.items():
        if default in ("true", "false"):
            assert read_arguments([f"--{name}", "--name=x"]) == {name_of(name): "true", "name": "x"}, name
        elif default and not REFUSED.fullmatch(name):
            try:
                load([f"--{name}", default], {})
            except ConfigError:
                pass  # understood, and contradicting the other defaults
            except FlagError as problem:
                pytest.fail(f"--{name} {default}: {problem}")
        else:
            read_arguments([f"--{name}=x"])


def name_of(name: str) -> str:
    """What it is called here."""
    (given,) = read_arguments([f"--{name}=true"])
    return given
