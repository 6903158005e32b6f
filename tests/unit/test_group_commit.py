"""The queue by itself, with a flush that the test holds in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headrace.db.group_commit import GroupCommit
from headrace.errors import Declined, Unavailable


class Gate:
    """A flush that waits until it is let go, and remembers its groups. "bad" has an exception as its outcome."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.open = asyncio.Event()

    async def flush(self, writes: Sequence[str]) -> Sequence[str | Exception]:
        self.groups.append(list(writes))
        await self.open.wait()
        if "lost" in writes:
            raise Unavailable("lost")
        return [Declined("bad") if write == "bad" else write.upper() for write in writes]


def commits(gate: Gate, limit: int = 100, group_size: int = 100) -> GroupCommit[str, str]:
    return GroupCommit(gate.flush, limit=limit, group_size=group_size, size=lambda _: 1)


async def begin(group: GroupCommit[str, str], *writes: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(group.submit(write)) for write in writes]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_those_that_wait_share_the_next_group() -> None:
    gate = Gate()
    group = commits(gate)
    tasks = await begin(group, "a")
    tasks += await begin(group, "b", "c")
    tasks += await begin(group, "d")
    gate.open.set()
    assert await asyncio.gather(*tasks) == ["A", "B", "C", "D"]
    assert gate.groups == [["a"], ["b", "c", "d"]]


async def test_where_several_write_at_once_those_that_are_read_at_this_moment_come_along() -> None:
    """One that was alone is not kept waiting."""
    gate = Gate()
    gate.open.set()
    group = commits(gate)
    for alone in "ab":
        await group.submit(alone)
    await asyncio.gather(*await begin(group, "c", "d"))

    async def a_moment_later(write: str) -> str:
        await asyncio.sleep(0)
        return await group.submit(write)

    tasks = [asyncio.create_task(work) for work in (group.submit("e"), a_moment_later("f"))]
    assert await asyncio.gather(*tasks) == ["E", "F"]
    assert gate.groups == [["a"], ["b"], ["c", "d"], ["e", "f"]]


async def test_an_outcome_is_its_own_writes() -> None:
    gate = Gate()
    gate.open.set()
    results = await asyncio.gather(*await begin(commits(gate), "a", "bad", "c"), return_exceptions=True)
    assert results[0] == "A"
    assert isinstance(results[1], Declined)
    assert results[2] == "C"


async def test_a_flush_that_fails_tells_all_of_its_group_and_the_next_goes_on() -> None:
    gate = Gate()
    group = commits(gate)
    tasks = await begin(group, "a", "lost")
    gate.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert await group.submit("b") == "B"


async def test_a_group_has_a_size() -> None:
    gate = Gate()
    gate.open.set()
    await asyncio.gather(*await begin(commits(gate, group_size=2), "a", "b", "c", "d", "e"))
    assert gate.groups == [["a", "b"], ["c", "d"], ["e"]]


async def test_the_queue_is_bounded() -> None:
    gate = Gate()
    group = commits(gate, limit=2)
    tasks = await begin(group, "a")
    tasks += await begin(group, "b", "c")
    with pytest.raises(Unavailable, match="2 writes wait"):
        await group.submit("d")
    gate.open.set()
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]


async def test_a_caller_that_goes_away() -> None:
    gate = Gate()
    group = commits(gate)
    gone, stays = await begin(group, "gone", "stays")
    gone.cancel()
    gate.open.set()
    assert await stays == "STAYS"
    assert gate.groups == [["gone", "stays"]]


async def test_close_flushes_what_waits() -> None:
    gate = Gate()
    group = commits(gate)
    tasks = await begin(group, "a")
    tasks += await begin(group, "b")
    closing = asyncio.create_task(group.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="stopping"):
        await group.submit("late")
    gate.open.set()
    await closing
    assert [task.result() for task in tasks] == ["A", "B"]
