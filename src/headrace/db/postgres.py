"""The Database on PostgreSQL, by asyncpg.

Reads and changes take a connection from a pool; submitted writes go through one connection of their own, a group at a
time, and those of traces through another one. A group of one class that is one statement takes one round trip and one
commit. Everything in a group may be done twice without harm: after a deadlock or a lost connection it is sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn

import asyncpg

from headrace.database_url import PostgresURL
from headrace.db import connections, postgres_indexes, postgres_statistics, schema
from headrace.db.connection_errors import NO_TRANSACTIONS, allows_no_transactions, explain
from headrace.db.connections import ANSWER_SECONDS, READING, WRITING, Connection, Connector
from headrace.db.database import (
    Database,
    Duplicate,
    GuardFailed,
    Load,
    NotPermitted,
    TableChanged,
    TooComplex,
    TooSlow,
    ValueRefused,
    Write,
)
from headrace.db.group_commit import Group, GroupCommit
from headrace.db.pool import Pool, take_number
from headrace.db.query import Dialect, Runnable
from headrace.db.replica import Replica
from headrace.errors import Declined, HeadraceError, InvalidParameter, Unavailable

logger = logging.getLogger(__name__)

READERS = 8
GROUP_ROWS = 2000
# How long a group waits for a database that went away before its callers are told to come back.
RECONNECT_SECONDS = 10.0

COLUMNS = """
SELECT c.relname AS table_name, a.attname AS column_name, format_type(a.atttypid, NULL) AS data_type,
  coalesce(array_position(k.conkey, a.attnum), 0) AS key_position
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
WHERE c.relkind IN ('r', 'p') AND c.relname = ANY($1::name[]) AND pg_table_is_visible(c.oid)
"""


class Lost(Unavailable):
    """The connection is of no use any more; another one may be. Nothing is known of what was under way."""


class NotConnected(Unavailable):
    """PostgreSQL makes no connection, for a reason that is not the request's; stock would get none, either."""


class Again(Unavailable):
    """PostgreSQL undid the transaction to let another one go on (a deadlock): to send it again helps."""


def translate(error: Exception) -> Exception:
    """What an error of asyncpg's or the operating system's means to Headrace; one of Headrace's own is itself.

    By SQLSTATE (PostgreSQL's documentation, appendix A) where there is one.
    """
    if isinstance(error, HeadraceError):
        return error
    error = cause_of(error)
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        for length in (5, 2):
            if (meaning := _BY_SQLSTATE.get(state[:length])) is not None:
                return meaning(error)
        return Declined(f"PostgreSQL refused it: {error}")
    if isinstance(error, asyncpg.DataError | ValueError | OverflowError):
        return ValueRefused(f"PostgreSQL can't hold a value of it: {type(error).__name__}")
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return _lost(error)
    return error


async def _connect(connector: Connector) -> Connection:
    """Raises NotConnected, or what `translate` has a word for."""
    try:
        return await connector.connect()
    except asyncpg.PostgresError as error:
        if isinstance(translate(error), Unavailable):
            raise
        raise NotConnected("PostgreSQL takes no connection of this server's. Its log says why.") from error


def cause_of(error: Exception) -> Exception:
    """The error itself, or the one before it: where a session may only read, its connection is closed at once, at which
    the end of its transaction fails, too."""
    before = error.__context__
    is_of_the_end = isinstance(error, asyncpg.InterfaceError) and isinstance(
        before, asyncpg.ReadOnlySQLTransactionError
    )
    return before if is_of_the_end and isinstance(before, Exception) else error


def _lost(error: Exception) -> Exception:
    if allows_no_transactions(error):
        return Unavailable(NO_TRANSACTIONS)
    return Lost("PostgreSQL is away. Try again in a moment.")


