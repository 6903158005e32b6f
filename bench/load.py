"""The load generator: one process, non-blocking keep-alive sockets, and little parsing.

A connection takes (token, request) pairs from its stream, one after the other: the next one is sent when the answer
to the last one has arrived in whole. What was acknowledged is kept, for bench.check.
"""

from __future__ import annotations

import gzip
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
Stream = Iterator[tuple[T, bytes]]


class LoadError(Exception):
    """A server did not speak HTTP, or did not answer in time: there is nothing to measure."""


class Head(NamedTuple):
    """What the head of a response says. `length` in bytes; None for chunked, or for "until the connection closes"."""

    status: int
    length: int | None
    chunked: bool
    close: bool


def parse_head(head: bytes) -> Head:
    """Parse a response's status line and headers (without the empty line that ends them)."""
    status_line, *lines = head.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise LoadError(f"not an HTTP/1 response: {status_line[:80]!r}")
    status = int(rest[:3])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    connection = headers.get(b"connection", b"").lower()
    chunked = headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked")
    length = None if chunked or b"content-length" not in headers else int(headers[b"content-length"])
    if status in (204, 304):
        length, chunked = 0, False
    until_close = length is None and not chunked
    close = until_close or connection == b"close" or (version == b"HTTP/1.0" and connection != b"keep-alive")
    return Head(status, length, chunked, close)


def parse_chunks(buffer: bytes, start: int) -> tuple[bytes, int] | None:
    """Decode a chunked body that begins at `start`: the body and where it ends, or None while it is not complete."""
    parts: list[bytes] = []
    while (line_end := buffer.find(b"\r\n", start)) >= 0:
        size = int(buffer[start:line_end].partition(b";")[0], 16)
        start = line_end + 2
        if size == 0:
            trailers_end = buffer.find(b"\r\n", start)
            if trailers_end == start:
                return b"".join(parts), start + 2
            trailers_end = buffer.find(b"\r\n\r\n", start)
            return None if trailers_end < 0 else (b"".join(parts), trailers_end + 4)
        if len(buffer) < start + size + 2:
            return None
        parts.append(buffer[start : start + size])
        start += size + 2
    return None


