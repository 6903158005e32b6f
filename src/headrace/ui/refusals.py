"""What one of our own pages refuses of somebody who looks at it with a browser is a page, too, with the way back."""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus

from headrace.api.endpoint import Match
from headrace.asgi.responses import error_headers, send_error
from headrace.asgi.responses import send as send_whole
from headrace.asgi.types import MATCH, Headers, Scope, Send
from headrace.errors import ApiError
from headrace.ui import html

HTML = (b"content-type", b"text/html; charset=utf-8")


def wants_page(scope: Scope) -> bool:
    """Whether a person's browser asks for a page."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def send_refusal(scope: Scope, send: Send, error: ApiError, security: Headers = ()) -> Awaitable[None]:
    """Answer with a page, or in MLflow's error shape where it is no page that was asked for."""
    match: Match = scope[MATCH]
    if "/headrace/" not in match.endpoint.path or not wants_page(scope):
        return send_error(scope, send, error, security)
    title = HTTPStatus(error.status).phrase
    body = html.own_page(title, html.alert(str(error)), up=_up(match, scope))
    headers = (HTML, *html.headers(), *error_headers(scope, error, security))
    return send_whole(scope, send, error.status, body, headers)


def _up(match: Match, scope: Scope) -> str:
    """From what a browser takes for the folder of an address below /headrace/, up to that."""
    path: str = scope["path"]
    raw: bytes = scope["raw_path"]
    above = path.removesuffix(match.parameters.get("path") or match.endpoint.path.rpartition("/headrace/")[2])
    return "../" * (raw.count(b"/") - above.count("/"))
