"""Whole answers of our own: MLflow's JSON, its errors, a page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from headrace.asgi.protocol import ANSWER, Answer, Headers
from headrace.errors import ApiError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = (b"content-type", b"application/json")
# In the scope of a request that only a native handler may answer, with what is granted to these (Store.seen_by).
SEEN_BY = "headrace.seen_by"
# In the scope of every request: the security headers of a native answer, None where stock shall answer.
SECURITY = "headrace.security"
NATIVE = (b"headrace-answered-by", b"native")


async def send(scope: Scope, send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Answer in one packet where the server can do that."""
    answer: Answer | None = scope.get("extensions", {}).get(ANSWER)
    if answer is not None:
        answer(status, headers, body)
        return
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_error(scope: Scope, send_message: Send, error: ApiError, security: Headers = ()) -> None:
    """Answer in MLflow's error shape."""
    body = msgspec.json.encode({"error_code": error.error_code, "message": str(error)})
    await send(scope, send_message, error.status, body, (JSON, NATIVE, *error.headers, *security))
