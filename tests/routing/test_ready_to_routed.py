"""The benchmark from ready to routed, once with real programs: every hop is there, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.routed import hops

ROOT = Path(__file__).parent.parent.parent


def test_a_smoke_run_with_etcd_beside_it(tmp_path: Path) -> None:
    found = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.ready_to_routed", "--smoke", "--json", str(found)]
    command += ["--only", "announce", "ready", "crowd", "--drivers", "builtin"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["hop"]: row for row in json.loads(found.read_text())["rows"]}
    beside = [*hops.NAMES.values(), "announce (etcd: grant, put) → event on another member"]
    for hop in beside:
        assert set(rows[hop]["spreads"]) == {"kvstore", "etcd"}, hop
        assert rows[hop]["spreads"]["kvstore"]["quantiles"][0] > 0, hop
    assert rows["events that did not arrive"]["reached"] is True
    assert rows["announce → event at each router"]["spreads"]["kvstore"]["count"] > 0
