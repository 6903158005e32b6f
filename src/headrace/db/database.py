"""The contract: what Headrace asks of a database. postgres.py and sqlite.py keep it, tests/contract proves it.

- `rows` reads. `change` is one transaction that a guard can stop. `submit` shares a transaction with the other writes
  of this moment (group commit) and is for what clients send all the time.
- Resources own their SQL (query.Sql) and their writes (Write); nothing here knows a table of MLflow's.
- What a backend raises is translated at one place in each (`translate`), so that it means the same everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from msgspec import Struct

from headrace.db.group_commit import Group
from headrace.db.query import Dialect, Runnable
from headrace.errors import ApiError, Declined, Malformed

if TYPE_CHECKING:
    import sqlite3

    from headrace.db.postgres import Session

# A search that runs longer is cancelled, so that others need not wait behind it.
STATEMENT_SECONDS = 60


class GuardFailed(Declined):
    """The guard of a change found no row: what is changed is not there, or not in that state. Nothing was done."""


class Duplicate(Declined):
    """A row with that key is there already. Nothing was done."""


class TableChanged(Declined):
    """A table or column is gone that was there at the start: stock's migrations have changed the schema meanwhile."""


class NotPermitted(Declined):
    """This server's role may not do that in the database. Nothing was done."""


class ValueRefused(Malformed):
    """The database can't hold a value: out of range, too long, a NUL in a text. Nothing was done."""


class TooComplex(ApiError):
    """A statement beyond a limit of the database: how many tables it joins, how deep it is, how long a pattern. A 4xx:
    nothing makes it shorter."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"This is more than the database takes in one request: {error}. "
            "Ask with fewer conditions, aggregations or sort keys, or a shorter pattern."
        )


class TooSlow(ApiError):
    """The database needed longer than STATEMENT_SECONDS. A 4xx: to send it again would only repeat the work."""

    status = 400
    error_code = "INVALID_PARAMETER_VALUE"

    def __init__(self) -> None:
        super().__init__(
            f"The database worked on this request for {STATEMENT_SECONDS} s and was stopped. "
            "Ask for less: fewer experiments or runs, or a filter with fewer and simpler conditions."
        )


class Write(Struct, frozen=True, gc=False):
    """What `submit` takes: a value of a class that knows how a group of its values is done, on either backend.

    `apply_*` answer with one outcome per write, in order: what its caller gets, or the exception that it shall see.
    They work in a transaction of the group (PostgreSQL: in none where all are of one class that is `one_statement`).
    Everything may be done twice without harm: after a deadlock or a lost connection the group is sent again, and
    `Session.again` says so. One that the database refuses, or that fails, makes the writes of its group go one by one.
    """

    # the order of classes in a transaction: what makes a row before what changes it
    rank: ClassVar[int] = 0
    one_statement: ClassVar[bool] = False
    # PostgreSQL has a connection for these alone: a group of spans takes several times as long as one of metrics
    of_traces: ClassVar[bool] = False

    def weight(self) -> int:
        """How many rows it comes to, about."""
        return 1

    @classmethod
    async def apply_postgres(cls, session: Session, writes: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError

    @classmethod
    def apply_sqlite(cls, connection: sqlite3.Connection, writes: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError


class Load(NamedTuple):
    """At this moment: writes that wait, connections that are open, and those of them that nobody uses."""

    queue: int
    connections: int = 0
    idle: int = 0


class Database(ABC):
    """One backend. Every method may raise Unavailable when the database is away."""

    dialect: ClassVar[Dialect]

    @abstractmethod
    def load(self) -> Load:
        """For metrics."""

    @abstractmethod
    def observe_groups(self, callback: Callable[[Group], None]) -> None:
        """Call back for each group of writes that was committed."""

    @abstractmethod
    async def connect(self) -> None:
        """What `rows`, `change` and `transact` need, without the rest of what `start` does."""

    @abstractmethod
    async def start(self) -> None:
        """Connect, and read the schema contract. Raises Unavailable."""

    @abstractmethod
    async def close(self) -> None:
        """Flush what was accepted, then disconnect. Writes after this raise Unavailable."""

    @property
    @abstractmethod
    def changed_tables(self) -> dict[str, str]:
        """Tables that are not as Headrace's SQL expects them, each with what differs (see schema.py)."""

    @abstractmethod
    async def rows(self, statement: Runnable) -> Sequence[Any]:
        """The rows of a statement, which can be read by position and by name.

        Raises Declined where the database refuses it, TooSlow, Unavailable.
        """

    async def reads(self) -> Database:
        """What a request that only reads, and much, may read from: a read replica that has all that was written."""
        return self

    @abstractmethod
    async def rows_of(self, *statements: Runnable) -> list[Sequence[Any]]:
        """The rows of several statements that don't depend on one another. Raises as `rows`."""

    @abstractmethod
    async def transact(self, statements: Sequence[Runnable]) -> list[Sequence[Any]]:
        """Do the statements in one transaction, durably; the rows of each.

        Raises Declined where the database refuses one, and then none of them was done; Unavailable.
        """

    @abstractmethod
    async def change(self, guard: Runnable, *rest: Runnable) -> Sequence[Any]:
        """One transaction, durably: where the guard finds no row, nothing is done. Answers with the guard's rows.

        Raises GuardFailed, Duplicate, ValueRefused and other Declined (nothing was done); Unavailable (it may have
        been done; to do it twice must do no harm).
        """

    @abstractmethod
    def submit(self, write: Write) -> Coroutine[Any, Any, Any]:
        """Do it durably, together with the other writes of this moment; the outcome that its class gives.

        Raises what the outcome says, mostly Declined; Unavailable (the queue is full or the database is away; nothing
        was acknowledged and it is safe to send it again).
        """
