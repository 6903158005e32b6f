"""How much of all bodies a worker holds at a time."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.asgi.body import SMALL, Bodies
from headrace.asgi.types import Receive, Scope
from headrace.errors import PayloadTooLarge, Unavailable

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
    bodies = Bodies(LIMIT, 2 * LIMIT)
    scopes: list[Scope] = [{"path": "/", "headers": []} for _ in range(3)]
    for scope in scopes[:2]:
        body = await bodies.read(scope, sender(9 * SMALL))
        assert body is not None
        assert len(body) == 9 * SMALL
    with pytest.raises(Unavailable, match="as many large requests as it can"):
        await bodies.read(scopes[2], sender(9 * SMALL))
    bodies.release(scopes[2])  # what of it had come
    small: Scope = {"path": "/", "headers": []}
    assert await bodies.read(small, sender(SMALL)) is not None  # not counted
    bodies.release(small)
    bodies.release(scopes[0])
    assert await bodies.read(scopes[2], sender(9 * SMALL)) is not None
    for scope in scopes:
        bodies.release(scope)
    assert bodies._held == 0


@pytest.mark.parametrize("pieces", [1, 8])
async def test_one_that_is_too_large(pieces: int) -> None:
    bodies = Bodies(len(PIECE) * pieces - 1, 2 * LIMIT)
    scope: Scope = {"path": "/api/2.0/mlflow/runs/log-batch", "headers": []}
    with pytest.raises(PayloadTooLarge, match=r"bytes that .*log-batch takes"):
        await bodies.read(scope, sender(len(PIECE) * pieces))
    assert await bodies.read(scope, sender(len(PIECE) * pieces - 1)) is not None
