"""The soak, for real and short: the mixed load runs on three members, and there is a slope for each of them."""

from __future__ import annotations

from benchmarks.figures import OURS
from benchmarks.soak import slopes, soak


async def test_a_mixed_load_gives_a_slope_for_each_member() -> None:
    samples = await soak(OURS, hours=600 / 3600, rate=1, virtual=True)
    assert samples.operations == 600
    found = slopes(samples)
    assert sorted(found) == [(name, kind) for name in ("m1", "m2", "m3") for kind in ("own", "resident")]
    for name in ("m1", "m2", "m3"):
        assert 0 < found[name, "own"][0] < found[name, "resident"][0]