class ResponseParser:
    """Finds one complete response at the start of a buffer. Heads repeat, so that parsed ones are kept."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def parse(self, buffer: bytes, ended: bool = False) -> tuple[Head, bytes] | None:
        """The head and the body, or None while bytes are missing; `ended`: the server has closed the connection.

        Raises LoadError for what is no response, and for bytes after its end.
        """
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._head(buffer[:end])
        start = end + 4
        if head.length is not None:
            if len(buffer) < start + head.length:
                return None
            body, after = buffer[start : start + head.length], start + head.length
        elif head.chunked:
            decoded = parse_chunks(buffer, start)
            if decoded is None:
                return None
            body, after = decoded
        elif ended:
            body, after = buffer[start:], len(buffer)
        else:
            return None
        if after != len(buffer):
            raise LoadError(f"bytes after the end of a response: {buffer[after : after + 80]!r}")
        return head, body

    def _head(self, raw: bytes) -> Head:
        head = self._heads.get(raw)
        if head is None:
            if len(self._heads) > 1000:  # the date changes every second
                self._heads.clear()
            head = self._heads[raw] = parse_head(raw)
        return head


@dataclass
class Outcome(Generic[T]):
    """What a load run saw.

    latencies: seconds from the start of sending to the end of the answer, of the answers in the measured time;
    seconds: the measured time; answers: token and body of every answer with status 200, warm-up included;
    failures: token, status (0: the connection was lost) and body of every other one.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: list[tuple[T, bytes]] = field(default_factory=list)
    failures: list[tuple[T, int, bytes]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def check(self) -> None:
        """Raises RuntimeError where a request was not answered with 200."""
        if self.failures:
            raise RuntimeError(f"{len(self.failures)} failed: {self.failures[0]}")


class _Connection(Generic[T]):
    """One keep-alive connection and the request that is under way on it."""

    __slots__ = ("answered", "buffer", "port", "request", "selector", "sent_at", "sock", "stream", "token", "unsent")

    token: T
    sock: socket.socket | None

    def __init__(self, port: int, stream: Stream[T], selector: selectors.BaseSelector) -> None:
        self.port = port
        self.stream = stream
        self.selector = selector
        self.sock = None
        self.buffer = b""
        self.request = b""
        self.unsent = memoryview(b"")
        self.sent_at = 0.0
        self.answered = 0

    def send_next(self) -> bool:
        """Send the stream's next request; False when there is none."""
        following = next(self.stream, None)
        if following is None:
            return False
        self.token, self.request = following
        self.sent_at = time.perf_counter()
        self.send()
        return True

    def send(self) -> None:
        """Send the request, on a new connection where there is none."""
        sock = self.sock or self._connect()
        try:
            sent = sock.send(self.request)
        except (BrokenPipeError, ConnectionResetError):
            return  # the next read tells, and sends it again
        if sent < len(self.request):
            self.unsent = memoryview(self.request)[sent:]
            self.selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def send_rest(self) -> None:
        """Go on sending where the socket's buffer was full."""
        assert self.sock is not None
        self.unsent = self.unsent[self.sock.send(self.unsent) :]
        if not self.unsent:
            self.selector.modify(self.sock, selectors.EVENT_READ, self)

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.sock = sock
        self.answered = 0
        self.selector.register(sock, selectors.EVENT_READ, self)
        return sock

    def receive(self) -> bool:
        """Read what is there; True when the server has closed the connection."""
        assert self.sock is not None
        try:
            data = self.sock.recv(262_144)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        self.buffer = self.buffer + data if self.buffer else data
        return not data

    def close(self) -> None:
        if self.sock is not None:
            self.selector.unregister(self.sock)
            self.sock.close()
        self.sock = None
        self.buffer = b""
        self.unsent = memoryview(b"")


def run(
    port: int, streams: Sequence[Stream[T]], seconds: float, warm_up: float = 0.0, timeout: float = 60.0
) -> Outcome[T]:
    """Send each stream over a connection of its own for `warm_up + seconds`, or until the streams are exhausted.

    At the end the requests under way are waited for, so that every request sent is an answer or a failure.
    Raises LoadError when nothing arrives for `timeout` seconds.
    """
    with selectors.DefaultSelector() as selector:
        connections = [_Connection(port, stream, selector) for stream in streams]
        try:
            return _drive(connections, selector, seconds, warm_up, timeout)
        finally:
            for connection in connections:
                connection.close()


def _drive(
    connections: list[_Connection[T]],
    selector: selectors.BaseSelector,
    seconds: float,
    warm_up: float,
    timeout: float,
) -> Outcome[T]:
    outcome: Outcome[T] = Outcome()
    parser = ResponseParser()
    bodies: dict[bytes, bytes] = {}  # equal bodies are kept once
    clock = time.perf_counter
    measured_from = clock() + warm_up
    end = measured_from + seconds
    under_way = sum(connection.send_next() for connection in connections)
    now = clock()
    while under_way:
        ready = selector.select(timeout)
        if not ready:
            raise LoadError(f"no answer for {timeout} s; {under_way} requests were under way")
        for key, events in ready:
            connection: _Connection[T] = key.data
            if events & selectors.EVENT_WRITE:
                connection.send_rest()
            if not events & selectors.EVENT_READ:
                continue
            ended = connection.receive()
            response = parser.parse(connection.buffer, ended)
            if response is None and not ended:
                continue
            if response is None and connection.answered and not connection.buffer:
                # an idle connection that the server had closed: every HTTP client tries again on a new one
                connection.close()
                connection.send()
                continue
            now = clock()
            if response is None:
                outcome.failures.append((connection.token, 0, connection.buffer))
                connection.close()
            else:
                head, body = response
                if head.status == 200:
                    outcome.answers.append((connection.token, bodies.setdefault(body, body)))
                    if measured_from <= now < end:
                        outcome.latencies.append(now - connection.sent_at)
                else:
                    outcome.failures.append((connection.token, head.status, body))
                connection.answered += 1
                connection.buffer = b""
                if head.close or ended:
                    connection.close()
            if now >= end or not connection.send_next():
                under_way -= 1
                connection.close()
    outcome.seconds = max(min(now, end) - measured_from, 0.0)
    plain = {body: decode(body) for body in bodies}
    outcome.answers = [(token, plain[body]) for token, body in outcome.answers]
    return outcome


def decode(body: bytes) -> bytes:
    """A body that was compressed as the client allows it, plain; the two first bytes are gzip's own."""
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
