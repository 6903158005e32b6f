"""Stock answers some malformed requests with a 500 and a page of HTML; here its client learns what is wrong instead.

Everything else that stock says of a malformed request passes untouched. A 500 is no answer to wait for: stock says
503 for a database that is away, and has no other 500 than a request that it did not expect.
"""

from __future__ import annotations

import msgspec

from headrace.asgi.types import Message, Send


def instead_of_failure(send: Send, reason: str, failures: tuple[int, ...] = (500, 501)) -> Send:
    """A `send` that turns stock's 500, or the 501 of `--stock never`, into a 400 in MLflow's error shape with `reason`
    in it."""
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
    text = f"The request is not as MLflow's REST API describes it: {reason}."
    body = msgspec.json.encode({"error_code": "BAD_REQUEST", "message": text})
    length = b"%d" % len(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", length),
        (b"headrace-answered-by", b"native"),
    ]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
