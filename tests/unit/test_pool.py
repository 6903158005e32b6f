"""Connections go to the request that came first, also for its later statements.

The connections are stand-ins without a server; tests/contract has real ones.
"""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from headrace.db.connections import Connection
from headrace.db.pool import Pool, take_number
from tests.support.processes import eventually


class Idle(Connection):
    """One without a server, which can be closed."""

    def __init__(self) -> None:  # asyncpg's own wants a protocol
        self._closed = False

    def __del__(self) -> None:
        pass

    def is_closed(self) -> bool:
        return self._closed

    def is_in_transaction(self) -> bool:
        return False

    def terminate(self) -> None:
        self._closed = True

    async def close(self, *, timeout: float | None = None) -> None:
        self._closed = True


async def connect() -> Connection:
    await asyncio.sleep(0)
    return Idle()


async def test_a_request_that_came_first_is_served_first_at_each_of_its_statements() -> None:
    pool, done = Pool(connect, 1), []

    async def request(name: str, statements: int) -> None:
        for number in range(statements):
            async with pool.use(None):
                await asyncio.sleep(0)
                done.append(f"{name}{number}")
            await asyncio.sleep(0)

    await asyncio.gather(request("a", 3), request("b", 1), request("c", 2), request("d", 1))
    # "a" comes back while "b" has its turn, and goes before "c" and "d", which wait for their first
    assert done == ["a0", "b0", "a1", "c0", "a2", "c1", "d0"]


async def test_statements_at_the_same_time_have_the_place_of_their_request() -> None:
    pool, done = Pool(connect, 1), []

    async def use(name: str) -> None:
        async with pool.use(None):
            await asyncio.sleep(0)
            done.append(name)

    async def first() -> None:
        take_number()
        await started.wait()
        await asyncio.gather(use("first, one"), use("first, two"))

    async def second() -> None:
        take_number()
        started.set()
        await asyncio.gather(use("second, one"), use("second, two"))

    started = asyncio.Event()
    await asyncio.gather(first(), second())
    assert done == ["second, one", "first, one", "first, two", "second, two"]


@pytest.mark.parametrize("when", ["while it waits", "when its turn has come"])
async def test_one_that_goes_away_takes_no_place(when: str) -> None:
    pool = Pool(connect, 1)
    connection = await pool.take(None)

    async def use() -> None:
        async with pool.use(None):
            await asyncio.sleep(0)

    gone, next_one = asyncio.create_task(use()), asyncio.create_task(use())
    await asyncio.sleep(0)
    if when == "when its turn has come":
        pool.give_back(connection)
        gone.cancel()
    else:
        gone.cancel()
        await asyncio.sleep(0)
        pool.give_back(connection)
    await asyncio.wait_for(next_one, 5)
    with pytest.raises(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(use(), 5)
    assert (pool.size, pool.idle) == (1, 1)


async def test_the_one_that_was_used_last_is_used_next() -> None:
    pool = Pool(connect, 3)
    first, second = await pool.take(None), await pool.take(None)
    pool.give_back(second)
    pool.give_back(first)
    assert await pool.take(None) is first
    assert (pool.size, pool.idle) == (2, 1)


async def test_connections_that_are_closed_or_expired_are_not_used_again() -> None:
    pool = Pool(connect, 2)
    first, second = await pool.take(None), await pool.take(None)
    pool.give_back(first)
    first.terminate()
    pool.expire()
    pool.give_back(second)
    third, fourth = await pool.take(1), await pool.take(1)
    assert {first, second}.isdisjoint({third, fourth})
    await asyncio.sleep(0)
    assert second.is_closed()
    with pytest.raises(TimeoutError):
        await pool.take(0.01)
    pool.give_back(third)
    assert await pool.take(1) is third


async def test_one_that_cannot_be_made_takes_no_place() -> None:
    async def fail() -> Connection:
        raise ConnectionRefusedError

    pool = Pool(fail, 1)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await pool.take(1)


async def test_a_closed_pool_waits_for_what_is_in_use_and_makes_none() -> None:
    pool = Pool(connect, 2)
    connection = await pool.take(None)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    assert not closing.done()
    pool.give_back(connection)
    await asyncio.wait_for(closing, 1)
    assert connection.is_closed()


async def test_nobody_gets_one_of_a_closed_pool() -> None:
    pool = Pool(connect, 1)
    await pool.close()
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await pool.take(None)


async def test_one_that_is_idle_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.db.pool.IDLE_SECONDS", 0.05)
    pool = Pool(connect, 1)
    connection = await pool.take(None)
    pool.give_back(connection)
    await eventually(lambda: not pool.size and connection.is_closed())


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [
        (asyncpg.PostgresError.new({"S": "FATAL", "V": "FATAL", "C": "57P01", "M": "terminating"}), False),
        (asyncpg.PostgresError.new({"S": "FEHLER", "V": "ERROR", "C": "22003", "M": "out of range"}), True),
        (asyncpg.InternalClientError("got a message that it did not expect"), False),
        (ValueError("a reader's own"), True),
    ],
)
async def test_a_connection_that_the_server_ends_is_nobody_elses(error: Exception, is_kept: bool) -> None:
    """Its end may not have come yet: the next would get an error for a statement that was never sent."""
    pool = Pool(connect, 1)
    with pytest.raises(type(error)):
        async with pool.use(None):
            raise error
    assert pool.idle == is_kept
    async with pool.use(1.0) as connection:
        assert not connection.is_closed()
