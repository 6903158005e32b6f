"""The application, composed: every request is answered natively or passed through to stock MLflow.

request -> its declaration -> message -> permit -> handler -> answer
               | streams, no handler, or declined
               +-> artifacts, the UI's files, the pass-through
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import Any

import msgspec

from headrace.access_log import AccessLog
from headrace.api.decode import beside_others, check_content_type, decode
from headrace.api.endpoint import METHODS, UNDECLARED, ArtifactFile, Call, Endpoint, Match, Response, Router
from headrace.api.message import Message, check_values
from headrace.api.permits import Permit
from headrace.api.workspace_header import NO_WORKSPACES, check_default
from headrace.api.workspaces import Workspaces
from headrace.artifacts.direct import JsonHandler
from headrace.artifacts.routes import Artifacts
from headrace.artifacts.routes import Handler as StreamHandler
from headrace.asgi.body import Bodies
from headrace.asgi.compression import JsonCompression
from headrace.asgi.protocol import CLIENT_GONE
from headrace.asgi.responses import JSON, NATIVE, failure, send_error
from headrace.asgi.responses import send as send_whole
from headrace.asgi.security import page_headers
from headrace.asgi.shield import Shield
from headrace.asgi.types import (
    MATCH,
    OBSERVED,
    PERMIT,
    SECURITY,
    WORKSPACE,
    Application,
    Header,
    Headers,
    Receive,
    Scope,
    Send,
)
from headrace.asgi.types import Message as AsgiMessage
from headrace.auth.accounts import accounts_of
from headrace.auth.objects import Workspace
from headrace.auth.principals import Right
from headrace.background import Background
from headrace.db import open_database
from headrace.db.database import Database, TableChanged
from headrace.errors import ApiError, Declined, Malformed, NotFound, NotServed, StoreUnusable
from headrace.events.notes import Events
from headrace.monitoring import CONTENT_TYPE, Metrics, Observed
from headrace.pass_through import OF_FILES, PassThrough, noting, or_refusal
from headrace.quotas import Quotas
from headrace.readiness import Readiness, check_tables
from headrace.resources import all_endpoints, needs_runs, server_info
from headrace.settings import Settings
from headrace.ui.files import UI
from headrace.ui.page_head import page_head
from headrace.ui.refusals import HTML, send_refusal
from headrace.ui.stub_answers import Absent
from headrace.uri import redact
from headrace.versions import installed_version

logger = logging.getLogger(__name__)

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_JSON_200 = (JSON, NATIVE)
_EMPTY = b"{}"
_READING = ("GET", "HEAD")
# The MLflow whose endpoints are all declared (tests/differential/test_surface.py), and what it says of other paths.
_DECLARED = "3.17."
_BODIES_HELD = 4  # as many of the largest at a time


class App:
    """The ASGI application of a worker."""

    def __init__(
        self, settings: Settings, database: Database | None, router: Router, readiness: Readiness, metrics: Metrics
    ) -> None:
        prefix = settings.static_prefix
        self._settings = settings
        self._database = database
        self._find = router.find
        self._methods, self._knows = router.methods, router.knows
        self._readiness = readiness
        self._ready = f"{prefix}/ready"
        self._metrics = metrics
        self._metrics_path = f"{prefix}/metrics"
        self._own_pages = f"{prefix}/headrace/"
        self._artifacts = Artifacts(settings, database)
        self._ui = UI(prefix, page_headers(settings), page_head(settings))
        self._absent = Absent(settings)
        self._artifacts_only = settings.artifacts_only
        self._bodies = Bodies(settings.max_body_bytes, _BODIES_HELD * settings.max_body_bytes)
        self._compression = JsonCompression(settings.compress_json)
        self._texts: dict[str, Callable[[], tuple[Header, bytes]]] = {
            f"{prefix}/health": lambda: (_TEXT, b"OK"),
            f"{prefix}/version": lambda: (_TEXT, installed_version("mlflow").encode()),
            f"{prefix}/headrace/version": lambda: (JSON, _versions()),
        }
        for path, content in server_info.answer_without_database(settings).items():
            self._texts[path] = partial(_json, content)
        # tables that are not as Headrace's SQL expects them: stock answers what works on one
        self._not_ours: frozenset[str] = frozenset() if settings.models_here else frozenset({"registered_models"})
        self._workspaces: Workspaces | None = None
        self._quotas = Quotas(settings, database) if settings.quota and database is not None else None
        if database is not None:
            events = Events()
            self._call = Call(database, settings, events=events)
            self._background = Background(settings, database, events, self._quotas, self._leave_to_stock)
            if settings.enable_workspaces:
                self._workspaces = Workspaces(database)
        self._pass_through = PassThrough(settings, self._bodies, metrics, self._workspaces, self._quotas)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself: the usual request costs none more."""
        if scope["type"] == "lifespan":
            return self._lifespan(receive, send)
        match: Match = scope[MATCH]
        if match.endpoint.handler is not None and self._is_native(match.endpoint):
            return self._answer(match, scope, receive, send)
        return self._in_pieces(self._find_answer, scope, receive, send)

    def _in_pieces(self, answer: Application, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let `answer` have a request, which the metrics must look on at then."""
        observed = scope.get(OBSERVED)
        return observed.watch(answer, scope, receive, send) if observed else answer(scope, receive, send)

    async def _find_answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what no handler of a declaration does."""
        match: Match = scope[MATCH]
        if scope["method"] == "OPTIONS":
            headers = (self._allow(scope["path"]), HTML, NATIVE, *scope[SECURITY])
            await send_whole(scope, send, 204, b"", headers)
            return
        try:
            if self._is_anothers(match.endpoint):
                error = NotServed(
                    f"This server has artifacts only (--artifacts-only); {scope['path']} is another server's. Set "
                    "MLFLOW_TRACKING_URI to that one."
                )
                await send_error(scope, send, error, scope[SECURITY])
            elif self._has_no_workspaces(match.endpoint):
                await send_error(scope, send, NO_WORKSPACES, scope[SECURITY])
            elif (text := self._texts.get(scope["path"])) is not None and scope["method"] in _READING:
                content_type, content = text()
                await send_whole(scope, send, 200, content, (content_type, NATIVE))
            elif scope["path"] == self._ready:
                await self._answer_ready(scope, send)
            elif scope["path"] == self._metrics_path and scope["method"] in _READING:
                await self._answer_metrics(match, scope, send)
            elif (handler := self._artifacts.find_json(scope["method"], scope["path"])) is not None:
                await self._answer_by(handler, match, scope, receive, send)
            elif (stream := self._streamed(scope["method"], scope["path"])) is not None:
                await self._stream(stream, match, scope, receive, send)
            elif scope["path"].startswith(self._own_pages):
                nothing = NotFound(f"There is no page {scope['path']} on this server.")
                await send_refusal(scope, send, nothing, scope[SECURITY])
            elif match is UNDECLARED and (status := self._refusal(scope)):
                await self._pass_through.refuse(status, self._allow(scope["path"]), scope, receive, send)
            else:
                await self._pass_through.hand_on(match, scope, receive, send)
        finally:
            self._bodies.release(scope)

    def _refusal(self, scope: Scope) -> int | None:
        """404 where stock, too, has nothing: /favicon.ico, what a crawler tries, a probe's wrong path, an agent's
        /v1/metrics and /v1/logs every few seconds. 405 where it has other methods alone: R's client searches registered
        models by POST.

        A newer MLflow may have paths of its own, and what we leave to stock methods that are refused in its own way.
        """
        path = scope["path"]
        if scope["method"] not in METHODS or not installed_version("mlflow").startswith(_DECLARED):
            return None
        if path.startswith(f"{self._settings.static_prefix}/") and not self._knows(path):
            return 404
        others = [self._find(method, path).endpoint for method in self._methods(path)]
        is_ours = all(each.handler is not None and not each.path.startswith("/") for each in others)
        return 405 if others and is_ours else None

    def _allow(self, path: str) -> Header:
        """The header with the methods that this path has (RFC 9110, 9.3.7). Stock does not see OPTIONS, which needs
        no credentials and may have a body of any size."""
        return (b"allow", ", ".join([*self._methods(path), "OPTIONS"]).encode())

    async def _answer_ready(self, scope: Scope, send: Send) -> None:
        try:
            await self._readiness.check(self._database)
        except ApiError as error:
            await send_error(scope, send, error)
        else:
            await send_whole(scope, send, 200, b"OK", (_TEXT, NATIVE))

    async def _answer_metrics(self, match: Match, scope: Scope, send: Send) -> None:
        permit: Permit | None = scope.get(PERMIT)
        try:
            if permit is not None:
                await permit.check(decode(match, scope, b"", permit))
        except ApiError as error:
            await send_error(scope, send, error)
            return
        self._metrics.refresh(self._database)
        text = await asyncio.to_thread(self._metrics.render)
        await send_whole(scope, send, 200, text, ((b"content-type", CONTENT_TYPE), NATIVE))

    def _is_native(self, endpoint: Endpoint) -> bool:
        if self._database is None or self._is_anothers(endpoint) or self._has_no_workspaces(endpoint):
            return False
        return not self._not_ours or self._not_ours.isdisjoint(endpoint.tables)

    def _is_anothers(self, endpoint: Endpoint) -> bool:
        """Whether this is a server of artifacts alone, which has not got it."""
        return self._artifacts_only and needs_runs(endpoint)

    def _has_no_workspaces(self, endpoint: Endpoint) -> bool:
        """Whether it is about workspaces, and they are off."""
        return isinstance(endpoint.target, Workspace) and not self._settings.enable_workspaces

    async def _answer(self, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer natively, or hand what was read of the request to stock."""
        is_open = match.endpoint.right is Right.OPEN  # to strangers: nothing is read for them, and stock not asked
        security: Headers = scope[SECURITY]
        body = message = None
        call = self._call
        permit: Permit | None = scope.get(PERMIT)
        try:
            if self._workspaces is None:
                check_default(scope, match.endpoint)
            body = b"" if is_open else await self._bodies.read(scope, receive)
            if body is None:
                await send_whole(scope, send, CLIENT_GONE, b"", ())  # to be counted
                return
            if (body or scope["method"] == "POST") and not match.endpoint.raw:
                check_content_type(scope, body, match.endpoint.form)
            message = await beside_others(body, decode, match, scope, body, permit)
            if permit is not None:
                await permit.check(message)
                call = Call(call.db, call.settings, call.workspace, permit.grantees, permit.who, call.events)
            if self._workspaces is not None:
                workspace = await self._workspaces.enter(scope, match.endpoint, message)
                call = msgspec.structs.replace(call, workspace=workspace)
            if match.endpoint.replica and (db := await call.db.reads()) is not call.db:
                call = msgspec.structs.replace(call, db=db)
            if self._quotas is not None and self._quotas.full:
                await self._quotas.check_request(match, scope, body, message)
            handler = match.endpoint.handler
            assert handler is not None
            answer = await handler(call, message)
        except TableChanged as reason:
            await self._in_pieces(partial(self._without_table, match, message, body, str(reason)), scope, receive, send)
        except Declined as reason:
            ask_stock = partial(self._ask_stock, match, call, message, body, reason, security)
            await self._in_pieces(ask_stock, scope, receive, send)
        except ApiError as error:
            await send_refusal(scope, send, error, security)
        except Exception:
            await send_refusal(scope, send, failure(scope), security)
        else:
            if isinstance(answer, ArtifactFile):
                send_file = partial(self._send_file, match, message, body, answer, security)
                await self._in_pieces(send_file, scope, receive, send)
            else:
                await self._send(scope, send, answer, security)
        finally:
            self._bodies.release(scope)

    async def _ask_stock(
        self,
        match: Match,
        call: Call,
        message: Message | None,
        body: bytes | None,
        reason: Declined,
        security: Headers,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Hand on what a handler has declined. An event is noted of it where its declaration says how (`noted`)."""
        noted, makes = match.endpoint.noted, bool(match.endpoint.target.creates)
        is_owned = False
        if isinstance(reason, Malformed):
            send = or_refusal(scope, send, str(reason), (500, 501))
        elif noted is not None and message is not None and (makes or call.events.by_kind):
            scope["extensions"] = {}  # nothing is answered past it
            try:
                send = noting(send, await noted(call, message))
            except ApiError as error:  # the database is away
                await send_error(scope, send, error, security)
                return
            is_owned = makes
        await self._pass_through.hand_on_read(match, scope, receive, send, message, body, str(reason), is_owned)

    async def _send_file(
        self,
        match: Match,
        message: Message,
        body: bytes,
        file: ArtifactFile,
        security: Headers,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer with a file of the artifacts."""
        try:
            await self._artifacts.send_file(file, scope, receive, _with_headers(send, (NATIVE, *security)))
        except (ApiError, Declined) as error:
            if to_stock := await _answer_unless_declined(error, scope, send, security):
                await self._pass_through.hand_on_read(match, scope, receive, to_stock, message, body, str(error))

    async def _without_table(
        self,
        match: Match,
        message: Message | None,
        body: bytes | None,
        reason: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Stock answers what works on a table that its migrations have changed. Where it would find none of its tables
        it waits: it would make them in a database that is being restored."""
        assert self._database is not None
        try:
            await check_tables(self._database)
        except ApiError as error:
            await send_error(scope, send, error, scope[SECURITY])
        else:
            await self._pass_through.hand_on_read(match, scope, receive, send, message, body, reason)

    async def _answer_by(self, handler: JsonHandler, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer natively with a handler that reads the body itself: where artifacts go without this server."""
        security: Headers = scope[SECURITY]
        message = None
        try:
            body = await self._bodies.read(scope, receive)
            if body is None:
                return
            check_values(body)
            message = await self._admit(match, scope, body)
            if self._quotas is not None:
                await self._quotas.check_request(match, scope, body, message)
            answer = await handler(body, scope)
        except (ApiError, Declined) as error:
            if to_stock := await _answer_unless_declined(error, scope, send, security):
                await self._pass_through.hand_on_read(match, scope, receive, to_stock, message, body, str(error))
        else:
            await self._send(scope, send, answer, security)

    async def _admit(self, match: Match, scope: Scope, body: bytes) -> Message | None:
        """Check what streams its answer, or reads its body itself. The message, where that is looked at.

        Raises ApiError, Declined.
        """
        if self._workspaces is None:
            check_default(scope, match.endpoint)
        permit: Permit | None = scope.get(PERMIT)
        workspaces = self._workspaces if match.endpoint.target.checked else None
        if permit is None and workspaces is None:
            return None
        message = decode(match, scope, body, permit)
        if permit is not None:
            await permit.check(message)
        if workspaces is not None:
            scope[WORKSPACE] = await workspaces.enter(scope, match.endpoint, message)
        return message

    def _send(self, scope: Scope, send: Send, answer: Any, security: Headers) -> Awaitable[None]:
        status = 200
        headers: Headers = _JSON_200
        if answer is None:
            content = _EMPTY
        elif isinstance(answer, bytes):
            content = answer
        elif isinstance(answer, Response):
            content, status = answer.body, answer.status
            headers = ((b"content-type", answer.content_type), NATIVE, *answer.headers)
            security = _absent(security, answer.headers)
        else:
            content = msgspec.json.encode(answer)
        if self._compression.pays(scope, content):
            return self._send_compressed(scope, send, status, content, (*headers, *security))
        return send_whole(scope, send, status, content, (*headers, *security))

    async def _send_compressed(self, scope: Scope, send: Send, status: int, content: bytes, headers: Headers) -> None:
        packed, encoded = await self._compression.compress(scope, content)
        await send_whole(scope, send, status, packed, (*headers, *encoded))

    def _streamed(self, method: str, path: str) -> StreamHandler | None:
        return self._artifacts.find(method, path) or self._ui.find(method, path) or self._absent.find(method, path)

    async def _stream(self, handler: StreamHandler, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the handler answer as it reads, or hand the request to stock before any of its body is read."""
        security: Headers = scope[SECURITY]
        try:
            await self._admit(match, scope, b"")
            if self._quotas is not None:
                await self._quotas.check_request(match, scope, b"")
            await handler(scope, receive, _with_headers(send, (NATIVE, *security)))
        except (ApiError, Declined) as error:
            if to_stock := await _answer_unless_declined(error, scope, send, security):
                await self._pass_through.hand_on(match, scope, receive, to_stock, str(error))

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
        self._metrics.start(self._database)
        if self._database is None:
            if self._settings.artifacts_only:
                logger.info("artifacts only: there is no database")
                return
            logger.info("this backend store is stock's alone: every request passes through")
            for name in ("trace_retention", "gc_after", "quota"):
                if getattr(self._settings, name):
                    flag = "--" + name.replace("_", "-")
                    logger.warning("%s does nothing: it needs a database that Headrace works with itself", flag)
            return
        await self._background.start()

    def _leave_to_stock(self, tables: Collection[str]) -> None:
        """No native answers from these tables."""
        self._not_ours |= frozenset(tables)

    async def _stop(self) -> None:
        self._metrics.stop()
        if self._database is not None:
            self._background.stop()
            await self._database.close()
        await self._pass_through.close()


def create_app(settings: Settings, readiness: Readiness) -> Application:
    """The application for these settings; nothing is connected before its lifespan starts."""
    database = open_database(settings)
    router = Router(all_endpoints(settings), settings.static_prefix)
    metrics = Metrics(settings)
    log = AccessLog(settings.access_log == "json") if settings.access_log != "off" else None
    app = App(settings, database, router, readiness, metrics)
    if not settings.protected:
        return Observed(Shield(app, settings), metrics, router, log)
    from headrace.api.audit import Audit
    from headrace.api.guard import Guard  # what it needs stays out of a server that asks nobody
    from headrace.auth.audit_table import AuditTable

    assert database is not None

    guarded: Application = Guard(app, settings, accounts_of(database), router)
    if settings.audit != "off":
        guarded = Audit(guarded, settings, AuditTable(database) if settings.audit_table else None)
    return Observed(Shield(guarded, settings), metrics, router, log)


def _json(content: bytes) -> tuple[Header, bytes]:
    return JSON, content


def _versions() -> bytes:
    return msgspec.json.encode({name: installed_version(name) for name in ("headrace", "mlflow")})


async def _answer_unless_declined(
    error: ApiError | Declined, scope: Scope, send: Send, security: Headers
) -> Send | None:
    """Answer with what came of a request for artifacts; where stock shall answer it, the `send` for that."""
    if isinstance(error, StoreUnusable):
        error = error.answer
    if isinstance(error, ApiError):
        await send_error(scope, send, error, security)
        return None
    return or_refusal(scope, send, str(error), OF_FILES) if isinstance(error, Malformed) else send


def _with_headers(send: Send, headers: Headers) -> Send:
    """A `send` that adds the headers which an answer has not got."""

    async def send_with_headers(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *_absent(headers, message["headers"])]
        await send(message)

    return send_with_headers


def _absent(more: Headers, headers: Iterable[Header]) -> Headers:
    """Those of `more` whose names `headers` has not got."""
    names = {name for name, _ in headers}
    return tuple(header for header in more if header[0] not in names)
