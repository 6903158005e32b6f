"""The database that MLflow's tables are in: the contract (database.py) and its backends."""

from __future__ import annotations

from headrace.db.database import Database
from headrace.settings import Settings


def open_database(settings: Settings) -> Database | None:
    """The database of these settings, not yet connected; None where stock alone can work on it (MySQL, a file store).

    A backend's driver is imported only where it is used.
    """
    database = settings.database
    if database is None or not settings.native:
        return None
    if database.kind == "postgresql":
        from headrace.db.postgres import PostgresDatabase

        return PostgresDatabase(database.render("postgresql"), queue_limit=settings.queue_limit)
    from headrace.db.sqlite import SqliteDatabase

    return SqliteDatabase(database.database, queue_limit=settings.queue_limit)
