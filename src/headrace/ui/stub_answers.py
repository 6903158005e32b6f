"""What the UI asks on every page about features that this server has not got: known answers that never change.

They are native because a browser has six connections to a server, and requests that wait for stock to start would hold
up those that show the page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any, NamedTuple

from headrace.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Answer(NamedTuple):
    """An answer to GET."""

    status: int
    content_type: bytes
    body: bytes


# Flask's answer to a path that it does not know
NOT_FOUND = Answer(
    404,
    b"text/html; charset=utf-8",
    b"<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>The requested URL was not"
    b" found on the server. If you entered the URL manually please check your spelling and try again.</p>\n",
)
# handlers.gateway_proxy_handler pretends that an empty gateway is running
NO_GATEWAY = Answer(200, b"application/json", b'{"endpoints":[]}\n')


class Absent:
    """The answers of a server with these settings."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._answers: dict[str, Answer] = {}
        api = f"{settings.static_prefix}/ajax-api/2.0/mlflow/"
        if not settings.protected:
            self._answers[f"{api}users/current"] = NOT_FOUND
        if not environment.get("MLFLOW_DEPLOYMENTS_TARGET"):
            self._answers[f"{api}gateway-proxy"] = NO_GATEWAY

    def find(self, method: str, path: str) -> Handler | None:
        """What answers such a request; None: stock does."""
        answer = self._answers.get(path)
        return partial(_send, answer) if answer is not None and method == "GET" else None


async def _send(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
