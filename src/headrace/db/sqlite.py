"""The Database on SQLite: one connection that writes and a few that read, each in a thread of its own.

The journal is a write-ahead log with synchronous=FULL: a group is on the disk when its writes are answered. Stock
works on the same file at the same time; each waits for the other's transactions.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from headrace.db import regex, schema
from headrace.db.database import (
    STATEMENT_SECONDS,
    Database,
    Duplicate,
    GuardFailed,
    Load,
    TableChanged,
    TooComplex,
    TooSlow,
    ValueRefused,
    Write,
)
from headrace.db.group_commit import Group, GroupCommit
from headrace.db.indexes import INDEXES
from headrace.db.query import Dialect, Query, Runnable
from headrace.errors import Declined, HeadraceError, Unavailable
from headrace.sqlite_wait import TellingConnection

logger = logging.getLogger(__name__)

READERS = 4
GROUP_ROWS = 2000
# How long a transaction waits for stock's, which may hold the file for a migration or a big delete.
BUSY_SECONDS = 20
# SQLite's own are 2,000 KiB and 1,000 pages; with these a log-batch of 1,000 metrics takes 17 ms instead of 23, since a
# page of an index that many groups change is copied into the database once for all of them. A longer log than 16 MB
# saves no more and slows readers, who look in it first (runs/get: 121 us with 4 MB, 131 with 16, 196 with 64).
CACHE_KIB = 16_384
CHECKPOINT_PAGES = 4_000

# What SQLite says of https://sqlite.org/limits.html; it has no code of their own.
_BEYOND_A_LIMIT = re.compile(r"\btoo (complex|large|many|deep|long|big)\b|^at most \d+ tables|stack overflow")

T = TypeVar("T")


def translate(error: Exception) -> Exception:
    """What an error of sqlite3's means to Headrace, by SQLite's error code; one of Headrace's own is itself."""
    if isinstance(error, HeadraceError):
        return error
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_INTERRUPT":
        return TooSlow()
    if name in ("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE"):
        return Duplicate(f"it is there already: {error}")
    if str(error).startswith(("no such table", "no such column")):
        return TableChanged(f"the schema has changed: {error}")
    if isinstance(error, ValueError | OverflowError) or name in ("SQLITE_TOOBIG", "SQLITE_MISMATCH"):
        return ValueRefused(f"SQLite can't hold a value of it: {type(error).__name__}")
    if name == "SQLITE_ERROR" and _BEYOND_A_LIMIT.search(str(error)):
        return TooComplex(error)
    if name.startswith("SQLITE_BUSY"):
        return Unavailable("Another process holds SQLite's file, and has not let go of it. Try again in a moment.")
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable(f"SQLite can't be used now: {error}. Try again in a moment.")
    if isinstance(error, sqlite3.Error):
        return Declined(f"SQLite refused it: {error}")
    return error


class SqliteDatabase(Database):
    """See Database. `path` is the database file, which stock has initialised. `of_command`: somebody looks on, and is
    told when it waits for another process."""

    dialect = Dialect.SQLITE

    def __init__(
        self, path: str, *, queue_limit: int, busy_seconds: float | None = None, of_command: bool = False
    ) -> None:
        self._path = path
        self._of_command = of_command
        self._busy_seconds = BUSY_SECONDS if busy_seconds is None else busy_seconds
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._commits = GroupCommit(
            self._flush, limit=queue_limit, group_size=GROUP_ROWS, size=lambda write: write.weight()
        )
        self._changed: dict[str, str] = {}

    async def connect(self) -> None:
        """Nothing: each thread opens its own connection."""

    async def start(self) -> None:
        await self._in(self._writer, lambda db: db.execute("PRAGMA journal_mode = WAL").fetchone())
        self._changed = schema.differences(await self._in(self._readers, _columns), schema.SQLITE_TYPES)
        self._writer.submit(self._build_indexes)

    async def close(self) -> None:
        await self._commits.close()
        self._writer.shutdown()
        self._readers.shutdown()
        while self._connections:
            self._connections.pop().close()

    @property
    def changed_tables(self) -> dict[str, str]:
        return self._changed

    def load(self) -> Load:
        return Load(self._commits.waiting)

    def observe_groups(self, callback: Callable[[Group], None]) -> None:
        self._commits.observe = callback

    async def rows(self, statement: Runnable) -> Sequence[Any]:
        query = statement.render(Dialect.SQLITE)
        return await self.read(lambda db: fetch(db, query))

    async def rows_of(self, *statements: Runnable) -> list[Sequence[Any]]:
        queries = [statement.render(Dialect.SQLITE) for statement in statements]
        return await self.read(lambda db: [fetch(db, query) for query in queries])

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which reads with `fetch`, in one thread: several would pass Python's lock to one another."""
        return await self._in(self._readers, work)

    async def transact(self, statements: Sequence[Runnable]) -> list[Sequence[Any]]:
        queries = [statement.render(Dialect.SQLITE) for statement in statements]
        return await self._in(self._writer, lambda db: _transact(db, queries))

    async def change(self, guard: Runnable, *rest: Runnable) -> Sequence[Any]:
        queries = [statement.render(Dialect.SQLITE) for statement in (guard, *rest)]
        return await self._in(self._writer, lambda db: _change(db, queries))

    def submit(self, write: Write) -> Coroutine[Any, Any, Any]:
        return self._commits.submit(write)

    def _build_indexes(self) -> None:
        """In the writer's thread, before the first write that is queued behind it."""
        try:
            for index in INDEXES:
                self._connection().execute(index.create())
        except sqlite3.Error as error:
            logger.warning("Headrace's indexes can't be built: %s. Searches work without them, more slowly.", error)

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with a thread's own connection. Raises what `translate` makes of its errors."""

        def run() -> T:
            return work(self._connection())

        try:
            return await asyncio.get_running_loop().run_in_executor(threads, run)
        except Exception as error:
            raise translate(error) from error

    def _connection(self) -> sqlite3.Connection:
        """This thread's own."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = _connect(self._path, self._busy_seconds, self._of_command)
            self._connections.append(db)
        return db

    async def _flush(self, writes: Sequence[Write]) -> Sequence[Any]:
        try:
            return await self._in(self._writer, lambda db: _apply(db, writes))
        except Unavailable:
            raise
        except Exception as error:  # one of ours, too
            if len(writes) == 1:
                return [error]
            return [(await self._flush([write]))[0] for write in writes]


_running = threading.local()  # the deadline of this thread's statement, and its connection


def fetch(db: sqlite3.Connection, query: Query) -> Sequence[Any]:
    """The rows of a statement that reads. Raises sqlite3's error of an interrupt after STATEMENT_SECONDS."""
    deadline = time.monotonic() + STATEMENT_SECONDS
    _running.deadline, _running.db = deadline, db
    db.set_progress_handler(lambda: time.monotonic() > deadline, 1_000_000)
    try:
        return _execute(db, query).fetchall()
    finally:
        db.set_progress_handler(None, 0)
        _running.deadline = float("inf")


