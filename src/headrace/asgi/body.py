"""A request's body, as a whole."""

from __future__ import annotations

from headrace.asgi.types import Receive


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The body; of one with more than `limit` bytes only a beginning that is longer than that, and no more is read.

    None: the client went away.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message["body"]
    if not message["more_body"]:
        return body
    parts, size = [body], len(body)
    while message["more_body"] and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        size += len(message["body"])
    return b"".join(parts)
