"""Host names: what is known is told, and what is not is said once and holds nothing up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from kvstore.routing.xds.names import Names


async def test_a_name_nobody_knows_is_said_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Mapping[str, str]] = []
    news = asyncio.Event()

    def resolved(ip_of: Mapping[str, str]) -> None:
        told.append(ip_of)
        news.set()

    names = Names(resolved)
    names.want(["-not-a-name-.", "localhost", "a" * 64])
    async with asyncio.timeout(20.0):
        await news.wait()
    assert told[0]["localhost"] in ("127.0.0.1", "::1")
    names.want([])
    await names.close()
    assert "localhost" not in " ".join(record.getMessage() for record in caplog.records)
