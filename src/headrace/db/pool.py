"""Connections to one database, each given to the request that came first, also for its later statements.

Connections are few and requests may be many. Were each statement to stand at the end of the queue, a search of four
statements would wait four times as long as a read of one. asyncpg's own pool does that, and a use of it costs more
than the statement of a read by key: 70 of 128 us (docs/design.md).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

from headrace.db import connections
from headrace.db.connections import ANSWER_SECONDS, CLOSE_SECONDS, Connection

IDLE_SECONDS = 300.0
# of the request that this task answers; set at its first statement
_NUMBER: ContextVar[int] = ContextVar("number")
_NUMBERS = itertools.count()


def take_number() -> int:
    """The place of this task, and of those that it starts from now on, in every queue."""
    number = _NUMBER.get(-1)
    if number < 0:
        number = next(_NUMBERS)
        _NUMBER.set(number)
    return number


async def _refuse() -> Connection:
    raise ConnectionError("The pool is closed.")


class Pool:
    """At most `size` connections, made when they are wanted, closed when nobody wants them for IDLE_SECONDS."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int) -> None:
        self._connect, self._size = connect, size
        self._free = size  # places: who has one has a connection, or makes one
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()  # statements of one request at the same time stay in order
        self._idle: list[Connection] = []  # the one that was used last is the next
        self._expired: set[Connection] = set()
        self._used: set[Connection] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """How many connections are open."""
        return len(self._idle) + len(self._used)

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return len(self._idle)

    async def take(self, seconds: float | None) -> Connection:
        """A connection when it is this request's turn, to be given back.

        Raises TimeoutError after that many seconds (None: never), and what making a connection does.
        """
        if self._free and self._idle:  # the usual case, which needs no limit
            take_number()
            if (connection := self._next_idle()) is not None:
                self._free -= 1
                return connection
        async with asyncio.timeout(seconds):
            await self._take_place()
            return self._next_idle() or await self._make()

    def give_back(self, connection: Connection, error: BaseException | None = None) -> None:
        """Let others have it. `error`: what its statement ended with; one that was cancelled may still be under way."""
        if isinstance(error, asyncio.CancelledError) and not connection.is_closed():
            self._later(self._come_to_rest(connection))
            return
        if error is not None and connections.is_last(error):
            connection.terminate()
        self._used.discard(connection)
        if not connection.is_closed():
            if connection in self._expired:
                self._later(connections.close(connection))
            elif connection.is_in_transaction():  # that it ends could not be said
                connection.terminate()
            else:
                self._keep(connection)
        self._expired.discard(connection)
        self._call_next()

    @asynccontextmanager
    async def use(self, seconds: float | None) -> AsyncIterator[Connection]:
        """Take one and give it back. Raises as `take`."""
        connection = await self.take(seconds)
        try:
            yield connection
        except BaseException as error:
            self.give_back(connection, error)
            raise
        self.give_back(connection)

    def close_idle(self) -> None:
        """No connection that nobody uses now is used again."""
        for connection in self._idle:
            self._later(connections.close(connection))
        self._idle.clear()

    def expire(self) -> None:
        """No connection that there is now is used again."""
        self.close_idle()
        self._expired |= self._used

    async def close(self) -> None:
        """Disconnect: when the connections in use come back, and after CLOSE_SECONDS in any case.

        Who wants one later gets a ConnectionError.
        """
        self._connect = _refuse
        if self._sweep is not None:
            self._sweep.cancel()
        self.expire()
        places = 0
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while places < self._size:
                    await self._take_place()
                    places += 1
        except TimeoutError:
            for connection in self._used:
                connection.terminate()
        for _ in range(places):
            self._call_next()
        while self._ending:
            await asyncio.wait(self._ending)

    def _next_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._used.add(connection)
                return connection
        return None

    async def _make(self) -> Connection:
        try:
            connection = await self._connect()
        except BaseException:
            self._call_next()
            raise
        self._used.add(connection)
        return connection

    def _keep(self, connection: Connection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep_later()

    async def _take_place(self) -> None:
        number = take_number()
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (number, next(self._count), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was our turn just now
                self._call_next()
            raise

    def _call_next(self) -> None:
        """A place is free: for who waits, if anybody does."""
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # else its request went away
                turn.set_result(None)
                return
        self._free += 1

    async def _come_to_rest(self, connection: Connection) -> None:
        """asyncpg cancels what was under way, and does this statement after it."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.execute("SELECT 1")
        except Exception:
            connection.terminate()
        finally:
            self.give_back(connection)

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _sweep_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(IDLE_SECONDS / 10, self._close_unwanted)

    def _close_unwanted(self) -> None:
        before = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since < before:
            self._later(connections.close(self._idle.pop(0)))
        self._sweep = None
        if self._idle:
            self._sweep_later()
