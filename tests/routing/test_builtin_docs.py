"""docs/route-builtin.md: its commands are run as they stand, on ports of their own, and print what it says."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.demo.processes import free_ports
from tests.routing.programs import Bench, Store, bench, required, started_store, until

PAGE = Path(__file__).parent.parent.parent / "docs" / "route-builtin.md"
BLOCKS = re.compile(r"```sh\n(.*?)```\n(?:```text\n(.*?)```)?", re.DOTALL)
PORTS = ("8000", "8001", "8443", "9001", "9002")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from started_store("kvstore", tmp_path_factory.mktemp("store"))


async def run(own: Bench, folder: Path, commands: str, expected: str) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KVCTL_ENDPOINTS": own.endpoint,
        "PYTHONUNBUFFERED": "1",
    }
    for command in commands.splitlines():
        name = f"{command[:40]}..."
        if command.endswith("&"):
            words = ["bash", "-c", f"cd {folder}; exec {command.removesuffix('&')}"]
            started = await own.programs.start(name, words, environment)
            await started.wait_line("listening on|announced ")
            continue

        async def prints_it(command: str = command) -> bool:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", command),
                cwd=folder,
                env={**os.environ, **environment},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            out, _ = await process.communicate()
            return process.returncode == 0 and out.decode() == expected

        # Which of two instances answers, and when the proxy has heard of both, is not the page's to say.
        await until(f"{command} prints {expected!r}", prints_it)


async def test_the_commands_print_what_the_page_says(store: Store, tmp_path: Path) -> None:
    for program, package in (("curl", "curl"), ("openssl", "openssl")):
        required(program, package)
    text = PAGE.read_text()
    for old, new in zip(PORTS, free_ports(len(PORTS))):
        text = text.replace(old, str(new))
    blocks = BLOCKS.findall(text)
    assert len(blocks) == text.count("```sh") > 5
    async with bench("web", store.endpoint) as own:
        for commands, expected in blocks:
            await run(own, tmp_path, commands, expected)
