"""What a server does again and again beside its requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from headrace.errors import HeadraceError

logger = logging.getLogger(__name__)


async def again_and_again(work: Callable[[], Awaitable[object]], seconds: float, failed: str) -> None:
    """Do the work now and `seconds` after each end, until it is cancelled. An error is logged after `failed`."""
    while True:
        try:
            await work()
        except HeadraceError as error:  # the database is away, say; the next one goes on
            logger.warning("%s: %s", failed, error)
        except Exception:
            logger.exception(failed)
        await asyncio.sleep(seconds)


async def until_done(work: Callable[[], Awaitable[object]], seconds: float, failed: str) -> None:
    """Do the work once; again `seconds` after each error, which is logged after `failed`."""
    while True:
        try:
            await work()
        except HeadraceError as error:
            logger.warning("%s: %s", failed, error)
            await asyncio.sleep(seconds)
        else:
            return
