"""What /headrace/state asks a database of itself."""

from __future__ import annotations

import asyncio

from headrace.db.database import Database as Store
from headrace.db.indexes import INDEXES, ON_POSTGRESQL, which_are_ready
from headrace.db.query import Dialect
from headrace.pages import state
from tests.support.processes import PATIENCE_SECONDS


async def test_a_database_says_how_it_is(store: Store) -> None:
    wanted = INDEXES if store.dialect is Dialect.SQLITE else ON_POSTGRESQL
    size, indexes, connected = await store.rows_of(state._SIZE(), which_are_ready(wanted), state._CONNECTED())
    assert size[0][0] > 100_000
    assert {row[0] for row in indexes} <= {index.name for index in wanted}
    async with asyncio.timeout(PATIENCE_SECONDS):  # one may be in the making
        while sum(row[1] for row in indexes) < len(wanted):
            await asyncio.sleep(0.05)
            indexes = await store.rows(which_are_ready(wanted))
    if store.dialect is Dialect.POSTGRESQL:
        assert sum(row["number"] for row in connected) >= 1
        assert all(row["since"] for row in connected if row["name"] == "headrace")
    else:
        assert connected == []
