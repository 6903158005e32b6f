"""Whole answers of our own: MLflow's JSON, its errors, a page."""

from __future__ import annotations

import msgspec

from headrace.asgi.protocol import ANSWER, Answer
from headrace.asgi.types import Headers, Scope, Send
from headrace.errors import ApiError

JSON = (b"content-type", b"application/json")
NATIVE = (b"headrace-answered-by", b"native")


async def send(scope: Scope, send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Answer in one packet where the server can do that."""
    if scope["method"] == "HEAD":
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": b""})
        return
    answer: Answer | None = scope.get("extensions", {}).get(ANSWER)
    if answer is not None:
        answer(status, headers, body)
        return
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_error(scope: Scope, send_message: Send, error: ApiError, security: Headers = ()) -> None:
    """Answer in MLflow's error shape."""
    body = msgspec.json.encode(error.content())
    await send(scope, send_message, error.status, body, (JSON, NATIVE, *error.headers, *security))
