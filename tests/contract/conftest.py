"""One suite, each backend: a started store on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from headrace.db import open_database
from headrace.db.database import Database as Store
from headrace.settings import Settings
from tests.contract.world import World
from tests.support.databases import BACKENDS, Database, Databases


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, databases: Databases) -> Database:
    return databases.migrated(request.param)


async def open_on(database: Database, queue_limit: int = 10_000) -> Store:
    """A started store; the caller closes it."""
    store = open_database(Settings(backend_store_uri=database.uri, queue_limit=queue_limit))
    assert store is not None
    await store.start()
    return store


@pytest_asyncio.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    opened = await open_on(database)
    yield opened
    await opened.close()


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "artifacts")