_BY_SQLSTATE: dict[str, Callable[[Exception], Exception]] = {
    "08": _lost,  # connection exceptions
    "28": lambda _: Unavailable("PostgreSQL lets this server's role in no more. Its password may have changed."),
    "3D000": lambda _: Unavailable("The database is gone from the PostgreSQL server, or not there yet."),
    "57P01": _lost,  # shut down by an administrator
    "57P02": _lost,  # crashed
    "57P03": _lost,  # starting up
    "57P05": _lost,  # idle for too long
    "53300": _lost,  # too many connections
    "25006": lambda _: Lost("PostgreSQL takes no writes here at the moment (a failover?). Try again."),
    "25P02": _lost,  # a transaction that failed, in a pooler's connection
    "40": lambda _: Again("PostgreSQL ended the transaction for another one. Try again."),
    "55P03": lambda _: Unavailable("Another transaction holds the rows. Try again in a moment."),
    "53": lambda _: Unavailable("PostgreSQL has run out of disk, memory or another resource. Look at its log."),
    "57014": lambda _: TooSlow(),
    "42501": lambda error: NotPermitted(str(error)),
    "42P01": lambda error: TableChanged(f"the schema has changed: {error}"),
    "42703": lambda error: TableChanged(f"the schema has changed: {error}"),
    "23505": lambda error: Duplicate(f"it is there already: {error}"),
    "54": TooComplex,
    "2201B": lambda error: InvalidParameter(f"Invalid regular expression: {error}"),
    "22": lambda error: ValueRefused(f"PostgreSQL can't hold a value of it: {type(error).__name__}"),
    "23502": lambda error: ValueRefused(f"PostgreSQL can't hold a value of it: {type(error).__name__}"),
}


class Session:
    """A writing connection, as a Write's apply_postgres sees it.

    `again`: the group may have been committed already. `memory`: what a class of writes remembers from group to group.
    """

    def __init__(self, connection: asyncpg.Connection, memory: dict[str, Any]) -> None:
        self.connection, self.memory = connection, memory
        self.fetch: Callable[..., Awaitable[list[Any]]] = connection.fetch  # a statement and its values
        self.again = False

    def changed_meanwhile(self, what: str) -> NoReturn:
        """Raise what has the group sent again."""
        raise Again(f"PostgreSQL: {what}. Try again.")

    def savepoint(self) -> AbstractAsyncContextManager[Any]:
        """Around a statement that may fail without ending the transaction that it is a part of."""
        if self.connection.is_in_transaction():
            savepoint: AbstractAsyncContextManager[Any] = self.connection.transaction()
            return savepoint
        return nullcontext()


