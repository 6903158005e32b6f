"""How much of all bodies a worker holds at a time."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.asgi.body import SMALL, Bodies
from headrace.asgi.types import Receive, Scope
from headrace.errors import Unavailable

LIMIT = 10 * SMALL
PIECE = b"x" * (SMALL // 4)


def sender(size: int) -> Receive:
    """Sends `size` bytes in pieces."""
    left = [size]

    async def receive() -> dict[str, Any]:
        body = PIECE[: left[0]]
        left[0] -= len(body)
        return {"type": "http.request", "body": body, "more_body": left[0] > 0}

    return receive


async def test_large_bodies_have_room_for_as_many_as_there_may_be() -> None:
    bodies = Bodies(2 * LIMIT)
    scopes: list[Scope] = [{} for _ in range(3)]
    for scope in scopes[:2]:
        body = await bodies.read(scope, sender(9 * SMALL), LIMIT)
        assert body is not None
        assert len(body) == 9 * SMALL
    with pytest.raises(Unavailable, match="as many large requests as it can"):
        await bodies.read(scopes[2], sender(9 * SMALL), LIMIT)
    bodies.release(scopes[2])  # what of it had come
    small: Scope = {}
    assert await bodies.read(small, sender(SMALL), LIMIT) is not None  # not counted
    bodies.release(small)
    bodies.release(scopes[0])
    assert await bodies.read(scopes[2], sender(9 * SMALL), LIMIT) is not None
    for scope in scopes:
        bodies.release(scope)
    assert bodies._held == 0
