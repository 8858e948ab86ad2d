"""docs/announce.md: its commands are run as they stand, and print what it says they print."""

from __future__ import annotations

import re
from pathlib import Path

from kvstore.demo.processes import free_ports
from kvstore.readiness.instance import VERSION, Instance, encode
from tests.routing.pages import blocks, run_page
from tests.routing.programs import Store

PAGE = Path(__file__).parent.parent.parent / "docs" / "announce.md"
VARYING = re.compile(r'("(?:since|host)"): "[^"]*"')


def test_the_commands_print_what_the_page_says(tmp_path: Path) -> None:
    store = Store("kvstore", tmp_path)
    try:
        store.start()
        first, second = free_ports(2)
        ports = {"9000": str(first), "9001": str(second)}
        printed = run_page(PAGE, tmp_path, {"KVCTL_ENDPOINTS": store.endpoint}, ports, timeout_s=60.0)
    finally:
        store.kill()
    assert len(printed) == 3
    for (_, expected), output in zip(blocks(PAGE), printed, strict=True):
        assert VARYING.sub(r"\1: *", output) == VARYING.sub(r"\1: *", expected)


def test_the_page_names_every_field_of_the_stored_form() -> None:
    stored = encode(Instance(service="web", id="a", address="h:1", host="m")).decode()
    table = PAGE.read_text().partition("## What is stored")[2].partition("\n## ")[0]
    for field in re.findall(r'"(\w+)":', stored):
        assert f"`{field}`" in table
    assert f"version {VERSION} of this object" in table
