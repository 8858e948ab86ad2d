"""docs/kvctl.md says what kvctl says."""

from __future__ import annotations

from pathlib import Path

from kvstore.cli.reference import page

ROOT = Path(__file__).parents[3]


def test_the_page_is_fresh() -> None:
    assert (ROOT / "docs" / "kvctl.md").read_text() == page(), "docs/kvctl.md is stale: run `make docs`"
