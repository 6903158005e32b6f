"""A SQLite file, read and written in bulk, in a thread of its own."""

# ruff: noqa: S608  (the texts are made of constants)

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from headrace.copy.store import ROWS_AT_ONCE, Row, Rows, away
from headrace.copy.tables import Table
from headrace.database_url import SqliteURL
from headrace.db.query import Bound, Dialect
from headrace.db.sqlite import translate
from headrace.errors import Unavailable
from headrace.sqlite_wait import TellingConnection

BUSY_SECONDS = 60
CACHE_KIB = 262_144  # the pages of the indexes that a portion touches

T = TypeVar("T")


class SqliteStore:
    """See Store, Writer. `writes`: it is a target."""

    at_once = 1

    def __init__(self, url: SqliteURL, writes: bool) -> None:
        self.shown = url.shown
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-copy")
        self._path, self._writes = url.path, writes
        self._db: sqlite3.Connection | None = None

    async def rows(self, statement: Bound) -> Sequence[Row]:
        query = statement.render(Dialect.SQLITE)
        return await self._in_thread(lambda db: db.execute(query.text, query.numbered).fetchall())

    def read(self, table: Table, **values: Any) -> Rows:
        query = table.select(**values).render(Dialect.SQLITE)

        async def chunks() -> AsyncGenerator[Sequence[Row], None]:
            cursor = await self._in_thread(lambda db: db.execute(query.text, query.numbered))
            while rows := await self._in_thread(lambda _: cursor.fetchmany(ROWS_AT_ONCE)):
                yield [_with_booleans(row, table.booleans) for row in rows] if table.booleans else rows

        return Rows(chunks)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteStore]:
        await self._in_thread(lambda db: db.execute("BEGIN IMMEDIATE"))
        try:
            yield self
            await self._in_thread(lambda db: db.execute("COMMIT"))
        except BaseException:
            await asyncio.shield(self._in_thread(lambda db: db.rollback()))
            raise

    async def trust(self) -> None:
        """Nothing: a look at a parent costs little here."""

    async def put(self, table: Table, rows: Rows, fresh: bool = False) -> int:
        marks = ", ".join("?" * len(table.columns))
        text = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks}) {table.known}"
        count = 0
        async with aclosing(rows.chunks()) as chunks:
            async for chunk in chunks:
                count += await self._in_thread(lambda db, chunk=chunk: db.executemany(text, chunk).rowcount)  # type: ignore[misc]
        return count

    async def finish(self) -> None:
        """Nothing: SQLite plans without statistics."""

    async def close(self) -> None:
        if self._db is not None:
            await self._in_thread(lambda db: db.close())
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._connection()))
        except sqlite3.Error as error:
            meaning = translate(error)
            raise (away(self.shown, error) if isinstance(meaning, Unavailable) else meaning) from error

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            mode = "rw" if self._writes else "ro"
            uri = f"file:{quote(str(Path(self._path).absolute()))}?mode={mode}"
            self._db = TellingConnection(uri, self._path, BUSY_SECONDS, uri=True, isolation_level=None)
            if self._writes:
                self._db.execute("PRAGMA journal_mode = WAL").fetchone()
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA foreign_keys = ON")
                self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        return self._db


def _with_booleans(row: Row, indexes: tuple[int, ...]) -> Row:
    made = list(row)
    for index in indexes:
        made[index] = None if made[index] is None else bool(made[index])
    return made
