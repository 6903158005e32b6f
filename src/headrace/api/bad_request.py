"""Stock answers some malformed requests with a 500 and a page of HTML; here its client learns what is wrong instead.

Everything else that stock says of a malformed request passes untouched. A 500 is no answer to wait for: stock says
503 for a database that is away, and has no other 500 than a request that it did not expect.
"""

from __future__ import annotations

import msgspec

from headrace.asgi.responses import JSON, NATIVE
from headrace.asgi.types import Message, Send
from headrace.errors import BadRequest


def instead_of_failure(send: Send, reason: str, failures: tuple[int, ...]) -> Send:
    """A `send` that turns an answer of stock's with one of the statuses `failures` into a 400 with `reason` in it.

    They are 500, and where nothing but stock would have answered the 501 of `--stock never`.
    """
    failed = False

    async def passing(message: Message) -> None:
        nonlocal failed
        if message["type"] == "http.response.start" and message["status"] in failures:
            failed = True
            await _refuse(send, reason)
        elif not failed:
            await send(message)

    return passing


async def _refuse(send: Send, reason: str) -> None:
    error = BadRequest(f"The request is not as MLflow's REST API describes it: {reason}.")
    body = msgspec.json.encode(error.content())
    headers = [JSON, NATIVE, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
