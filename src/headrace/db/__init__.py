"""The database that MLflow's tables are in: the contract (database.py) and its backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.database_url import PostgresURL, SqliteURL
from headrace.db.database import Database
from headrace.settings import Settings


def open_database(settings: Settings, of_command: bool = False) -> Database | None:
    """The database of these settings, not yet connected; None where stock alone can work on it (MySQL, a file store).

    `of_command`: somebody looks on. A backend's driver is imported only where it is used.
    """
    database = settings.database
    if not settings.native:
        return None
    if isinstance(database, PostgresURL):
        from headrace.db.postgres import PostgresDatabase

        most = settings.connections.worker
        apart = most > 2
        return PostgresDatabase(
            database,
            queue_limit=settings.queue_limit,
            readers=most - 2 if apart else most - 1,
            apart=apart,
            builds_indexes=settings.builds_indexes,
            replica=settings.replica,
        )
    assert isinstance(database, SqliteURL)
    from headrace.db.sqlite import SqliteDatabase

    return SqliteDatabase(
        database.path, queue_limit=settings.queue_limit, busy_seconds=database.timeout, of_command=of_command
    )


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Database]:
    """The database of these settings, which are `native`, for a process that does nothing else with it.

    Raises Unavailable.
    """
    database = open_database(settings, of_command=True)
    assert database is not None
    await database.connect()
    try:
        yield database
    finally:
        await database.close()
