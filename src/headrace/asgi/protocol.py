"""uvicorn's HTTP protocol with additions: a whole answer in one call, one write, one packet; limits for clients that
send without an end, or hardly at all; and an answer before the end of a body reaches who is still sending it.

ASGI's two messages a response cost two coroutines, a check of every header, two system calls and two packets, for a
native answer whose head is always the same few bytes. Measured with log-metric over 32 connections, four interleaved
rounds on a busy machine: 88 -> 83 us of CPU a request, 20 -> 16 us of it in the system. An application finds the
addition in the scope's extensions, under `ANSWER`; what streams uses `send`.

Once every PACE_SECONDS each connection is looked at: a head that is not complete HEAD_SECONDS after its first byte (or
after the connection), and a body of which less than PACE_BYTES a look came in LOOKS of them, while we were waiting for
it, ends the connection. So nobody holds one for nothing. And nobody holds all: an address has a number of connections
(`Doorman`), beyond which it is answered 503.

Fields after a chunked body (trailers) are dropped: RFC 9110, 6.5.1 lets nobody merge them into the headers who does not
know them, and an Authorization there would sign in. What is answered before its body has come is read on, and thrown
away, for LINGER_SECONDS at most: a connection that is closed with bytes unread is reset, and a proxy in front then
takes the answer for a failure of ours (nginx: lingering_close).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import lru_cache, partial
from http import HTTPStatus

from headrace.address import network_of, plain_address
from headrace.asgi.types import OBSERVED, Scope
from headrace.asgi.uvicorn import HttpToolsProtocol, RequestResponseCycle

Headers = tuple[tuple[bytes, bytes], ...]
# (status, headers without content-length, body) -> nothing; to be called once, instead of `send`
Answer = Callable[[int, Headers, bytes], None]

ANSWER = "headrace.answer"
CLIENT_GONE = 499  # the status that nobody gets

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 20.0
PACE_SECONDS = 10.0
PACE_BYTES = 5 * 1024  # 512 bytes a second, over a minute
LOOKS = 6
LINGER_SECONDS = 30.0
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 38\r\n\r\nThe request's headers are too large.\r\n"
)
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: text/plain\r\nretry-after: 5\r\n"
    b"content-length: 56\r\n\r\nThis address has too many connections to the server now."
)


class Doorman:
    """How many connections each address has, of a worker's, and of IPv6 each network that a client has; `most` of them
    at a time, or as many as it likes where `is_exempt` says so of the address (a proxy that speaks for many)."""

    def __init__(self, most: int, is_exempt: Callable[[str], bool]) -> None:
        self._most, self._is_exempt = most, is_exempt
        self._there: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Whether one more may come in; `leave` must follow if so."""
        network = network_of(address)
        if self._there[network] >= self._most and not self._is_exempt(address):
            return False
        self._there[network] += 1
        return True

    def leave(self, address: str) -> None:
        """One has gone."""
        network = network_of(address)
        self._there[network] -= 1
        if not self._there[network]:
            del self._there[network]


class AnsweringProtocol(HttpToolsProtocol):
    """For uvicorn.Config(http=...)."""

    doorman: Doorman | None = None  # of all connections
    _entered: str | None = None  # the address that the doorman knows

    _head_since: float | None = None  # when the head that is under way began, in the loop's time
    _in_head = False
    _in_body = False
    _got_body = False  # in the data that is being parsed
    _head_bytes = 0  # since the message began, or its last byte of body came: trailers are as long as heads at most
    _body_bytes = 0  # of the body that is under way, in the looks that are counted
    _looks = 0  # at which we were waiting for it
    _looking: asyncio.TimerHandle | None = None
    _lingering: asyncio.TimerHandle | None = None
    _of_cycles: _Lingering

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:
            self.client = (plain_address(self.client[0]) or self.client[0], self.client[1])
        address = self.client[0] if self.client else ""
        if self.doorman is not None and address:
            if not self.doorman.enter(address):
                transport.write(_TOO_MANY)
                transport.close()
                return
            self._entered = address
        self._of_cycles = _Lingering(self, transport)
        self._head_since = self.loop.time()
        self._looking = self.loop.call_later(PACE_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._lingering is not None:
            self._lingering.cancel()
        if self._entered is not None and self.doorman is not None:
            self.doorman.leave(self._entered)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._in_head, self._in_body, self._head_bytes = True, False, 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.headers = []  # the scope has those of the head; what a trailer adds goes nowhere
        self._in_head, self._in_body, self._head_since = False, True, None
        cycle = self.cycle
        if cycle is not None:
            cycle.scope["extensions"] = {ANSWER: partial(_answer, cycle)}  # type: ignore[dict-item]
            cycle.transport = self._of_cycles  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._got_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
            if not self.cycle.keep_alive:
                self.transport.close()
            elif self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def on_response_complete(self) -> None:
        if self._in_body and not self.pipeline and not self.transport.is_closing():
            self.linger()
        super().on_response_complete()

    def linger(self) -> None:
        """The answer is complete, and the request's body is not: read on, for a while."""
        self.flow.resume_reading()
        if self._lingering is None:
            self._lingering = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    @property
    def has_answered_early(self) -> bool:
        """Whether the answer is complete, and the body that it is to is not."""
        return self._in_body and self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        self._got_body = False
        super().data_received(data)
        self._head_bytes = 0 if self._got_body else self._head_bytes + len(data)
        if self._in_head:
            if self._head_since is None:
                self._head_since = self.loop.time()
        else:
            self._body_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and (self._in_head or self._in_body) and not self.transport.is_closing():
            if self._in_head:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _look(self) -> None:
        """End the connection of a client that keeps us waiting."""
        if self.transport.is_closing():
            return
        if self._head_since is not None:
            slow = self.loop.time() - self._head_since > HEAD_SECONDS
        else:
            self._looks = self._looks + 1 if self._is_awaited() else 0
            slow = self._looks == LOOKS and self._body_bytes < LOOKS * PACE_BYTES
            if self._looks in (0, LOOKS):
                self._looks = self._body_bytes = 0
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


class _Lingering:
    """The transport as an exchange has it: one that ends before the whole request has come does not close it yet."""

    __slots__ = ("_protocol", "_transport", "is_closing", "write")

    def __init__(self, protocol: AnsweringProtocol, transport: asyncio.Transport) -> None:
        self._protocol, self._transport = protocol, transport
        self.write, self.is_closing = transport.write, transport.is_closing

    def close(self) -> None:
        if self._protocol.has_answered_early:
            self._protocol.linger()
        else:
            self._transport.close()


def _answer(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
    """What RequestResponseCycle.send does with a response's start and its only body."""
    scope: Scope = cycle.scope  # type: ignore[assignment]
    observed = scope.get(OBSERVED)
    if cycle.disconnected:
        if observed is not None:
            observed.answered(scope, CLIENT_GONE, (), b"")
        return
    cycle.response_started = True
    defaults = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers]) if cycle.default_headers else b""
    close = b"" if cycle.keep_alive else b"connection: close\r\n"
    cycle.transport.write(
        b"%b%b%bcontent-length: %d\r\n\r\n%b" % (_head(status, headers), defaults, close, len(body), body)
    )
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    # It leads back to the cycle, which without it goes at once, and not at a collection.
    del scope["extensions"]
    if observed is not None:
        observed.answered(scope, status, headers, body)


@lru_cache(maxsize=256)
def _head(status: int, headers: Headers) -> bytes:
    """The status line and the headers of a kind of answer."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), lines)
