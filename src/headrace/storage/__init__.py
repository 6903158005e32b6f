"""Where runs are kept: the Store contract (base.py) and its backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.storage.accounts import Accounts

if TYPE_CHECKING:
    from headrace.storage.postgres import PostgresStore
    from headrace.storage.sqlite import SqliteStore


def open_store(settings: Settings) -> PostgresStore | SqliteStore | None:
    """The store of these settings, not yet connected; None where stock alone can work on it (MySQL, a file store).

    A backend's driver is imported only where it is used.
    """
    database = settings.database
    if database is None or not settings.native:
        return None
    if database.kind == "postgresql":
        from headrace.storage.postgres import PostgresStore

        return PostgresStore(
            database.render("postgresql"),
            queue_limit=settings.queue_limit,
            artifact_root=settings.default_artifact_root,
        )
    from headrace.storage.sqlite import SqliteStore

    return SqliteStore(
        database.database, queue_limit=settings.queue_limit, artifact_root=settings.default_artifact_root
    )


def accounts_of(store: PostgresStore | SqliteStore | None) -> Accounts:
    """The users and tokens in the database of a store, which is not None where `Settings.protected`."""
    assert store is not None
    return Accounts(store)


@asynccontextmanager
async def opened_accounts(settings: Settings) -> AsyncIterator[Accounts]:
    """The users and tokens of these settings' database, for a process that does nothing else with it.

    Raises ConfigurationError, Unavailable.
    """
    store = open_store(settings)
    if store is None:
        raise ConfigurationError("Users are kept on PostgreSQL or SQLite. Look at --backend-store-uri.")
    await store.connect()
    try:
        yield Accounts(store)
    finally:
        await store.close()
