"""Pass a request through to stock MLflow and its answer back, streamed both ways in constant memory.

What arrives at stock is what the client sent: method, target, header bytes and body; only hop-by-hop headers
(RFC 9110, 7.6.1) end here. A request is sent again only if stock can't have seen it, or if it is a GET or
HEAD. Every other one goes over a connection of its own: stock closes one after an answer that it failed at (uvicorn,
once it has logged the traceback), and a request that is under way by then can't be told from one that was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from urllib.parse import quote

import httpcore

from headrace.asgi.responses import error_id
from headrace.asgi.types import PRINCIPAL, Header, Receive, Scope, Send
from headrace.errors import Unavailable
from headrace.stock.app import CLIENT_HEADER
from headrace.stock.supervisor import LONGEST_REQUEST, WANTED

_CONNECTIONS = 256  # to stock at a time; further requests wait for one
_IDLE = 1800.0  # seconds; stock's own keep-alive is longer, so it never closes one that we are about to use
_CONNECT_TIMEOUT = 5.0
_POLL = 0.05
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
# what a message is read by: where Connection names it, it was looked at here all the same
_NEEDED = (b"content-", b"x-mlflow-", b"host")
_NOT_SENT = (httpcore.ConnectError, httpcore.ConnectTimeout)
_BROKEN = (httpcore.NetworkError, httpcore.RemoteProtocolError, httpcore.TimeoutException)
_log = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client closed its connection before its request was complete."""


