"""Room by itself: who waits for whom."""

from __future__ import annotations

import asyncio

from headrace.resources.traces.room import Room


class Guests:
    """Tasks that are in a room until they are told to go."""

    def __init__(self, size: int) -> None:
        self.room = Room(size)
        self.inside: list[str] = []
        self._going: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, size: int) -> None:
        self._going[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, size))
        await self._settle()

    async def go(self, name: str) -> None:
        self._going[name].set()
        await self._settle()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        await self._settle()

    async def _stay(self, name: str, size: int) -> None:
        async with self.room.of(size):
            self.inside.append(name)
            await self._going[name].wait()
        self.inside.remove(name)

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_who_comes_later_waits_in_order() -> None:
    guests = Guests(10)
    for name, size in (("a", 6), ("b", 4), ("c", 5), ("d", 1)):
        await guests.come(name, size)
    assert guests.inside == ["a", "b"]
    await guests.go("b")
    assert guests.inside == ["a"]  # d would fit, but c was here before
    await guests.go("a")
    assert guests.inside == ["c", "d"]


async def test_who_is_larger_than_the_room_has_it_alone() -> None:
    guests = Guests(10)
    for name, size in (("a", 1), ("giant", 99), ("b", 1)):
        await guests.come(name, size)
    assert guests.inside == ["a"]
    await guests.go("a")
    assert guests.inside == ["giant"]
    await guests.go("giant")
    assert guests.inside == ["b"]


async def test_who_gives_up_takes_no_room() -> None:
    guests = Guests(10)
    for name, size in (("a", 9), ("b", 9), ("c", 1)):
        await guests.come(name, size)
    await guests.give_up("b")
    assert guests.inside == ["a", "c"]
    await guests.give_up("a")  # inside: its room is free again
    await guests.come("d", 9)
    assert guests.tasks["d"].done() is False
    assert "d" in guests.inside


async def test_an_error_inside_frees_its_room() -> None:
    room = Room(1)
    for _ in range(2):
        try:
            async with asyncio.timeout(1), room.of(1):
                raise ValueError
        except ValueError:
            pass
