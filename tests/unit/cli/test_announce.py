"""kvctl announce: what it refuses before anything has begun, and which command is meant."""

from __future__ import annotations

import pytest

from kvstore.cli.main import main


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["announce", *words])
    out, err = capsys.readouterr()
    return status, out + err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("web --address 0.0.0.0:80", "address: '0.0.0.0:80': nobody can connect to 0.0.0.0"),
        ("web --address [::1]", "address: '[::1]' is not HOST:PORT"),
        ("web --address host", "address: 'host' is not HOST:PORT"),
        ("web --address host:70000", "'70000' is not a port from 1 to 65535"),
        ("web --address ::1:80", "write an IPv6 address in brackets, [::1]:8080"),
        ("a/b --address h:80", "service: 'a/b' is not a name"),
        ("web --address h:80 --id a/b", "id: 'a/b' is not a name"),
        ("web --address h:80 --check nope", "check 'nope' is none of: tcp, tcp:HOST:PORT, "),
        ("web --address h:80 --check grpc:h", "check 'grpc:h': 'h' is not HOST:PORT"),
        ("web --address h:80 --check tcp --watchdog 1s", "a watchdog is a matter of check 'notify'"),
        ("web --address h:80 --hold 0s", "its hold greater than 0"),
        ("web --address h:80 --interval 0s", "intervals are greater than 0"),
        ("docker --host 0.0.0.0", "nobody can connect to 0.0.0.0"),
        (
            "docker --engine /run/docker.sock",
            "'/run/docker.sock' is neither unix:///PATH nor tcp://HOST:PORT",
        ),
        ("docker --address h:80", "unknown flag: --address"),
    ],
)
def test_what_cannot_be_announced_is_refused_in_one_line(
    words: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = told(capsys, *words.split())
    assert status != 0
    first, *rest = said.splitlines()
    assert text in first
    assert all(line.startswith("Run 'kvctl announce") for line in rest)


def test_docker_right_after_announce_is_a_command_and_a_service_anywhere_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, said = told(capsys, "docker", "--help")
    assert (status, said.splitlines()[0]) == (0, "Usage: kvctl announce docker [OPTIONS]")
    status, said = told(capsys, "--address", "h:80", "docker", "--check", "nope")
    assert "check 'nope'" in said


def test_its_help_is_found_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "announce", "docker"]) == 0
    assert capsys.readouterr().out.startswith("Usage: kvctl announce docker [OPTIONS]")
