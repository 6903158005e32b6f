"""Slows down logins that fail, by address and by user, on all workers and instances together.

The first failures cost nothing; after them each doubles the wait, up to a limit that keeps a stranger from locking a
user out for long. A login that works forgets the user's failures. They are counted in the database, which a login that
is known already does not ask; and a worker tries one login of a user or an address at a time, so that many at once get
no further than one after another.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar
from weakref import WeakValueDictionary

from headrace.address import network_of
from headrace.auth.accounts import Accounts
from headrace.clock import now_ms
from headrace.errors import TooManyAttempts

FORGET_MS = 900_000
KEPT = 10_000

T = TypeVar("T")


class Limit(NamedTuple):
    """`free` failures are free, the longest wait is `longest` milliseconds."""

    free: int
    longest: int

    def wait(self, failures: int) -> int:
        """Milliseconds from the last failure to the next try."""
        return 0 if failures < self.free else min(self.longest, 1000 * 2 ** min(failures - self.free, 16))


BY_USER = Limit(5, 30_000)
BY_ADDRESS = Limit(20, 60_000)


class Throttle:
    """For one worker. `clock`: milliseconds since 1970."""

    def __init__(self, accounts: Accounts, clock: Callable[[], int] = now_ms) -> None:
        self._accounts, self._clock = accounts, clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._until: dict[str, int] = {}  # key -> when the next try is looked at; a flood does not reach the database

    async def attempt(self, name: str, address: str, verify: Callable[[], Awaitable[T | None]]) -> T | None:
        """What `verify` finds; None is a failure. Raises TooManyAttempts, Unavailable."""
        by_address, by_user = _key("address", network_of(address)), _key("user", name)
        self._look(by_address, by_user)
        async with self.lock(by_address), self.lock(by_user):
            failures = await self._failures({by_address: BY_ADDRESS, by_user: BY_USER})
            found = await verify()
            if found is None:
                for key in (by_address, by_user):
                    await self._accounts.add_failure(key, self._clock(), self._clock() - FORGET_MS)
            elif by_user in failures:
                await self._accounts.forget_failures(by_user)
            return found

    async def forget_old(self) -> None:
        """Drop the failures that count no more. Raises Unavailable."""
        await self._accounts.forget_old_failures(self._clock() - FORGET_MS)

    def lock(self, key: str) -> asyncio.Lock:
        """So that one login with this key is looked at at a time."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def _failures(self, limits: dict[str, Limit]) -> dict[str, int]:
        """Of these keys, those with failures, and how many. Raises TooManyAttempts while one has to wait."""
        self._look(*limits)
        found = {}
        for key, count, last in await self._accounts.failures(list(limits)):
            if last >= self._clock() - FORGET_MS:
                found[key] = count
                if len(self._until) >= KEPT:
                    self._until.clear()
                self._until[key] = last + limits[key].wait(count)
        self._look(*found)
        return found

    def _look(self, *keys: str) -> None:
        """Raises TooManyAttempts while one of the keys has to wait, as far as this worker knows."""
        wait = max((self._until.get(key, 0) for key in keys), default=0) - self._clock()
        if wait > 0:
            raise TooManyAttempts(wait // 1000 + 1)


def _key(kind: str, text: str) -> str:
    """A hash: people type passwords where the name belongs."""
    return hashlib.sha256(f"{kind} {text}".encode("utf-8", "replace")).hexdigest()