class _Writer:
    """A connection that writes, a group of writes at a time. `after`: what an error means to the database."""

    def __init__(self, connector: Connector, queue_limit: int, after: Callable[[Exception], Exception]) -> None:
        self._connector, self._after = connector, after
        self._connection: Connection | None = None
        self._memory: dict[str, Any] = {}
        self.commits: GroupCommit[Write, Any] = GroupCommit(
            self._flush, limit=queue_limit, group_size=GROUP_ROWS, size=lambda write: write.weight()
        )

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None and not self._connection.is_closed()

    async def connection(self) -> Connection:
        """The connection; a new one where it is closed."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await _connect(self._connector)
        return self._connection

    async def close(self) -> None:
        """When all that waits is written."""
        await self.commits.close()
        if self._connection is not None:
            await connections.close(self._connection)

    async def _flush(self, writes: Sequence[Write]) -> Sequence[Any]:
        deadline = time.monotonic() + RECONNECT_SECONDS
        pause = 0.05
        again = False
        while True:
            try:
                session = Session(await self.connection(), self._memory)
                session.again = again
                return await _apply(session, writes)
            except Exception as error:
                meaning = self._after(error)
                if isinstance(meaning, Again):
                    logger.info("deadlock or serialization failure: the group of %d writes is sent again", len(writes))
                elif isinstance(meaning, Lost):
                    self._drop()
                    if time.monotonic() + pause > deadline:
                        raise meaning from error
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 1.0)
                elif len(writes) == 1:
                    return [meaning]
                else:  # let only the write at fault pay for it, also where the fault is ours
                    logger.info("a group failed (%r): its %d writes go one by one", error, len(writes))
                    return [(await self._flush([write]))[0] for write in writes]
            again = True

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _apply(session: Session, writes: Sequence[Write]) -> Sequence[Any]:
    first = type(writes[0])
    if first.one_statement and all(type(write) is first for write in writes):
        return await first.apply_postgres(session, writes)
    by_class: dict[type[Write], list[int]] = {}
    for index, write in enumerate(writes):
        by_class.setdefault(type(write), []).append(index)
    outcomes: list[Any] = [None] * len(writes)
    async with session.connection.transaction():
        for kind in sorted(by_class, key=lambda kind: kind.rank):
            indexes = by_class[kind]
            done = await kind.apply_postgres(session, [writes[i] for i in indexes])
            for index, outcome in zip(indexes, done, strict=True):
                outcomes[index] = outcome
    return outcomes


class PostgresDatabase(Database):
    """See Database. `readers`: how many connections there are at most beside those that write, and to `replica`.

    `apart`: what is said of traces goes over a connection of its own, so that metrics don't wait for spans.
    """

    dialect = Dialect.POSTGRESQL

    def __init__(
        self,
        url: PostgresURL,
        *,
        queue_limit: int,
        readers: int = READERS,
        apart: bool = True,
        builds_indexes: bool = True,
        replica: PostgresURL | None = None,
    ) -> None:
        self._url, self._builds_indexes = url, builds_indexes
        self._readers, self._most_readers = Connector(url, READING), readers
        self._writers = Connector(url, WRITING)
        self._pool: Pool | None = None
        self._writer = _Writer(self._writers, queue_limit, self._after)
        self._of_traces = _Writer(self._writers, queue_limit, self._after) if apart else self._writer
        self._changed: dict[str, str] = {}
        self._replica = Replica(replica, self, readers) if replica else None
        self._indexing: asyncio.Task[None] | None = None
        self._statistics = postgres_statistics.Upkeep(lambda: self._connected().use(RECONNECT_SECONDS))

    async def connect(self) -> None:
        self._pool = Pool(partial(_connect, self._readers), self._most_readers)

    async def start(self) -> None:
        try:
            if self._pool is None:  # else a start that failed has made it
                await self.connect()
            self._changed = schema.differences(await self._columns(), schema.POSTGRES_TYPES)
            if self._builds_indexes:
                self._indexing = asyncio.create_task(postgres_indexes.build(self._url))
            if self._replica is not None:
                await self._replica.start()
        except Exception as error:
            why = error.__cause__ if isinstance(error, NotConnected) else error
            assert isinstance(why, Exception)
            raise Unavailable(str(explain(why, self._url))) from error

    async def close(self) -> None:
        if self._indexing is not None:
            self._indexing.cancel()
        await self._writer.close()
        await self._of_traces.close()
        self._statistics.close()  # nothing is written any more
        if self._replica is not None:
            await self._replica.close()
        if self._pool is not None:
            await self._pool.close()

    @property
    def changed_tables(self) -> dict[str, str]:
        return self._changed

    def load(self) -> Load:
        writers = {self._writer, self._of_traces}
        size, idle = (self._pool.size, self._pool.idle) if self._pool is not None else (0, 0)
        waiting, is_open = sum(each.commits.waiting for each in writers), sum(each.is_open for each in writers)
        return Load(waiting, size + is_open, idle)

    def observe_groups(self, callback: Callable[[Group], None]) -> None:
        self._writer.commits.observe = self._of_traces.commits.observe = callback

    async def rows(self, statement: Runnable) -> Sequence[Any]:
        for last in (False, True):
            try:
                return await self._fetch(statement)
            except Exception as error:
                meaning = self._after(error)
                if last or not isinstance(meaning, Lost):
                    raise meaning from error
                self._connected().close_idle()  # they may be as dead: the second try begins a new one
        raise AssertionError("unreachable")

    async def reads(self) -> Database:
        return self if self._replica is None else await self._replica.reads()

    async def rows_of(self, *statements: Runnable) -> list[Sequence[Any]]:
        take_number()  # for all of them
        # the database works on one while the rows of another are read
        first, *others = statements
        tasks = [asyncio.create_task(self.rows(each)) for each in others]
        try:
            return [await self.rows(first), *[await task for task in tasks]]
        except BaseException as error:  # asyncio.gather's way, which costs a task more and looks at what it is given
            for task in tasks:
                if isinstance(error, asyncio.CancelledError):
                    task.cancel()
                task.add_done_callback(_is_seen)
            raise

    async def transact(self, statements: Sequence[Runnable]) -> list[Sequence[Any]]:
        async def run(connection: asyncpg.Connection) -> list[Sequence[Any]]:
            return [await _run(connection, statement) for statement in statements]

        rows: list[Sequence[Any]] = await self._in_transaction(run)
        return rows

    async def change(self, guard: Runnable, *rest: Runnable) -> Sequence[Any]:
        async def run(connection: asyncpg.Connection) -> Sequence[Any]:
            rows = await _run(connection, guard, ANSWER_SECONDS)  # it finds its row by key
            if not rows:
                raise GuardFailed("what is changed is not there, or not in that state")
            for statement in rest:
                await _run(connection, statement)
            return rows

        self._statistics.written()
        # one statement is a transaction of its own
        execute = self._in_transaction if rest else self._on_connection
        rows: Sequence[Any] = await execute(run)
        return rows

    def submit(self, write: Write) -> Coroutine[Any, Any, Any]:
        self._statistics.written()
        return (self._of_traces if write.of_traces else self._writer).commits.submit(write)

    async def _in_transaction(self, run: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        async def transaction(connection: asyncpg.Connection) -> Any:
            async with connection.transaction():
                return await run(connection)

        return await self._on_connection(transaction)

    async def _fetch(self, statement: Runnable) -> Sequence[Any]:
        """As by `use`, whose two coroutines and generator would cost a read by key a tenth."""
        pool = self._connected()
        connection = await pool.take(RECONNECT_SECONDS)
        try:
            rows = await fetch(connection, statement)
        except BaseException as error:
            pool.give_back(connection, error)
            raise
        pool.give_back(connection)
        return rows

    async def _on_connection(self, run: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        try:
            async with self._connected().use(RECONNECT_SECONDS) as connection:
                return await run(connection)
        except Exception as error:
            raise self._after(error) from error

    def _after(self, error: Exception) -> Exception:
        """What it means. What is true of a silent or read-only connection is true of the others: they go, too."""
        if isinstance(error, TimeoutError | asyncpg.ReadOnlySQLTransactionError) and self._pool is not None:
            self._pool.expire()
            self._readers.give_up_silent()
        return translate(error)

    def _connected(self) -> Pool:
        if self._pool is None:
            raise Unavailable("PostgreSQL is not connected yet. Try again in a moment.")
        return self._pool

    async def _columns(self) -> schema.Columns:
        columns: schema.Columns = {}
        async with self._connected().use(RECONNECT_SECONDS) as connection:
            for row in await connection.fetch(COLUMNS, list(schema.TABLES)):
                kind = (row["data_type"], row["key_position"])
                columns.setdefault(row["table_name"], {})[row["column_name"]] = kind
        return columns


def _is_seen(task: asyncio.Task[Any]) -> None:
    """Its exception is nobody's any more."""
    if not task.cancelled():
        task.exception()


async def fetch(connection: asyncpg.Connection, statement: Runnable) -> Sequence[Any]:
    """The rows of a statement that reads."""
    query = statement.render(Dialect.POSTGRESQL)
    ask = connection.fetch_replanned if query.replanned else connection.fetch
    rows: Sequence[Any] = await ask(query.text, *query.values)
    return rows


async def _run(connection: asyncpg.Connection, statement: Runnable, seconds: float | None = None) -> Sequence[Any]:
    query = statement.render(Dialect.POSTGRESQL)
    rows: Sequence[Any] = await connection.fetch(query.text, *query.values, timeout=seconds)
    return rows
