"""The contract: a database that rows are read from in bulk, or written to. postgres.py and sqlite.py keep it.

Every method raises Unavailable where the database is away, and Declined (Duplicate, ValueRefused) where it refuses a
row: then nothing of the transaction was done.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Protocol

from headrace.copy.tables import Table
from headrace.db.query import Bound
from headrace.errors import Unavailable

Row = Sequence[Any]
Chunks = Callable[[], AsyncGenerator[Sequence[Row], None]]
ROWS_AT_ONCE = 20_000


class Rows:
    """Rows of a table on their way: `chunks` begins to read them, and who does so closes it.

    `encoded` gives them as PostgreSQL's binary COPY has them, where they come from there and nobody has changed them.
    """

    def __init__(self, chunks: Chunks, encoded: Callable[[], AsyncGenerator[bytes, None]] | None = None) -> None:
        self.chunks, self.encoded = chunks, encoded

    def changed(self, table: Table, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Rows:
        """As `change` makes them, which gets a row by its columns and answers with None for one to be left out."""

        async def chunks() -> AsyncGenerator[Sequence[Row], None]:
            async with aclosing(self.chunks()) as given:
                async for chunk in given:
                    made = (change(dict(zip(table.columns, row, strict=True))) for row in chunk)
                    yield [tuple(row.values()) for row in made if row is not None]

        return Rows(chunks)


def rows_of(given: Sequence[Row]) -> Rows:
    """Those that are in memory."""

    async def chunks() -> AsyncGenerator[Sequence[Row], None]:
        yield given

    return Rows(chunks)


class Writer(Protocol):
    """A transaction on the target."""

    async def put(self, table: Table, rows: Rows, fresh: bool = False) -> int:
        """Insert them; how many are new. `fresh`: none can be there, since what they hang on is of this transaction."""
        ...

    async def trust(self) -> None:
        """What follows refers to rows of this transaction alone: foreign keys need no look where that saves time."""
        ...

    async def rows(self, statement: Bound) -> Sequence[Row]:
        """Do a statement; its rows."""
        ...


class Source(Protocol):
    """What rows are read from."""

    shown: str  # for people, without a password

    async def rows(self, statement: Bound) -> Sequence[Row]:
        """The rows of a statement that reads a few."""
        ...

    def read(self, table: Table, **values: Any) -> Rows:
        """The rows of `table.select`."""
        ...

    async def close(self) -> None: ...


class Store(Source, Protocol):
    """A database, to read or to write. `at_once`: how many transactions gain time beside one another."""

    at_once: int

    def transaction(self) -> AbstractAsyncContextManager[Writer]:
        """What is done in it is durable at the end, or not done where it raises."""
        ...

    async def finish(self) -> None:
        """Once all is written: what searches need to be quick."""
        ...


# The experiment that stock makes with its tables.
_DEFAULT = (0, "Default", "default", "active", "")


class Nothing:
    """The target of a dry run that is not there yet."""

    shown = "a new database"
    at_once = 1

    async def rows(self, statement: Bound) -> Sequence[Row]:
        return [_DEFAULT] if statement.values.get("name") == _DEFAULT[1] else []

    def read(self, table: Table, **values: Any) -> Rows:
        return rows_of([])

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Writer]:
        yield self

    async def trust(self) -> None:
        pass

    async def put(self, table: Table, rows: Rows, fresh: bool = False) -> int:
        raise AssertionError("a dry run writes nothing")

    async def finish(self) -> None:
        pass

    async def close(self) -> None:
        pass


def away(shown: str, error: Exception) -> Unavailable:
    """What is said of a database that went away."""
    words = " ".join(str(error).split()).rstrip(".")
    return Unavailable(
        f"{shown} can't be used any more: {words}. Start the same command again: it goes on where it was."
    )
