"""Several things at a time, of which the first that fails is what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises the first failure itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def each(things: AsyncIterator[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do the work on all of them, so many at once."""
    slots = asyncio.Semaphore(at_once)

    async def one(thing: T) -> None:
        try:
            await work(thing)
        finally:
            slots.release()

    async with tasks() as group:
        async for thing in things:
            await slots.acquire()
            group.create_task(one(thing))