def _connect(path: str, busy_seconds: float, of_command: bool) -> sqlite3.Connection:
    # each in its own thread, and closed by the one that closes the store
    if of_command:
        db: sqlite3.Connection = TellingConnection(
            path, path, busy_seconds, isolation_level=None, check_same_thread=False
        )
    else:
        db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    db.execute("PRAGMA case_sensitive_like = ON")
    db.create_function("regexp", 2, _regexp, deterministic=True)
    db.create_aggregate("percentile_cont", 2, _Percentile)  # type: ignore[arg-type]
    return db


def _regexp(pattern: str, text: object) -> bool:
    """`text REGEXP pattern`, in a time that is linear in the text (see resources/traces/search_sql.py).

    A pattern of many states takes up to a second a row, of which SQLite counts one step: it asks for the time itself.
    """
    if time.monotonic() > getattr(_running, "deadline", float("inf")):
        _running.db.interrupt()
        return False
    return isinstance(text, str) and regex.search(pattern, text)


class _Percentile:
    """PostgreSQL's percentile_cont: the value at a fraction of the way through all in order, or between two."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._fraction = 0.0

    def step(self, value: Any, fraction: Any) -> None:
        self._fraction = fraction
        if value is not None:
            self._values.append(value)

    def finalize(self) -> float | None:
        if not self._values:
            return None
        self._values.sort()
        place = self._fraction * (len(self._values) - 1)
        low, high = self._values[int(place)], self._values[min(int(place) + 1, len(self._values) - 1)]
        return low + (place - int(place)) * (high - low)


def _execute(db: sqlite3.Connection, query: Query) -> sqlite3.Cursor:
    return db.execute(query.text, query.numbered)


def _columns(db: sqlite3.Connection) -> schema.Columns:
    return {
        table: {row["name"]: (row["type"].split("(")[0].upper(), row["pk"]) for row in rows}
        for table in schema.TABLES
        if (rows := db.execute("SELECT name, type, pk FROM pragma_table_xinfo(?)", (table,)).fetchall())
    }


def _transact(db: sqlite3.Connection, queries: Sequence[Query]) -> list[Sequence[Any]]:
    with _transaction(db):
        return [_execute(db, query).fetchall() for query in queries]


def _change(db: sqlite3.Connection, queries: Sequence[Query]) -> Sequence[Any]:
    guard, *rest = queries
    with _transaction(db):
        rows = _execute(db, guard).fetchall()
        if not rows:
            raise GuardFailed("what is changed is not there, or not in that state")
        for query in rest:
            _execute(db, query).fetchall()
    return rows


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """What is in the block is on the disk, all of it, when this ends; nothing of it where it raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _apply(db: sqlite3.Connection, writes: Sequence[Write]) -> Sequence[Any]:
    """Do a group in one transaction, which is on the disk when this returns."""
    by_class: dict[type[Write], list[int]] = {}
    for index, write in enumerate(writes):
        by_class.setdefault(type(write), []).append(index)
    outcomes: list[Any] = [None] * len(writes)
    with _transaction(db):
        for kind in sorted(by_class, key=lambda kind: kind.rank):
            indexes = by_class[kind]
            for index, outcome in zip(indexes, kind.apply_sqlite(db, [writes[i] for i in indexes]), strict=True):
                outcomes[index] = outcome
    return outcomes
