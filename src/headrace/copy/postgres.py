"""A PostgreSQL database, read and written in bulk: by COPY, and from one to another in its binary form, undecoded."""

# ruff: noqa: S608  (the texts are made of constants)

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg

from headrace.copy.store import ROWS_AT_ONCE, Row, Rows, away
from headrace.copy.tables import Table
from headrace.database_url import PostgresURL
from headrace.db import postgres_statistics
from headrace.db.connection_errors import FAILURES, explain
from headrace.db.connections import TOOL, Connector
from headrace.db.pool import Pool
from headrace.db.postgres import cause_of, translate
from headrace.db.query import Bound, Dialect
from headrace.errors import Unavailable

CONNECTIONS = 4
_PIECES = 16  # of up to some 10 KiB between who reads and who writes


class PostgresStore:
    """See Store."""

    at_once = 2

    def __init__(self, url: PostgresURL) -> None:
        self._url = url
        self._pool = Pool(Connector(url, TOOL).connect, CONNECTIONS)
        self._rights = Rights()
        self.shown = url.shown

    async def rows(self, statement: Bound) -> Sequence[Row]:
        async with self._connected() as connection:
            return await _fetch(connection, statement)

    def read(self, table: Table, **values: Any) -> Rows:
        query = table.select(**values).render(Dialect.POSTGRESQL)

        async def chunks() -> AsyncGenerator[Sequence[Row], None]:
            async with self._connected() as connection, connection.transaction(readonly=True):
                cursor = await connection.cursor(query.text, *query.values)
                while rows := await cursor.fetch(ROWS_AT_ONCE):
                    yield rows

        async def encoded() -> AsyncGenerator[bytes, None]:
            pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES)

            async def read() -> None:
                try:
                    async with self._connected() as connection:
                        await connection.copy_from_query(query.text, *query.values, output=pieces.put, format="binary")
                finally:
                    await pieces.put(None)

            reading = asyncio.create_task(read())
            try:
                while (piece := await pieces.get()) is not None:
                    yield piece
                await reading
            finally:
                if not reading.done():
                    reading.cancel()
                    with suppress(asyncio.CancelledError):
                        await reading

        return Rows(chunks, encoded)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresWriter]:
        async with self._connected() as connection, connection.transaction():
            yield PostgresWriter(connection, self._rights)

    async def finish(self) -> None:
        async with self._connected() as connection:
            await postgres_statistics.complete(connection)

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        with self._translated():
            async with self._pool.use(None) as connection:
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except asyncpg.InsufficientPrivilegeError as error:
            raise explain(error, self._url) from error
        except (ValueError, *FAILURES) as error:
            meaning = translate(error)
            raise (away(self.shown, cause_of(error)) if isinstance(meaning, Unavailable) else meaning) from error


class Rights:
    """What the role may: `replicates`: leave out the look at foreign keys, as pg_restore --disable-triggers does."""

    replicates = True


class PostgresWriter:
    """See Writer."""

    def __init__(self, connection: asyncpg.Connection, rights: Rights) -> None:
        self._connection, self._rights = connection, rights

    async def trust(self) -> None:
        """Saves a quarter of a point's time. A superuser may, or, since PostgreSQL 15, who was granted SET on it."""
        if self._rights.replicates:
            try:
                async with self._connection.transaction():
                    await self._connection.execute("SET LOCAL session_replication_role = replica")
            except asyncpg.InsufficientPrivilegeError:
                self._rights.replicates = False

    async def rows(self, statement: Bound) -> Sequence[Row]:
        return await _fetch(self._connection, statement)

    async def put(self, table: Table, rows: Rows, fresh: bool = False) -> int:
        if fresh:
            return await self._copy(table.name, table, rows)
        given = f"copied_{table.name}"
        await self._connection.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {given} ON COMMIT DROP AS SELECT {', '.join(table.columns)} "
            f"FROM {table.name} WITH NO DATA"
        )
        if not await self._copy(given, table, rows):
            return 0
        columns = ", ".join(table.columns)
        done = await self._connection.execute(
            f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {given} {table.known}"
        )
        await self._connection.execute(f"TRUNCATE {given}")
        return _count(done)

    async def _copy(self, name: str, table: Table, rows: Rows) -> int:
        if rows.encoded is not None:
            async with aclosing(rows.encoded()) as pieces:
                done = await self._connection.copy_to_table(name, source=pieces, columns=table.columns, format="binary")
            return _count(done)
        count = 0
        async with aclosing(rows.chunks()) as chunks:
            async for chunk in chunks:
                if chunk:
                    done = await self._connection.copy_records_to_table(name, records=chunk, columns=table.columns)
                    count += _count(done)
        return count


async def _fetch(connection: asyncpg.Connection, statement: Bound) -> Sequence[Row]:
    query = statement.render(Dialect.POSTGRESQL)
    rows: Sequence[Row] = await connection.fetch(query.text, *query.values)
    return rows


def _count(status: str) -> int:
    """Of `COPY 3` or `INSERT 0 3`."""
    return int(status.rsplit(" ", 1)[-1])
