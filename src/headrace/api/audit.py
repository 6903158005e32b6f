"""Who did what to which run, model or user, from where: a line of JSON on the standard output for each change, and a
row in headrace_audit where --audit-table asks for it.

What is written: requests that need more than reading (logging what a run measures only with --audit all), whoever is
refused one, and sign-ins. It stands around the guard, which leaves in the scope who it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from headrace.api.decode import decode
from headrace.api.endpoint import Endpoint, Match
from headrace.api.workspace_header import workspace_of
from headrace.asgi.protocol import ANSWER, Answer
from headrace.asgi.security import SAFE
from headrace.asgi.types import MATCH, MESSAGE, NAMED, PRINCIPAL, Application, Headers, Receive, Scope, Send
from headrace.auth.audit_table import AuditTable, Entry
from headrace.auth.principals import Principal, Right
from headrace.clock import now_ms
from headrace.entities import DEFAULT_WORKSPACE
from headrace.errors import ApiError, Declined, Unavailable
from headrace.settings import Settings
from headrace.ui.pages import CALLBACK, SIGN_IN

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
MAX_WAITING = 10_000  # entries for a table that can't be written
MAX_BODY = 64 * 1024  # of a request or an answer that is looked at for what it names
# What names an object in MLflow's messages; the values are texts or numbers.
_NAMES = (
    *("run_id", "run_uuid", "experiment_id", "name", "new_name", "version", "stage", "alias", "model_id", "trace_id"),
    *("request_id", "dataset_id", "webhook_id", "username", "role", "path", "action", "id"),
)


class Audit:
    """An ASGI application around the guard. `table`: where entries are kept, if anywhere."""

    def __init__(self, app: Application, settings: Settings, table: AuditTable | None) -> None:
        self._app, self._table = app, table
        self._all = settings.audit == "all"
        self._workspaces = settings.enable_workspaces
        self._pages = f"{settings.static_prefix}/headrace/"
        self._callback = settings.static_prefix + CALLBACK
        self._waiting: list[Entry] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            if self._writing is not None:
                self._writing.cancel()
            await self._flush()
        elif self._is_audited(scope):
            exchange = _Exchange(scope, receive, send)
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:
                self._write(self._entry(scope, exchange))
        else:
            await self._app(scope, receive, send)

    def _is_audited(self, scope: Scope) -> bool:
        method, path = scope["method"], scope["path"]
        if path == self._callback or (path.startswith(self._pages) and method not in SAFE):
            return True
        if method in SAFE:
            return False
        endpoint: Endpoint = scope[MATCH].endpoint
        return endpoint.right > Right.READ and (self._all or endpoint.audited != "often")

    def _entry(self, scope: Scope, exchange: _Exchange) -> Entry:
        who: Principal | None = scope.get(PRINCIPAL)
        match: Match = scope[MATCH]
        return Entry(
            at=now_ms(),
            user=who.user if who else "",
            via=who.via if who else "",
            address=(scope.get("client") or ("",))[0],
            method=scope["method"],
            path=scope["path"],
            status=exchange.status,
            objects=self._workspace(scope) | match.parameters | exchange.objects(scope, match),
        )

    def _workspace(self, scope: Scope) -> dict[str, str]:
        """The workspace that the request names, where it is another than the default one: names are unique in it."""
        with contextlib.suppress(ApiError):  # it names two, and is refused
            if self._workspaces and (name := workspace_of(scope)) != DEFAULT_WORKSPACE:
                return {"workspace": name[:256]}
        return {}

    def _write(self, entry: Entry) -> None:
        time = datetime.fromtimestamp(entry.at / 1000, UTC).isoformat(timespec="milliseconds")
        line = msgspec.json.encode({"audit": time, **msgspec.to_builtins(entry)})
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(1, line + b"\n")
        if self._table is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            logger.error("an audit entry was lost: headrace_audit can't be written, and too many wait for it")
            return
        self._waiting.append(entry)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._keep_writing())

    async def _keep_writing(self) -> None:
        while self._waiting:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        entries, self._waiting = self._waiting, []
        if self._table is None or not entries:
            return
        try:
            await self._table.add(entries)
        except (Declined, Unavailable) as error:
            logger.warning("headrace_audit can't be written, trying again: %s", error)
            self._waiting = entries + self._waiting


class _Exchange:
    """Looks on while one request is answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.status = 0
        self._receive, self._send = receive, send
        self._request, self._answer = bytearray(), bytearray()
        extensions = scope.get("extensions") or {}
        if ANSWER in extensions:
            scope["extensions"] = extensions | {ANSWER: self._whole(extensions[ANSWER])}

    def _whole(self, answer: Answer) -> Answer:
        def look_on(status: int, headers: Headers, body: bytes) -> None:
            self.status = status
            _keep(self._answer, body)
            answer(status, headers, body)

        return look_on

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        _keep(self._request, message.get("body", b""))
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            _keep(self._answer, message.get("body", b""))
        await self._send(message)

    def objects(self, scope: Scope, match: Match) -> dict[str, str]:
        """What the message names, which is what the handler worked on, and then the answer."""
        names: dict[str, str] = {}
        for each in (self._message(scope, match), _decoded(self._answer) if self.status == 200 else {}):
            inner = [value for value in each.values() if isinstance(value, dict)]
            for fields in (each, *inner, *(deep["info"] for deep in inner if isinstance(deep.get("info"), dict))):
                for name in _NAMES:
                    if isinstance(value := fields.get(name), str | int) and value != "" and name not in names:
                        names[name] = str(value)[:256].encode(errors="replace").decode()
        return names

    def _message(self, scope: Scope, match: Match) -> dict[str, Any]:
        """The message as the request was handled; of one that went to stock as it came, as stock reads it."""
        message = scope.get(MESSAGE)
        if message is None and not match.endpoint.own_page and len(self._request) <= MAX_BODY:
            with contextlib.suppress(ApiError):
                message = decode(match, scope, bytes(self._request), None)
        if message is not None and not match.endpoint.raw:
            with contextlib.suppress(TypeError, ValueError):
                fields: dict[str, Any] = msgspec.to_builtins(message)
                return fields
        if not match.endpoint.own_page:
            return {}
        if scope["path"].endswith(SIGN_IN):  # people, and their programs, send passwords where the name belongs
            return {"name": scope.get(NAMED, "")}
        return _decoded(self._request)


def _keep(kept: bytearray, piece: bytes) -> None:
    """Up to one byte more than is looked at."""
    if len(kept) <= MAX_BODY:
        kept += piece[: MAX_BODY + 1 - len(kept)]


def _decoded(body: bytearray) -> dict[str, Any]:
    """A JSON object, or the fields of a form; empty for anything else."""
    if len(body) > MAX_BODY:
        return {}
    if not body.startswith(b"{"):
        return dict(parse_qsl(body.decode("latin-1")))
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):  # not UTF-8, nested without an end
        return {}
    return found if isinstance(found, dict) else {}
