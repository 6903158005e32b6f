"""Group commit: writes that arrive while a transaction is under way share the next one. Knows no SQL.

One task takes all that is queued and hands it to `flush`, which answers with an outcome for each write once they
are durable. While it works, the next group gathers by itself: with one client there is no wait, with many one
commit serves them all. A caller that goes away does no harm: its write is done, and nobody reads the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from headrace.errors import Unavailable

# a group that was committed: how many writes, seconds that the first one waited, seconds until it was durable
Group = tuple[int, float, float]
W = TypeVar("W")
R = TypeVar("R")


class GroupCommit(Generic[W, R]):
    """A bounded queue of writes and the task that flushes it.

    `flush(writes)` returns an outcome a write, in order; an exception among them goes to that write's caller, one
    that it raises goes to all of them. `limit` is the number of writes that may wait, `size(write)` a write's weight
    and `group_size` the weight after which a group is full.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[W]], Awaitable[Sequence[R | Exception]]],
        *,
        limit: int,
        group_size: int,
        size: Callable[[W], int],
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._group_size = group_size
        self._size = size
        self._queue: deque[tuple[W, asyncio.Future[R], float]] = deque()
        self.observe: Callable[[Group], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._is_shared = False  # whether several clients wrote at the same time

    async def submit(self, write: W) -> R:
        """Queue a write and wait until it is durable. Raises Unavailable when the queue is full or closed."""
        if self._closed:
            raise Unavailable("The server is stopping. Try again: another worker or the next start will take it.")
        if len(self._queue) >= self._limit:
            raise Unavailable(f"{self._limit} writes wait for the database already. Try again in a moment.")
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((write, done, time.perf_counter()))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await done

    @property
    def waiting(self) -> int:
        """How many writes are queued."""
        return len(self._queue)

    async def close(self) -> None:
        """Take no more writes, and return when those that wait are flushed."""
        self._closed = True
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._queue:
                if self._is_shared:  # those that are read at this moment come along: runs/create by 8 clients +12 %
                    await asyncio.sleep(0)
                group = self._take_group()
                self._is_shared = len(group) > 1
                began = time.perf_counter()
                try:
                    outcomes = await self._flush([write for write, _, _ in group])
                except Exception as error:
                    outcomes = [error] * len(group)
                for (_, done, _), outcome in zip(group, outcomes, strict=True):
                    if done.done():  # its caller went away
                        continue
                    if isinstance(outcome, Exception):
                        done.set_exception(outcome)
                    else:
                        done.set_result(outcome)
                if self.observe is not None:
                    self.observe((len(group), began - group[0][2], time.perf_counter() - began))
        finally:
            self._task = None

    def _take_group(self) -> list[tuple[W, asyncio.Future[R], float]]:
        group = []
        weight = 0
        while self._queue and weight < self._group_size:
            group.append(self._queue.popleft())
            weight += self._size(group[-1][0])
        return group
