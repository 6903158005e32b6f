"""The application, composed: every request is answered natively or passed through untouched to stock MLflow.

request -> native route? -> read, decode, store, render -> answer
               | no, or declined
               +-> stock.forward
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, MutableMapping
from importlib.metadata import version
from typing import Any

from headrace.api.bad_request import instead_of_failure
from headrace.artifacts.routes import Artifacts
from headrace.artifacts.routes import Handler as StreamHandler
from headrace.asgi.body import read_body
from headrace.asgi.compression import JsonCompression
from headrace.asgi.protocol import Headers
from headrace.asgi.responses import JSON, NATIVE, SECURITY, SEEN_BY, Application, Receive, Scope, Send, send_error
from headrace.asgi.responses import send as send_whole
from headrace.asgi.security import page_headers
from headrace.asgi.shield import Shield
from headrace.auth.accounts import accounts_of
from headrace.db import open_store
from headrace.db.base import Store
from headrace.errors import ApiError, Declined, Forbidden, Malformed, PayloadTooLarge, Unavailable
from headrace.resources.routes import ROUTES, Handler, Route, server_info_routes
from headrace.settings import Settings
from headrace.stock.forward import Forwarder
from headrace.ui.files import UI
from headrace.ui.stub_answers import Absent
from headrace.uri import redact

logger = logging.getLogger(__name__)

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_DEFAULT_WORKSPACE = (b"", b"default")
RECONNECT_SECONDS = 1.0


class App:
    """The ASGI application of a worker."""

    def __init__(self, settings: Settings, store: Store | None) -> None:
        prefix = settings.static_prefix
        self._settings = settings
        self._store = store
        self._forward = Forwarder(settings.stock_socket, settings.stock_wait)
        self._artifacts = Artifacts(settings, self._store)
        self._ui = UI(prefix, page_headers(settings))
        self._absent = Absent(settings, os.environ)
        self._compression = JsonCompression(settings.compress_json)
        self._connecting: asyncio.Task[None] | None = None
        self._texts = {f"{prefix}/health": b"OK", f"{prefix}/version": version("mlflow").encode()}
        self._routes: dict[tuple[str, str], Route] = {}
        if self._store is not None:
            self._routes = {(route.method, prefix + path): route for route in ROUTES for path in route.paths()}
            for route in server_info_routes(settings):
                # with and without the prefix, as stock has it
                self._routes |= {("GET", p + path): route for path in route.paths() for p in (prefix, "")}
        if not settings.models_here:
            self._leave_to_stock({"model_versions"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path: str = scope["path"]
        route = self._routes.get((scope["method"], path))
        if route is not None:
            await self._answer(route.handler, scope, receive, send)
        elif path in self._texts and scope["method"] == "GET":
            await send_whole(scope, send, 200, self._texts[path], (_TEXT, NATIVE))
        elif (asked := self._artifacts.find_json(scope["method"], path)) is not None:
            await self._answer(asked, scope, receive, send)
        elif (stream := self._streamed(scope["method"], path)) is not None:
            await self._stream(stream, scope, receive, send)
        else:
            await self._to_stock(scope, receive, send)

    async def _answer(self, handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer natively, or hand what was read of the request to stock."""
        security = self._native_headers(scope)
        if security is None:
            await self._to_stock(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except PayloadTooLarge as error:
            await send_error(scope, send, error, security)
            return
        if body is None:  # the client went away
            return
        try:
            answer = await handler(self._store_for(scope), body, scope["query_string"])
        except Malformed as reason:
            await self._to_stock(scope, receive, instead_of_failure(send, str(reason)), body)
        except Declined as reason:
            logger.debug("declined %s: %s", scope["path"], reason)
            await self._to_stock(scope, receive, send, body)
        except ApiError as error:
            await send_error(scope, send, error, security)
        else:
            packed, encoded = await self._compression.compress(scope, answer)
            await send_whole(scope, send, 200, packed, (JSON, NATIVE, *security, *encoded))

    def _store_for(self, scope: Scope) -> Store:
        """With what the sender of the request may see in it."""
        assert self._store is not None
        return self._store.seen_by(scope[SEEN_BY]) if SEEN_BY in scope else self._store

    async def _to_stock(self, scope: Scope, receive: Receive, send: Send, body: bytes | None = None) -> None:
        if SEEN_BY in scope:
            await send_error(scope, send, Forbidden("MLflow would answer this with more than what you may see."))
            return
        await self._forward.forward(scope, receive, send, body)

    def _streamed(self, method: str, path: str) -> StreamHandler | None:
        return self._artifacts.find(method, path) or self._ui.find(method, path) or self._absent.find(method, path)

    async def _stream(self, handler: StreamHandler, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the handler answer as it reads, or hand the request to stock before any of its body is read."""
        security = self._native_headers(scope, json=False)
        if security is not None:
            try:
                await handler(scope, receive, _with_headers(send, (NATIVE, *security)))
            except Declined as reason:
                logger.debug("declined %s: %s", scope["path"], reason)
            except ApiError as error:
                await send_error(scope, send, error, security)
                return
            else:
                return
        await self._to_stock(scope, receive, send)

    def _native_headers(self, scope: Scope, json: bool = True) -> Headers | None:
        """The security headers of the answer, or None where one of the request's headers makes it stock's."""
        content_type = None
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value
            elif name == b"content-encoding" or (
                name == b"x-mlflow-workspace" and value.strip() not in _DEFAULT_WORKSPACE
            ):
                return None
        if json and scope["method"] == "POST" and (content_type or b"").split(b";")[0] != b"application/json":
            return None
        security: Headers | None = scope[SECURITY]
        return security

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client went away. Raises PayloadTooLarge."""
        limit = self._settings.max_body_bytes
        body = await read_body(receive, limit)
        if body is not None and len(body) > limit:
            raise PayloadTooLarge(
                f"The body is larger than the {limit} bytes that {scope['path']} takes. "
                "Log in smaller batches, or let the server's administrator raise --max-body-bytes."
            )
        return body

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start()
        except Exception as error:
            logger.debug("the start failed", exc_info=True)
            await send({"type": "lifespan.startup.failed", "message": f"The server can't start: {redact(str(error))}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        if self._store is None:
            logger.info("this backend store is stock's alone: every request passes through")
            return
        try:
            await self._connect(self._store)
        except Unavailable as error:
            logger.warning("%s Trying again every %g s.", error, RECONNECT_SECONDS)
            self._connecting = asyncio.create_task(self._keep_connecting(self._store))

    async def _keep_connecting(self, store: Store) -> None:
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            try:
                await self._connect(store)
            except Unavailable:
                continue
            logger.info("the database is back")
            return

    async def _connect(self, store: Store) -> None:
        """Start the store, and leave to stock whatever works on tables that are not as they were."""
        await store.start()
        for table, difference in store.changed_tables.items():
            logger.warning("table %s is not as Headrace knows it (%s): stock answers what needs it", table, difference)
        self._leave_to_stock(store.changed_tables.keys())

    def _leave_to_stock(self, tables: Collection[str]) -> None:
        """No native answers from these tables."""
        self._routes = {key: route for key, route in self._routes.items() if set(tables).isdisjoint(route.tables)}

    async def _stop(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._store is not None:
            await self._store.close()
        await self._forward.close()


def create_app(settings: Settings) -> Application:
    """The application for these settings; nothing is connected before its lifespan starts."""
    store = open_store(settings)
    app = App(settings, store)
    if not settings.protected:
        return Shield(app, settings)
    from headrace.api.audit import Audit
    from headrace.api.guard import Guard  # what it needs stays out of a server that asks nobody
    from headrace.auth.audit_table import AuditTable

    assert store is not None

    guarded: Application = Guard(app, settings, accounts_of(store))
    if settings.audit != "off":
        guarded = Audit(guarded, settings, AuditTable(store) if settings.audit_table else None)
    return Shield(guarded, settings)


def _with_headers(send: Send, headers: Headers) -> Send:
    """A `send` that adds the headers which an answer has not got."""

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(header for header in headers if header[0] not in names)]
        await send(message)

    return send_with_headers
