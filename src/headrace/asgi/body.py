"""A request's body, as a whole, and how much of all bodies is held at a time."""

from __future__ import annotations

from collections.abc import Callable

from headrace.asgi.types import HELD, Message, Receive, Scope
from headrace.errors import PayloadTooLarge, Unavailable

SMALL = 1024 * 1024  # bytes; what is no larger is not counted


class Bodies:
    """The bodies that a worker holds, of `limit` bytes each, and `most` bytes of large ones together; who would need
    more is told to come again."""

    def __init__(self, limit: int, most: int) -> None:
        self._limit, self._most, self._held = limit, most, 0

    async def read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None: the client went away. `release` must follow, whatever comes of it.

        Raises PayloadTooLarge, Unavailable.
        """
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"]:  # the usual one: it is all here
            whole: bytes = message["body"]
            self.check_size(len(whole), scope)
            return whole
        for name, value in scope["headers"]:
            if name == b"content-length":  # nobody waits for what is refused
                self.check_size(int(value), scope)

        def hold(size: int) -> None:
            if self._held + size > self._most:
                raise Unavailable("The server holds as many large requests as it can. Send this one again in a moment.")
            self._held += size
            scope[HELD] = scope.get(HELD, 0) + size

        body = await _rest(message, receive, self._limit, hold)
        if body is not None:
            self.check_size(len(body), scope)
        return body

    def check_size(self, size: int, scope: Scope) -> None:
        """Raises PayloadTooLarge."""
        if size > self._limit:
            raise PayloadTooLarge(
                f"The body is larger than the {self._limit} bytes that {scope['path']} takes. "
                "Log in smaller batches, or let the server's administrator raise --max-body-bytes."
            )

    def release(self, scope: Scope) -> None:
        """The request is done."""
        if HELD in scope:
            self._held -= scope.pop(HELD)


async def read_body(receive: Receive, limit: int, hold: Callable[[int], None] = lambda size: None) -> bytes | None:
    """The body; of one with more than `limit` bytes only a beginning that is longer than that, and no more is read.

    None: the client went away. `hold` is told of what is more than SMALL, piece by piece, and may raise.
    """
    return await _rest(await receive(), receive, limit, hold)


async def _rest(message: Message, receive: Receive, limit: int, hold: Callable[[int], None]) -> bytes | None:
    """The body that begins with this message."""
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
