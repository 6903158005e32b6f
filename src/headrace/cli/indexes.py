"""`headrace db indexes`: what Headrace adds to MLflow's tables on PostgreSQL. The server builds it by itself."""

from __future__ import annotations

import asyncio

import click

from headrace.cli.stores import with_stores
from headrace.errors import ConfigurationError
from headrace.settings import Settings


@click.group()
def indexes() -> None:
    """List, build and drop Headrace's own indexes on a PostgreSQL database.

    `headrace serve` builds them after a start, in the background.
    """


@indexes.command("list")
@with_stores
def show(settings: Settings) -> None:
    """Say of each index whether it is there."""
    from headrace.db import postgres_indexes
    from headrace.db.indexes import INDEXES

    existing = asyncio.run(postgres_indexes.existing(_dsn(settings)))
    for index in INDEXES:
        state = {True: "ready", False: "half built: build it again", None: "missing"}[existing.get(index.name)]
        click.echo(f"{index.name} on {index.table} ({index.columns}): {state}")


@indexes.command()
@with_stores
def build(settings: Settings) -> None:
    """Build what is missing, and wait for it; readers and writers are not kept waiting."""
    build_indexes(settings)
    click.echo("Done. `headrace db indexes list` shows what is there.")


def build_indexes(settings: Settings) -> None:
    """Build what is missing. Raises ConfigurationError for another store than PostgreSQL."""
    from headrace.db import postgres_indexes

    asyncio.run(postgres_indexes.build(_dsn(settings), wait=True))


@indexes.command()
@with_stores
def drop(settings: Settings) -> None:
    """Drop them all. The next start of the server builds them again."""
    from headrace.db import postgres_indexes

    asyncio.run(postgres_indexes.drop(_dsn(settings)))
    click.echo("Dropped.")


def _dsn(settings: Settings) -> str:
    if settings.database is None or settings.database.kind != "postgresql":
        raise ConfigurationError(
            "`headrace db indexes` works on PostgreSQL. On SQLite the server builds its indexes within a second of "
            "its start; other databases have none."
        )
    return settings.database.render("postgresql")
