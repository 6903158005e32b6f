"""Logins that fail are slowed: free at first, then twice as long each time, up to a limit, and forgotten; on all
workers together.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.auth.accounts import Accounts, opened_accounts
from headrace.auth.throttle import BY_ADDRESS, BY_USER, FORGET_MS, Throttle
from headrace.errors import TooManyAttempts
from headrace.settings import Settings


class Clock:
    now = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Accounts]:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()
    async with opened_accounts(Settings(backend_store_uri=f"sqlite:///{path}")) as accounts:
        await accounts.set_up()
        yield accounts


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def fails() -> str | None:
    return None


async def works() -> str:
    return "somebody"


async def refused(throttle: Throttle, name: str = "ada", address: str = "10.0.0.1") -> int:
    """The seconds to wait that the next try is told; 0 where it is looked at and fails."""
    try:
        assert await throttle.attempt(name, address, fails) is None
    except TooManyAttempts as error:
        return int(dict(error.headers)[b"retry-after"])
    return 0


async def test_the_waits(accounts: Accounts, clock: Clock) -> None:
    throttle = Throttle(accounts, clock)
    waits: list[int] = []
    for _ in range(12):
        assert await refused(throttle) == 0
        if wait := BY_USER.wait(len(waits) + 1) // 1000:
            assert await refused(throttle) == wait + 1
            assert await throttle.attempt("eve", "10.0.0.2", works) == "somebody"
        waits.append(wait)
        clock.now += wait * 1000
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]


async def test_other_workers_know(accounts: Accounts, clock: Clock) -> None:
    """Each is a worker of its own, which has seen one failure or none."""
    for _ in range(BY_USER.free):
        assert await refused(Throttle(accounts, clock)) == 0
    assert await refused(Throttle(accounts, clock), address="10.9.9.9") == 2
    with pytest.raises(TooManyAttempts):
        await Throttle(accounts, clock).attempt("ada", "10.9.9.9", works)


@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::{}", ""])
async def test_an_address_is_slowed_whatever_the_names(accounts: Accounts, clock: Clock, address: str) -> None:
    throttle = Throttle(accounts, clock)
    for number in range(BY_ADDRESS.free):
        assert await refused(throttle, f"user{number}", address.format(number)) == 0
    assert await refused(throttle, "another", address.format("ffff")) == 2
    assert await refused(throttle, "another", "2001:db8:0:1::1") == 0


async def test_many_at_once_get_no_further(accounts: Accounts, clock: Clock) -> None:
    throttle = Throttle(accounts, clock)
    waits = await asyncio.gather(*(refused(throttle) for _ in range(50)))
    assert waits.count(0) == BY_USER.free


async def test_what_is_forgotten(accounts: Accounts, clock: Clock, tmp_path: Path) -> None:
    throttle = Throttle(accounts, clock)
    for _ in range(BY_USER.free - 1):
        assert await refused(throttle) == 0
    assert await throttle.attempt("ada", "10.0.0.2", works) == "somebody"
    for _ in range(BY_USER.free):
        assert await refused(throttle) == 0
    clock.now += FORGET_MS + 1
    for _ in range(BY_USER.free):
        assert await refused(throttle) == 0
    assert await refused(throttle) == 2
    clock.now += FORGET_MS + 1
    await throttle.forget_old()
    with sqlite3.connect(tmp_path / "a.db") as database:
        assert database.execute("SELECT * FROM headrace_failed_logins").fetchall() == []
    database.close()
