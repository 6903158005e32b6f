"""The pass-through: what stock MLflow answers is read, looked at and handed on.

Only artifacts are streamed to stock. All other bodies are read first, so that none is too large or nested too deeply,
and none that comes slowly holds a connection to stock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from headrace.api.bad_request import instead_of_failure
from headrace.api.decode import beside_others, check_content_type, check_for_stock, decode, rewrite
from headrace.api.endpoint import Match, Note
from headrace.api.message import Message
from headrace.api.permits import Permit
from headrace.api.workspaces import Workspaces, for_stock
from headrace.artifacts.local import longer_than_disks_take
from headrace.asgi.body import Bodies
from headrace.asgi.responses import NATIVE, send_error
from headrace.asgi.responses import send as send_whole
from headrace.asgi.types import MESSAGE, PERMIT, SECURITY, Header, Receive, Scope, Send, header
from headrace.auth.objects import ArtifactFolder
from headrace.errors import ApiError, Forbidden
from headrace.monitoring import Metrics
from headrace.quotas import Quotas
from headrace.resources.traces.otlp import decompressed
from headrace.settings import Settings
from headrace.ui.refusals import HTML

if TYPE_CHECKING:
    from headrace.stock.forward import Forwarder
    from headrace.stock.never import NoStock

logger = logging.getLogger(__name__)

OF_FILES = (500,)  # what stock answers where it only fails at a path; a 501 says that this store can't do that
_REFUSALS = {
    404: "The requested URL was not found on the server. If you entered the URL manually please check your spelling "
    "and try again.",
    405: "The method is not allowed for the requested URL.",
}
# Bodies that stock gets as they come: what artifacts weigh is limited by their store alone.
_STREAMED = ("2.0/mlflow-artifacts/artifacts/{path:path}", "2.0/mlflow/upload-artifact")


class PassThrough:
    """Hands requests on to stock MLflow. `workspaces`, `quotas`: None where they are off."""

    def __init__(
        self,
        settings: Settings,
        bodies: Bodies,
        metrics: Metrics,
        workspaces: Workspaces | None,
        quotas: Quotas | None,
    ) -> None:
        self._settings = settings
        self._bodies = bodies
        self._metrics = metrics
        self._workspaces = workspaces
        self._quotas = quotas

    async def close(self) -> None:
        """No connection to stock is used any more."""
        if "_stock" in vars(self):
            await self._stock.close()

    @cached_property
    def _stock(self) -> Forwarder | NoStock:
        """Made for the first request that needs it: its HTTP client would be a tenth of a worker's start."""
        if self._settings.stock == "never":
            from headrace.stock.never import NoStock

            return NoStock()
        from headrace.stock.forward import Forwarder

        return Forwarder(self._settings.stock_socket, self._settings.stock_wait, self._settings.stock_idle)

    async def refuse(self, status: int, allow: Header, scope: Scope, receive: Receive, send: Send) -> None:
        """Stock's 404 or 405, for a body within the limits of what it gets."""
        security = scope[SECURITY]
        try:
            self._bodies.check_size(_body_of(scope)[0], scope)
            body = await self._bodies.read(scope, receive)
            if body is None:
                return
            await check_for_stock(scope, body)
        except ApiError as error:
            await send_error(scope, send, error, security)
        else:
            allowed = (allow,) if status == 405 else ()
            await send_whole(scope, send, status, _refusal(status), (HTML, *allowed, NATIVE, *security))

    async def hand_on(self, match: Match, scope: Scope, receive: Receive, send: Send, reason: str = "") -> None:
        """Hand a request to stock, of which nothing was read. One with limited rights is decoded and checked first."""
        permit: Permit | None = scope.get(PERMIT)
        length, chunked = _body_of(scope)
        if self._workspaces is not None and isinstance(match.endpoint.target, ArtifactFolder):
            named = match.parameters.get("path") or unquote(scope["query_string"].decode("latin-1"))
            if longer_than_disks_take(named):
                send = or_refusal(scope, send, "a name in the path is longer than a disk takes it", OF_FILES)
        is_read = permit is not None or chunked or (length > 0 and match.endpoint.path not in _STREAMED)
        body, message = b"", None
        try:
            if is_read:
                self._bodies.check_size(length, scope)
                if (read := await self._bodies.read(scope, receive)) is None:
                    return
                body, message = read, await self._check(match, scope, read, permit)
            body = await beside_others(body, _look_at, match, scope, body)
            if self._workspaces is not None:
                body = for_stock(match, scope, body)
            if self._quotas is not None:
                await self._quotas.check_request(match, scope, body, message)
        except ApiError as error:
            await send_error(scope, send, error, scope[SECURITY])
        else:
            known = body if is_read else body or None
            await self.hand_on_read(match, scope, receive, send, message, known, reason)

    async def _check(self, match: Match, scope: Scope, body: bytes, permit: Permit | None) -> Message | None:
        """What a sender with limited rights says, which they may; None of everybody else. Raises ApiError."""
        encoding = (header(scope, b"content-encoding") or b"").decode("latin-1")
        if match.endpoint.raw and encoding:  # spans, which stock would unpack whatever they unpack to
            await asyncio.to_thread(decompressed, body, encoding.lower(), self._settings.max_body_bytes)
        if permit is None:
            return None
        if encoding and not match.endpoint.raw:
            raise Forbidden("A compressed request can't be checked. Send it as it is.")
        message = await beside_others(body, decode, match, scope, body, permit)
        await permit.check(message)
        return message

    async def hand_on_read(
        self,
        match: Match,
        scope: Scope,
        receive: Receive,
        send: Send,
        message: Message | None,
        body: bytes | None,
        reason: str,
        is_owned: bool = False,
    ) -> None:
        """Hand a request to stock, of which all was read and `message` was checked. A `body` of None is read by stock.

        Of a sender with grants, stock gets what the message says, and nothing that it would answer with more than that,
        or that makes what nobody would own: `is_owned` says that somebody will.
        """
        permit: Permit | None = scope.get(PERMIT)
        try:
            await check_for_stock(scope, b"" if match.endpoint.raw or body is None else body)
        except ApiError as error:
            await send_error(scope, send, error, scope[SECURITY])
            return
        if permit is not None and permit.exact:
            assert message is not None
            target = match.endpoint.target
            if target.filtered or (target.creates and not is_owned):
                refusal = Forbidden("Stock MLflow would answer this with more than what you may see.")
                await send_error(scope, send, refusal, scope[SECURITY])
                return
            body = rewrite(match, scope, message, body or b"")
        self._metrics.of_stock(scope["method"], match.endpoint.path)
        await self._stock.forward(scope, receive, send, body, route=_route(match, scope), reason=reason)


