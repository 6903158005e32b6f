"""`headrace db indexes`: what Headrace adds to MLflow's tables on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from headrace.cli.output import if_broken_off
from headrace.cli.stores import with_stores
from headrace.database_url import PostgresURL
from headrace.errors import ConfigurationError
from headrace.settings import Settings

T = TypeVar("T")


@click.group()
def indexes() -> None:
    """List, build and drop Headrace's own indexes on a PostgreSQL database.

    `headrace serve` builds them after a start, in the background; on a table of metrics above 1 GB all but the one of
    histories, which stands in the place of an index of MLflow's.
    """


@indexes.command("list")
@with_stores
def show(settings: Settings) -> None:
    """Say of each index whether it is there."""
    from headrace.db import postgres_indexes
    from headrace.db.indexes import ON_POSTGRESQL

    existing = _done(settings, postgres_indexes.existing)
    for index in ON_POSTGRESQL:
        click.echo(f"{index.name} on {index}: {index.state(existing.get(index.name))}")


@indexes.command()
@with_stores
@if_broken_off("What is half built does no harm: the same command, run again, builds it.")
def build(settings: Settings) -> None:
    """Build what is missing, and wait for it; readers and writers are not kept waiting."""
    build_indexes(settings)
    click.echo("Done. `headrace db indexes list` shows what is there.")


def build_indexes(settings: Settings) -> None:
    """Build what is missing. Raises ConfigurationError, for another store than PostgreSQL, too."""
    import logging

    from headrace.db import postgres_indexes

    logging.getLogger("headrace").setLevel("INFO")
    _done(settings, postgres_indexes.build_or_fail)


@indexes.command()
@with_stores
def drop(settings: Settings) -> None:
    """Drop them all, and make MLflow's own as it was. The next start of the server builds them again."""
    from headrace.db import postgres_indexes

    _done(settings, postgres_indexes.drop)
    click.echo("Dropped.")


def _done(settings: Settings, work: Callable[[PostgresURL], Awaitable[T]]) -> T:
    """Raises ConfigurationError, in one line, where it can't be done."""
    from headrace.database import check
    from headrace.db.connection_errors import FAILURES, explain

    database = _database(settings)
    check(settings)

    async def run() -> T:
        try:
            return await work(database)
        except FAILURES as error:
            raise explain(error, database) from None

    return asyncio.run(run())


def _database(settings: Settings) -> PostgresURL:
    if not isinstance(settings.database, PostgresURL):
        raise ConfigurationError(
            "`headrace db indexes` works on PostgreSQL. On SQLite the server builds its indexes within a second of "
            "its start; other databases have none."
        )
    return settings.database
