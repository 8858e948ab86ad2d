"""Stores for the tests of this folder: this project's own, and etcd to compare."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.routing.programs import Bench, Store, bench, started_store


@pytest.fixture(scope="module", params=["kvstore", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all tests of a module, each of which uses a service of its own."""
    yield from started_store(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
async def own(store: Store, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A service named after the test, on the module's store."""
    service = request.node.name.partition("[")[0]
    async with bench(service, store.endpoint) as made:
        yield made