class Forwarder:
    """Connections to the stock process at `socket_path`; those of GET and HEAD are kept for the next one.

    While stock is away a request waits for it, its body unread, for up to `wait_seconds`; then it gets a 503. One that
    takes long says again and again that stock is wanted, so that it does not end after `idle_seconds`.
    """

    def __init__(self, socket_path: str, wait_seconds: float = 20.0, idle_seconds: float = 600.0) -> None:
        self._wanted = str(Path(socket_path).with_name(WANTED))
        self._wait_seconds = wait_seconds
        self._remind_seconds = idle_seconds / 3
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._kept, self._fresh = (
            httpcore.AsyncConnectionPool(
                uds=socket_path,
                max_connections=_CONNECTIONS // 2,
                max_keepalive_connections=kept,
                keepalive_expiry=_IDLE,
            )
            for kept in (32, 0)
        )

    async def close(self) -> None:
        """Close the connections; requests under way break."""
        self._sender.close()
        await self._kept.aclose()
        await self._fresh.aclose()

    async def forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body: bytes | None = None,
        *,
        route: str = "",
        reason: str = "",
    ) -> None:
        """Answer one request of an ASGI `scope` by stock. `body`: what was read of it already, all of it.

        `route`: the endpoint; `reason`: why it is not answered natively. Both are for the log.
        Raises nothing for what stock or the client does. When stock breaks off in the middle of its answer
        this returns with the answer incomplete, and uvicorn closes the connection without a proper end.
        """
        request = _Request(scope, receive, body)
        wanted = f"{request.what} needs it" + (f" ({reason})" if reason else "")
        _log.debug("stock answers %s: %s", route, reason or "it has no native handler")
        exchange = asyncio.ensure_future(self._exchange(request, send))
        gone = asyncio.ensure_future(request.client_gone())
        try:
            done: set[asyncio.Future[None]] = set()
            while not done:
                self._ask_for_stock(wanted)
                tasks = (exchange, gone)
                done, _ = await asyncio.wait(tasks, timeout=self._remind_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            exchange.cancel()
            gone.cancel()
            await asyncio.gather(exchange, gone, return_exceptions=True)
        if not exchange.cancelled() and (error := exchange.exception()) is not None:
            raise error

    async def _exchange(self, request: _Request, send: Send) -> None:
        try:
            response = await self._open(request)
        except ClientGone:
            return
        except Unavailable as error:
            name = error_id(request.what, error.status, str(error))
            await _send_error(send, error.status, error.error_code, str(error), (*error.headers, name))
            return
        except httpcore.LocalProtocolError as error:  # two Host headers and the like
            await _send_error(send, 400, "INVALID_PARAMETER_VALUE", f"The HTTP request is not valid: {error}")
            return
        headers = [(b"headrace-answered-by", b"stock"), *_end_to_end(response.headers, drop=(b"date",))]
        if response.status >= 500:
            headers.append(error_id(request.what, response.status, "by stock MLflow, see its lines"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        try:
            async for chunk in response.aiter_stream():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except _BROKEN as error:
            _log.warning("stock MLflow broke off in its answer to %s: %s", request.what, error or type(error).__name__)
            return
        finally:
            await response.aclose()
        # Only now: when the answer is complete for uvicorn, client_gone() ends, and this task with it.
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _open(self, request: _Request) -> httpcore.Response:
        """Send the request, waiting for stock if need be; the answer's body is still to come."""
        deadline = time.monotonic() + self._wait_seconds
        pool = self._kept if request.repeatable else self._fresh
        while True:
            try:
                return await pool.handle_async_request(request.to_stock(self._wait_seconds))
            except httpcore.PoolTimeout:
                raise Unavailable("Stock MLflow is busy with other requests. Try again later.") from None
            except _NOT_SENT:
                if time.monotonic() >= deadline:
                    raise Unavailable(
                        "Stock MLflow, which answers this request, is not running at the moment. Try again."
                    ) from None
                await asyncio.sleep(_POLL)
            except _BROKEN as error:
                _log.warning("stock MLflow broke off at %s: %s", request.what, error or type(error).__name__)
                if not request.repeatable or time.monotonic() >= deadline:
                    raise Unavailable(
                        "Stock MLflow stopped while it worked on this request, which may be done or not."
                    ) from None

    def _ask_for_stock(self, wanted: str) -> None:
        """Tell the supervisor that stock is wanted, and by what."""
        with contextlib.suppress(OSError):  # its queue is full of the same, or it is gone
            self._sender.sendto(wanted.encode("ascii", "replace")[:LONGEST_REQUEST], self._wanted)


class _Request:
    """One client's request on its way to stock."""

    def __init__(self, scope: Scope, receive: Receive, body: bytes | None) -> None:
        self._receive, self._body = receive, body
        self._read = asyncio.Event()  # set when nothing of the body is left to receive
        names = {name for name, _ in scope["headers"]}
        has_body = bool(body) or b"content-length" in names or b"transfer-encoding" in names
        if body is not None or not has_body:
            self._read.set()
        self._method: str = scope["method"]
        self._content = has_body
        self.repeatable = self._method in ("GET", "HEAD") and not has_body
        self._target: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        self._headers = self._for_stock(scope, names)

    @property
    def what(self) -> str:
        """Method and path, for the log."""
        return f"{self._method} {self._target.split(b'?')[0].decode('ascii', 'replace')}"

    def _for_stock(self, scope: Scope, names: set[bytes]) -> list[Header]:
        drop = [b"expect", CLIENT_HEADER]  # uvicorn answers `Expect: 100-continue` when the body is asked for
        headers = []
        if self._body is not None and self._content:
            drop.append(b"content-length")
            headers.append((b"content-length", b"%d" % len(self._body)))
        elif b"transfer-encoding" in names:
            drop.append(b"content-length")
            headers.append((b"transfer-encoding", b"chunked"))
        if b"host" not in names:  # h11 insists on one; stock refuses an empty one as it does a missing one
            headers.append((b"host", b""))
        host, port = scope.get("client") or ("", 0)
        user = quote(who.user) if (who := scope.get(PRINCIPAL)) is not None else ""
        # `user=`, as HTTP takes off the blank before an empty last word
        headers.append((CLIENT_HEADER, f"{scope['scheme']} {port} {host} user={user}".encode()))
        return headers + _end_to_end(scope["headers"], drop)

    def to_stock(self, pool_timeout: float) -> httpcore.Request:
        """The request for the connection pool."""
        return httpcore.Request(
            self._method,
            httpcore.URL(scheme=b"http", host=b"localhost", port=None, target=self._target),
            headers=self._headers,
            content=self._stream() if self._content else None,
            extensions={"timeout": {"connect": _CONNECT_TIMEOUT, "pool": pool_timeout}},
        )

    async def _stream(self) -> AsyncIterator[bytes]:
        if self._body is not None:
            yield self._body
            return
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message.get("more_body", False)
            if not more:
                self._read.set()
            if chunk := message.get("body"):
                yield chunk

    async def client_gone(self) -> None:
        """Return when the client has closed its connection (or has its answer)."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _end_to_end(headers: Iterable[Header], drop: Iterable[bytes]) -> list[Header]:
    """Headers without hop-by-hop ones, those that Connection names, and `drop`."""
    headers = list(headers)
    unwanted = _HOP_BY_HOP.union(drop)
    for name, value in headers:
        if name.lower() == b"connection":  # what it names, but not what a message is read by
            named = {token.strip().lower() for token in value.split(b",")}
            unwanted = unwanted.union(token for token in named if not token.startswith(_NEEDED))
    return [(name, value) for name, value in headers if name.lower() not in unwanted]


async def _send_error(send: Send, status: int, code: str, text: str, headers: Iterable[Header] = ()) -> None:
    body = json.dumps({"error_code": code, "message": text}).encode()
    length = (b"content-length", b"%d" % len(body))
    head = [(b"content-type", b"application/json"), length, (b"headrace-answered-by", b"native"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
