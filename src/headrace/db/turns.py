"""Whose turn it is to use a connection: that of the request that came first, also for its second statement.

Connections are few and requests may be many. Were each statement to stand at the end of the queue, a search of four
statements would wait four times as long as a read of one.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextvars import ContextVar
from types import TracebackType

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


class Turns:
    """An async context manager around the use of one of `places` connections."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()  # statements of one request at the same time stay in order

    async def __aenter__(self) -> None:
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
                self._next()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next()

    def _next(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # else its request went away
                turn.set_result(None)
                return
        self._free += 1
