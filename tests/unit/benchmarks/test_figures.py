"""What the benchmarks say of what they measured: a ratio that points the wrong way would be a lie in every table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hpack import Decoder

from benchmarks import plots, report
from benchmarks.figures import Figure, percentile
from benchmarks.raw_client import _text
from benchmarks.smoke import regressions

FASTER = Figure(
    "put", "rate", "/s", {"kvstore": [30.0, 20.0, 40.0], "etcd": [10.0, 10.0, 20.0]}, 1.0, 2.5, 4.0
)
SOONER = Figure("put", "latency", "ms", {"kvstore": [1.0, 3.0], "etcd": [4.0, 4.0]}, at_least=0.6)
ALONE = Figure("put", "ours alone", "s", {"kvstore": [1.0]})


def test_a_ratio_is_of_the_medians_and_its_spread_of_the_turns() -> None:
    assert FASTER.ratio == pytest.approx(3.0)
    assert FASTER.spread == pytest.approx((2.0, 3.0))
    assert FASTER.advantage == pytest.approx(3.0)
    assert FASTER.reached is True
    assert SOONER.ratio == pytest.approx(0.5)
    assert SOONER.advantage == pytest.approx(2.0)
    assert SOONER.reached is True
    assert [ALONE.ratio, ALONE.spread, ALONE.advantage, ALONE.reached] == [None] * 4


def test_what_is_wanted_and_not_reached_is_said() -> None:
    slower = Figure("put", "rate", "/s", FASTER.values, at_least=3.5)
    later = Figure("put", "latency", "ms", SOONER.values, at_least=0.4)
    assert slower.reached is later.reached is False
    page = report.markdown([slower, later], [], "today", 3)
    assert page.count("✗") == 2
    assert "✓" not in page


def test_figures_survive_their_file() -> None:
    assert Figure.from_json(json.loads(json.dumps(FASTER.to_json()))).ratio == FASTER.ratio


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_percentile(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == expected


def test_a_regression_is_more_than_a_fifth() -> None:
    recorded = {"a": 2.0, "b": 1.0, "c": 1.0}
    assert regressions({"a": 1.61, "b": 0.9, "c": 1.5}, recorded) == []
    assert len(regressions({"a": 1.59, "b": 0.9}, recorded)) == 2


def test_pictures_are_drawn(tmp_path: Path) -> None:
    growing = [
        Figure("range", f"of {n}", "/s", {"kvstore": [5.0 / n], "etcd": [4.0 / n]}, float(n))
        for n in (1, 10, 100)
    ]
    paths = plots.draw([*growing, SOONER, ALONE], tmp_path)
    assert [path.name for path in paths] == ["overview.svg", "range.svg"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in plots.draw([*growing, SOONER, ALONE], tmp_path)] == first


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 400, 20_000])
def test_the_raw_clients_header_text(size: int) -> None:
    ((name, value),) = Decoder().decode(b"\x00" + _text("name") + _text("v" * size), raw=True)
    assert (name, value) == (b"name", b"v" * size)
