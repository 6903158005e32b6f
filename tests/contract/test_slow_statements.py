"""A statement that works for too long is stopped, and its connection serves the next one."""

from __future__ import annotations

import time

import pytest

from headrace.db import sqlite
from headrace.db.connections import READING
from headrace.db.database import TooSlow
from headrace.db.query import Query
from tests.contract.conftest import open_on
from tests.support.databases import Database

ENDLESS = {
    "postgresql": "SELECT pg_sleep(600)",
    "sqlite": "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n",
}


async def test_it_is_stopped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    # long enough for the statements of a start on a busy machine, which are held to it, too
    monkeypatch.setitem(READING.settings, "statement_timeout", "2s")
    monkeypatch.setattr(sqlite, "STATEMENT_SECONDS", 2.0)
    store = await open_on(database)
    try:
        reads = store
        for replanned in (False, True):
            with pytest.raises(TooSlow) as stopped:
                await reads.rows(Query(ENDLESS[database.backend], [], replanned))
            assert stopped.value.status == 400
            assert [row[0] for row in await reads.rows(Query("SELECT 7", [], replanned))] == [7]
    finally:
        await store.close()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # PostgreSQL stops its matches by itself
async def test_costly_patterns_on_sqlite_are_stopped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite counts a match as one step, however long it takes."""
    matches = 0

    def slow(pattern: str, text: str) -> bool:
        nonlocal matches
        matches += 1
        time.sleep(0.01)
        return False

    monkeypatch.setattr("headrace.db.regex.search", slow)
    monkeypatch.setattr(sqlite, "STATEMENT_SECONDS", 1.0)
    rows = "WITH RECURSIVE n AS (SELECT 'a' t, 1 i UNION ALL SELECT 'a', i + 1 FROM n WHERE i < 2000) SELECT t FROM n"
    store = await open_on(database)
    try:
        with pytest.raises(TooSlow):
            await store.rows(Query(f"{rows} WHERE t REGEXP 'b' || i", [], False))
        assert 0 < matches < 1000
        assert [row[0] for row in await store.rows(Query("SELECT 7", [], False))] == [7]
    finally:
        await store.close()
