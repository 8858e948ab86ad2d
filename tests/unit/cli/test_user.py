"""Where a new password comes from."""

from __future__ import annotations

import io

import pytest

from kvstore.cli.failures import CommandFailed
from kvstore.cli.user import new_password


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    made = io.StringIO()
    monkeypatch.setattr("sys.stdin", made)
    return made


def fill(stdin: io.StringIO, text: str) -> None:
    stdin.write(text)
    stdin.seek(0)


def test_it_is_the_first_line_blanks_and_all(stdin: io.StringIO) -> None:
    fill(stdin, "two words \r\nmore\n")
    assert new_password("alice", interactive=False) == "two words "


def test_it_is_asked_for_twice(stdin: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    fill(stdin, "secret\nsecret\n")
    assert new_password("alice", interactive=True) == "secret"
    assert capsys.readouterr().out == (
        "Password of alice: \nType password of alice again for confirmation: \n"
    )


@pytest.mark.parametrize(
    ("given", "interactive", "said"),
    [
        ("", False, "empty password"),
        ("\n", False, "empty password"),
        ("\n", True, "empty password"),
        ("one\nother\n", True, "given passwords are different"),
    ],
)
def test_what_is_refused(stdin: io.StringIO, given: str, interactive: bool, said: str) -> None:
    fill(stdin, given)
    with pytest.raises(CommandFailed, match=said) as refused:
        new_password("alice", interactive=interactive)
    assert refused.value.status == 128