def _refusal(status: int) -> bytes:
    """Flask's page."""
    name = HTTPStatus(status).phrase
    title = f"<title>{status} {name}</title>\n<h1>{name}</h1>"
    return f"<!doctype html>\n<html lang=en>\n{title}\n<p>{_REFUSALS[status]}</p>\n".encode()


def _body_of(scope: Scope) -> tuple[int, bool]:
    """How many bytes the client says that it sends, and whether it sends them without saying that."""
    length, chunked = 0, False
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)  # httptools has looked at it
        elif name == b"transfer-encoding":
            chunked = True
    return length, chunked


def _look_at(match: Match, scope: Scope, body: bytes) -> bytes:
    """What a request on its way to stock says, for the audit; where its declaration says how it must be, it is refused
    for what is not so, and its body is written anew: "true" and 5.0 are read here, and taken for absent by stock.

    The body that stock gets. Raises ApiError.
    """
    endpoint = match.endpoint
    if endpoint.handler is not None or endpoint.path in _STREAMED or not endpoint.message.__struct_fields__:
        return body
    if endpoint.check is None:
        if MESSAGE not in scope:
            with contextlib.suppress(ApiError):
                decode(match, scope, body, None)
        return body
    if body:
        check_content_type(scope, body)
    message = scope.get(MESSAGE) or decode(match, scope, body, None)
    endpoint.check(message)
    return rewrite(match, scope, message, body)


def or_refusal(scope: Scope, send: Send, why: str, failures: tuple[int, ...]) -> Send:
    """A `send` for stock's answer, whose `failures` are the fault of who asks."""
    scope["extensions"] = {}  # nothing is answered past it
    return instead_of_failure(send, why, failures)


def noting(send: Send, note: Note) -> Send:
    """A `send` for an answer of stock's, of which an event is noted before who asked has all of it: with the last byte
    they may be gone, and what is done for them ends."""
    status, length = 0, -1
    answer = bytearray()
    is_noted = False

    async def look(event: Any) -> None:
        nonlocal status, length, is_noted
        if event["type"] == "http.response.start":
            status = event["status"]
            length = int(dict(event["headers"]).get(b"content-length", -1))
        elif status == 200 and not is_noted:
            answer.extend(event.get("body", b""))
            if len(answer) == length or not event.get("more_body"):
                is_noted = True
                try:
                    await note(bytes(answer))
                except Exception:  # the request is done, whatever it is that can't be read
                    logger.exception("an event that stock's answer tells of can't be noted")
        await send(event)

    return look


def _route(match: Match, scope: Scope) -> str:
    """What stock's part logs of the endpoint: its declaration, never a client's own text."""
    return f"{scope['method']} {match.endpoint.path}" if match.endpoint.path else "other"
