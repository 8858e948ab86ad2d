"""One engine and one image for all. Collected only where CONTAINERS is set, as `make containers` does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.containers.engine import Engine, running_engine
from tests.containers.image import build_all
from tests.routing.programs import Bench, Store, bench, started_store

collect_ignore_glob = [] if os.environ.get("CONTAINERS") else ["test_*.py"]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("a Docker engine is started as root, and CI is set", pytrace=False)
        pytest.skip("a Docker engine is started as root")
    with running_engine() as made:
        build_all(made)
        yield made


@pytest.fixture
def cleared(engine: Engine) -> Iterator[Engine]:
    """With nothing in it, afterwards again."""
    yield engine
    engine.clear()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    yield from started_store("kvstore", tmp_path_factory.mktemp("store"))


@pytest.fixture
async def own(store: Store, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A service named after the test."""
    async with bench(request.node.name.partition("[")[0], store.endpoint) as made:
        yield made
