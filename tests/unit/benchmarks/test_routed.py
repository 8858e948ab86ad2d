"""From ready to routed: rows, hops, tables and the plan, which need no program to be right."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks import ready_to_routed
from benchmarks.routed import crowd, hops, pictures, plan, proxies, tables
from benchmarks.routed.rows import Row, Spread, counted, timed

ROOT = Path(__file__).parent.parent.parent.parent
MS = 1_000_000
MARKS = hops.Marks(
    signal=10 * MS, heard=11 * MS, acknowledged=15 * MS, event=14 * MS, configured=16 * MS, answered=17 * MS
)
HUNDRED = [float(n) for n in range(1, 101)]


def test_a_spread_keeps_its_percentiles_and_its_ends() -> None:
    spread = Spread.of(list(reversed(HUNDRED)))
    assert (spread.count, spread.quantiles[0], spread.p50, spread.p99, spread.worst) == (100, 1, 51, 100, 100)
    assert Spread.of([2.0]).p99 == 2.0
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_p99_of_ours_and_the_ratio_of_the_medians_are_what_is_judged() -> None:
    samples = {"kvstore": [1.0, 1.0, 4.0], "etcd": [2.0, 2.0, 2.0]}
    assert timed("g", "h", samples, limit=4.0).reached is True
    assert timed("g", "h", samples, limit=3.9).reached is False
    assert timed("g", "h", samples, ratio_limit=0.5).reached is True
    assert timed("g", "h", samples, ratio_limit=0.49).reached is False
    assert timed("g", "h", samples, limit=4.0, ratio_limit=0.49).reached is False
    assert timed("g", "h", samples).reached is None
    assert timed("g", "h", {"etcd": [1.0]}, limit=4.0).reached is None
    assert timed("g", "h", {"kvstore": [1.0], "etcd": []}, ratio_limit=0.5).reached is None


def test_a_count_is_judged_as_it_is_and_has_no_ratio() -> None:
    assert counted("g", "failed", {"kvstore": 0, "etcd": 7}, limit=0).reached is True
    failed = counted("g", "failed", {"kvstore": 1, "etcd": 7}, limit=0)
    assert (failed.reached, failed.ratio, failed.text("etcd")) == (False, None, "7")
    memory = counted("g", "memory", {"kvstore": 50.4, "etcd": 100.8}, "MiB")
    assert (memory.ratio, memory.text("kvstore")) == (0.5, "50 MiB")


def test_texts() -> None:
    row = timed("g", "h", {"kvstore": [1.234, 1234.5]}, limit=5, ratio_limit=0.6)
    assert row.text("kvstore") == "1,234 / 1,234 ms"
    assert timed("g", "h", {"kvstore": [1.234]}).text("kvstore") == "1.23 / 1.23 ms"
    assert timed("g", "h", {"kvstore": [math.inf]}).text("kvstore") == "never / never ms"
    assert row.text("etcd") == "–"
    assert row.wanted_text() == "p99 ≤ 5 ms, ≤ 0.6 x"
    assert counted("g", "failed", {"kvstore": 0}, limit=0).wanted_text() == "≤ 0"


def test_rows_survive_their_file() -> None:
    row = timed("g", "h", {"kvstore": HUNDRED, "etcd": HUNDRED}, driver="envoy", limit=5.0, note="n")
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_moments_are_counted_from_the_signal() -> None:
    expected = {"heard": 1.0, "acknowledged": 5.0, "event": 4.0, "configured": 6.0, "answered": 7.0}
    assert MARKS.since_signal_ms() == expected


def test_an_answer_proves_that_the_proxy_was_configured() -> None:
    late = hops.Marks(**{**{name: getattr(MARKS, name) for name in MARKS.__slots__}, "configured": 18 * MS})
    assert late.since_signal_ms()["configured"] == late.since_signal_ms()["answered"] == 7.0


def test_hops_add_up_and_are_never_negative() -> None:
    assert hops.steps(MARKS.since_signal_ms()) == {
        "heard": 1.0,
        "event": 3.0,
        "configured": 2.0,
        "answered": 1.0,
    }
    crossed = hops.steps({"heard": 2.0, "event": 1.5, "configured": 3.0, "answered": 3.0})
    assert crossed == {"heard": 2.0, "event": 0.0, "configured": 1.0, "answered": 0.0}


def test_a_moment_is_that_of_the_first_line_that_says_it() -> None:
    lines = [
        "listening on 127.0.0.1:1",
        "1970-01-01T00:00:01.000000Z 0 ready: -one (revision 2)",
        "1970-01-01T00:00:02.000250Z 1 ready: +one (revision 3)",
        "1970-01-01T00:00:03.000000Z 1 ready: +one (revision 5)",
    ]
    assert hops.moment(lines, r"ready: \+one", offset_ns=MS) == 1_999_250_000
    with pytest.raises(hops.MissingMark, match="two"):
        hops.moment(lines, r"ready: \+two", offset_ns=0)


def test_the_page_has_what_is_wanted_first_and_the_parts_of_it_below() -> None:
    rows = [
        timed("ready → routed", "part", {"kvstore": [1.0]}, driver="haproxy", is_detail=True),
        timed("ready → routed", "all", {"kvstore": [4.0], "etcd": [8.0]}, driver="haproxy", limit=5.0),
        counted("outage", "failed requests", {"kvstore": 3}, driver="envoy", limit=0, note="of 10 requests"),
    ]
    page = tables.markdown(rows, [Path("x/some.svg")], "today", "2 cores", 1000)
    wanted, _, parts = page.partition("The parts of it")
    assert (
        "| ready → routed: all | haproxy | 4.00 / 4.00 ms | 8.00 / 8.00 ms | 0.50 x | p99 ≤ 5 ms ✓ |"
        in wanted
    )
    assert "| outage: failed requests (of 10 requests) | envoy | 3 | – |  | ≤ 0 ✗ |" in wanted
    assert "](performance/some.svg)" in wanted
    assert "| ready → routed: part | haproxy |" in parts
    assert "Measured today on 2 cores; 1,000 rounds" in wanted


def test_pictures_are_drawn_and_the_same_each_time(tmp_path: Path) -> None:
    rows = []
    for at, driver in enumerate(("builtin", "nginx")):
        for number, mark in enumerate(hops.MARKS):
            took = {server: [(n + number) * 100.0**at for n in HUNDRED] for server in ("kvstore", "etcd")}
            rows.append(timed("ready → routed", hops.NAMES[mark], took, driver=driver))
    paths = pictures.draw(rows, tmp_path)
    assert [path.name for path in paths] == ["ready-to-routed.svg", "ready-to-routed-hops.svg"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in pictures.draw(rows, tmp_path)] == first
    assert pictures.draw([counted("g", "failed", {"kvstore": 0})], tmp_path) == []


def test_the_plan_ends_with_what_harms_the_clusters() -> None:
    todo = plan.steps(list(reversed(plan.KINDS)), proxies.ALL, plan.Sizes(100))
    whats = [step.what for step in todo]
    assert whats[0] == "announce → event"
    assert whats[-1] == "store away"
    assert "ready → routed: grpc" in whats
    assert "dead → not routed: grpc" not in whats
    assert all(step.ticks > 0 for step in todo)
    assert [step.what for step in plan.steps(["rolling", "outage"], [proxies.Grpc], plan.Sizes(1))] == []


def test_a_smoke_run_takes_what_takes_long_of_ours_alone() -> None:
    todo = plan.steps(list(plan.KINDS), proxies.ALL, plan.SMOKE)
    beside = {step.what.partition(":")[0] for step in todo if len(step.servers) == 2}
    assert beside == {"announce → event", "ready → routed"}
    assert sum("dead" in step.what for step in todo) == 1


def test_shares() -> None:
    assert crowd.shares(10, 4) == [3, 3, 2, 2]
    assert crowd.Crowd().per_s == pytest.approx(5000 / 600)


def test_the_commands_of_the_page_are_understood() -> None:
    page = (ROOT / "docs" / "ready-to-routed.md").read_text()
    found = re.findall(
        r"^    (make ready-to-routed.*?|python -m benchmarks.*?)(?:  +\S.*)?$", page, re.MULTILINE
    )
    assert len(found) >= 5
    for command in found:
        words = shlex.split(command)
        if words[0] == "make":
            # Within `make test` it would be a sub-make, and talk of directories.
            built = ("-o", ".venv/.installed", "-o", "build/compiled/.built")
            dry = [*words, "-n", "--no-print-directory", *built]
            alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
            done = subprocess.run(dry, cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
            words = shlex.split(done.stdout.replace("\\\n", " "))
        assert words[1:3] == ["-m", "benchmarks.ready_to_routed"]
        ready_to_routed.parsed(words[3:])
