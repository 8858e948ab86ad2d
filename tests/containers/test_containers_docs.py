"""docs/containers.md: its commands are run as they stand, and print what it says they print."""

from __future__ import annotations

import re
from pathlib import Path

from kvstore.demo.processes import free_ports
from kvstore.readiness.docker_labels import NAMES
from tests.containers.engine import Engine
from tests.containers.image import ROOT
from tests.routing.pages import blocks, run_page

PAGE = ROOT / "docs" / "containers.md"
ID = re.compile(r"^[0-9a-f]{64}\n", re.MULTILINE)


def test_the_commands_print_what_the_page_says(cleared: Engine, tmp_path: Path) -> None:
    client, web = free_ports(2)
    # The port of the store on this machine is another than in its container, which is the same in the page.
    environment = {**cleared.environment, "KVCTL_ENDPOINTS": f"127.0.0.1:{client}"}
    ports = {"127.0.0.1:2379": f"127.0.0.1:{client}", "8081": str(web)}
    printed = run_page(PAGE, tmp_path, environment, ports, timeout_s=180.0)
    assert len(printed) == 3
    for (_, expected), output in zip(blocks(PAGE), printed, strict=True):
        assert ID.sub("", output) == expected


def test_the_page_has_every_label() -> None:
    assert set(NAMES) <= set(re.findall(r"`(kvstore\.[a-z]+)`", PAGE.read_text()))
