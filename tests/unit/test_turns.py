"""Connections go to the request that came first, also for its later statements."""

from __future__ import annotations

import asyncio

import pytest

from headrace.db.turns import Turns, take_number


async def test_a_request_that_came_first_is_served_first_at_each_of_its_statements() -> None:
    turns, done = Turns(1), []

    async def request(name: str, statements: int) -> None:
        for number in range(statements):
            async with turns:
                await asyncio.sleep(0)
                done.append(f"{name}{number}")
            await asyncio.sleep(0)

    await asyncio.gather(request("a", 3), request("b", 1), request("c", 2), request("d", 1))
    # "a" comes back while "b" has its turn, and goes before "c" and "d", which wait for their first
    assert done == ["a0", "b0", "a1", "c0", "a2", "c1", "d0"]


async def test_statements_at_the_same_time_have_the_place_of_their_request() -> None:
    turns, done = Turns(1), []

    async def use(name: str) -> None:
        async with turns:
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
    turns = Turns(1)
    await turns.__aenter__()

    async def use() -> None:
        async with turns:
            await asyncio.sleep(0)

    gone, next_one = asyncio.create_task(use()), asyncio.create_task(use())
    await asyncio.sleep(0)
    if when == "when its turn has come":
        await turns.__aexit__(None, None, None)
        gone.cancel()
    else:
        gone.cancel()
        await asyncio.sleep(0)
        await turns.__aexit__(None, None, None)
    await asyncio.wait_for(next_one, 5)
    with pytest.raises(asyncio.CancelledError):
        await gone
    await asyncio.wait_for(use(), 5)
