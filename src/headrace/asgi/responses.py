"""Whole answers of our own: MLflow's JSON, its errors, a page."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Generator

import msgspec

from headrace.asgi.protocol import ANSWER, Answer
from headrace.asgi.types import Headers, Scope, Send
from headrace.errors import ApiError

JSON = (b"content-type", b"application/json")
logger = logging.getLogger(__name__)
ERROR_ID = b"headrace-error-id"
NATIVE = (b"headrace-answered-by", b"native")


class _Done:
    """To be awaited for nothing."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_DONE = _Done()


def send(scope: Scope, send: Send, status: int, body: bytes, headers: Headers) -> Awaitable[None]:
    """Answer in one packet where the server can do that: at once, and with nothing to wait for."""
    answer: Answer | None = scope.get("extensions", {}).get(ANSWER)
    if answer is None or scope["method"] == "HEAD":
        return _send_in_two(scope, send, status, body, headers)
    answer(status, headers, body)
    return _DONE


async def _send_in_two(scope: Scope, send: Send, status: int, body: bytes, headers: Headers) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def send_error(scope: Scope, send_message: Send, error: ApiError, security: Headers = ()) -> None:
    """Answer in MLflow's error shape."""
    headers = (JSON, *error_headers(scope, error, security))
    await send(scope, send_message, error.status, msgspec.json.encode(error.content()), headers)


def error_headers(scope: Scope, error: ApiError, security: Headers = ()) -> Headers:
    """Those of an answer with this error, but for its type; one of our fault is in the log, with the id it has here."""
    headers = (NATIVE, *error.headers, *security)
    if error.status >= 500:
        return (*headers, error_id(f"{scope['method']} {scope['path']!r}", error.status, str(error), error.id))
    return headers


def error_id(what: str, status: int, text: str, known: str = "") -> tuple[bytes, bytes]:
    """The header that names an error to the client; the log has it under the same id, in one line.

    `known`: the id that is in the log already.
    """
    name = known or secrets.token_hex(4)
    if not known:
        logger.warning("error %s: %s is answered %d: %s", name, what, status, text)
    return ERROR_ID, name.encode()


def failure(scope: Scope) -> ApiError:
    """The answer to a request that a handler has failed at; the log has the traceback under the same id."""
    error_id = secrets.token_hex(4)
    logger.exception("error %s at %s %r", error_id, scope["method"], scope["path"])
    error = ApiError(f"Headrace has failed at this request. Its log says why, as error {error_id}.")
    error.id = error_id
    return error
