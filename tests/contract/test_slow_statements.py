"""A statement that works for too long is stopped, and its connection serves the next one."""

from __future__ import annotations

import pytest

from headrace.db import sqlite
from headrace.db.connections import READING
from headrace.db.database import TooSlow
from headrace.db.query import Query
from tests.contract.conftest import open_on
from tests.support.databases import Database

ENDLESS = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n"


async def test_it_is_stopped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    # long enough for the statements of a start on a busy machine, which are held to it, too
    monkeypatch.setitem(READING.settings, "statement_timeout", "2s")
    monkeypatch.setattr(sqlite, "STATEMENT_SECONDS", 2.0)
    store = await open_on(database)
    try:
        reads = store
        for replanned in (False, True):
            with pytest.raises(TooSlow) as stopped:
                await reads.rows(Query(ENDLESS, [], replanned))
            assert stopped.value.status == 400
            assert [row[0] for row in await reads.rows(Query("SELECT 7", [], replanned))] == [7]
    finally:
        await store.close()
