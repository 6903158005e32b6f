"""The limit for artifacts: an ASGI app that takes a PUT's bytes and forgets them, and sends as many for a GET."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
CHUNK = bytes(512 * 1024)


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """GET /.../COUNT sends COUNT bytes; whatever else arrives is read to its end."""
    if scope["type"] == "lifespan":
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    name = scope["path"].rsplit("/", 1)[-1]
    left = int(name) if scope["method"] == "GET" and name.isdecimal() else 0
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % left)]})
    while left:
        chunk = CHUNK[:left]
        left -= len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
