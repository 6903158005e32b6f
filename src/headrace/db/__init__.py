"""The database that MLflow's tables are in: the contract (base.py) and its backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.db.postgres import PostgresStore
    from headrace.db.sqlite import SqliteStore


def open_store(settings: Settings) -> PostgresStore | SqliteStore | None:
    """The store of these settings, not yet connected; None where stock alone can work on it (MySQL, a file store).

    A backend's driver is imported only where it is used.
    """
    database = settings.database
    if database is None or not settings.native:
        return None
    if database.kind == "postgresql":
        from headrace.db.postgres import PostgresStore

        return PostgresStore(
            database.render("postgresql"),
            queue_limit=settings.queue_limit,
            artifact_root=settings.default_artifact_root,
        )
    from headrace.db.sqlite import SqliteStore

    return SqliteStore(
        database.database, queue_limit=settings.queue_limit, artifact_root=settings.default_artifact_root
    )
