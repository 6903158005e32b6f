"""uvicorn's HTTP protocol with two additions: a whole answer in one call, one write, one packet; and limits for clients
that send without an end, or hardly at all.

ASGI's two messages a response cost two coroutines, a check of every header, two system calls and two packets, for a
native answer whose head is always the same few bytes. Measured with log-metric over 32 connections, four interleaved
rounds on a busy machine: 88 -> 83 us of CPU a request, 20 -> 16 us of it in the system. An application finds the
addition in the scope's extensions, under `ANSWER`; what streams uses `send`.

Once every PACE_SECONDS each connection is looked at: a head that is not complete HEAD_SECONDS after its first byte (or
after the connection), and a body of which less than PACE_BYTES came in each of SLOW_LOOKS looks, while we were waiting
for it, ends the connection. So nobody holds one for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache, partial
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

Headers = tuple[tuple[bytes, bytes], ...]
# (status, headers without content-length, body) -> nothing; to be called once, instead of `send`
Answer = Callable[[int, Headers, bytes], None]

ANSWER = "headrace.answer"

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 20.0
PACE_SECONDS = 10.0
PACE_BYTES = 1024
SLOW_LOOKS = 6
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 38\r\n\r\nThe request's headers are too large.\r\n"
)


class AnsweringProtocol(HttpToolsProtocol):
    """For uvicorn.Config(http=...)."""

    _head_since: float | None = None  # when the head that is under way began, in the loop's time
    _in_head = False
    _head_bytes = 0
    _body_bytes = 0  # of the body that is under way, since the last look
    _slow_looks = 0
    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since = self.loop.time()
        self._looking = self.loop.call_later(PACE_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head, self._head_since = False, None
        if self.cycle is not None:
            self.cycle.scope["extensions"] = {ANSWER: partial(_answer, self.cycle)}  # type: ignore[dict-item]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_since is None:
                self._head_since = self.loop.time()
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()
        else:
            self._body_bytes += len(data)

    def _look(self) -> None:
        """End the connection of a client that keeps us waiting."""
        if self.transport.is_closing():
            return
        if self._head_since is not None:
            slow = self.loop.time() - self._head_since > HEAD_SECONDS
        else:
            self._slow_looks = self._slow_looks + 1 if self._is_awaited() and self._body_bytes < PACE_BYTES else 0
            slow = self._slow_looks >= SLOW_LOOKS
        self._body_bytes = 0
        if slow:
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(PACE_SECONDS, self._look)

    def _is_awaited(self) -> bool:
        """Whether the client owes us a part of a body that we are ready to read."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.more_body:
            return False
        return not self.flow.read_paused and not cycle.waiting_for_100_continue


def _answer(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
    """What RequestResponseCycle.send does with a response's start and its only body."""
    if cycle.disconnected:
        return
    cycle.response_started = True
    defaults = b"".join(b"%b: %b\r\n" % header for header in cycle.default_headers)
    close = b"" if cycle.keep_alive else b"connection: close\r\n"
    cycle.transport.write(
        b"%b%b%bcontent-length: %d\r\n\r\n%b" % (_head(status, headers), defaults, close, len(body), body)
    )
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


@lru_cache(maxsize=256)
def _head(status: int, headers: Headers) -> bytes:
    """The status line and the headers of a kind of answer."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), lines)
