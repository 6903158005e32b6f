"""A request's body, as a whole, and how much of all bodies is held at a time."""

from __future__ import annotations

from collections.abc import Callable

from headrace.asgi.types import HELD, Receive, Scope
from headrace.errors import Unavailable

SMALL = 1024 * 1024  # bytes; what is no larger is not counted


class Bodies:
    """The large bodies that a worker holds, `most` bytes of them; who would need more is told to come again."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    async def read(self, scope: Scope, receive: Receive, limit: int) -> bytes | None:
        """As read_body. `release` must follow, whatever comes of it. Raises Unavailable."""

        def hold(size: int) -> None:
            if self._held + size > self._most:
                raise Unavailable("The server holds as many large requests as it can. Send this one again in a moment.")
            self._held += size
            scope[HELD] = scope.get(HELD, 0) + size

        return await read_body(receive, limit, hold)

    def release(self, scope: Scope) -> None:
        """The request is done."""
        self._held -= scope.pop(HELD, 0)


async def read_body(receive: Receive, limit: int, hold: Callable[[int], None] = lambda size: None) -> bytes | None:
    """The body; of one with more than `limit` bytes only a beginning that is longer than that, and no more is read.

    None: the client went away. `hold` is told of what is more than SMALL, piece by piece, and may raise.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message["body"]
    counted = 0
    if not message["more_body"]:
        return body
    parts, size = [body], len(body)
    while message["more_body"] and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        size += len(message["body"])
        if size - counted > SMALL:
            hold(size - counted)
            counted = size
    return b"".join(parts)
