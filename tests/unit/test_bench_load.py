"""The bench's load generator against small asyncio servers that answer in every way HTTP/1.1 allows."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from bench import api, load

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def served(handler: Handler) -> Iterator[int]:
    """Run an asyncio server in a thread; gives its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(handler, "127.0.0.1", 0, limit=2**24)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks)  # the clients are gone, so that the handlers end

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request's body; raises IncompleteReadError at the end of the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return await reader.readexactly(int(length or 0))


def answering(*pieces: bytes, close_after: int = 0, close: bool = False) -> Handler:
    """Answer each request with some pieces, flushed one by one; close after so many requests, or after each."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for number in itertools.count(1):
                await read_request(reader)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if close or number == close_after:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return handle


def numbered(count: int, body: bytes = b"{}") -> Iterator[tuple[int, bytes]]:
    request = api.request("POST", "runs/log-metric", body)
    return ((number, request) for number in range(count))


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        (answering(PLAIN), b"{}"),
        (answering(b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 4\r\n\r", b"\n{", b"  }"), b"{  }"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), b""),
        (
            answering(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\r\n",
                b"\r\n1;x=y\r",
                b"\n}\r\n0\r\n",
                b"\r\n",
            ),
            b"{\r\n}",
        ),
        (
            answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nA: b\r\n", b"\r\n"),
            b"{}",
        ),
        (answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", close=True), b"{}"),
        (answering(b"HTTP/1.1 200 OK\r\n\r\n{", b"}", close=True), b"{}"),
        (answering(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", close=True), b"{}"),
        (answering(PLAIN, close_after=3), b"{}"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n" + gzip.compress(b"{}", mtime=0)), b"{}"),
    ],
    ids=[
        "length",
        "in pieces",
        "empty",
        "chunked",
        "trailers",
        "connection close",
        "until the end",
        "HTTP/1.0",
        "closed while idle",
        "gzip",
    ],
)
def test_every_request_is_answered_once(handler: Handler, body: bytes) -> None:
    with served(handler) as port:
        outcome = load.run(port, [numbered(10)] * 3, seconds=30)
    assert sorted(outcome.answers) == [(number, body) for number in range(10)]
    assert outcome.failures == []
    assert len(outcome.latencies) == 10
    assert 0 < min(outcome.latencies) <= max(outcome.latencies) < 30
    assert outcome.rate == pytest.approx(10 / outcome.seconds)


def test_errors_and_lost_connections_are_failures() -> None:
    with served(answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")) as port:
        outcome = load.run(port, [numbered(2)], seconds=30)
    assert outcome.answers == []
    assert outcome.failures == [(0, 503, b"busy"), (1, 503, b"busy")]
    with served(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", close=True)) as port:
        outcome = load.run(port, [numbered(2)], seconds=30)
    assert [(token, status) for token, status, _ in outcome.failures] == [(0, 0), (1, 0)]


def test_it_ends_in_time_and_waits_for_what_is_under_way() -> None:
    received = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                received.append(await read_request(reader))
                await asyncio.sleep(0.05)
                writer.write(PLAIN)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    with served(slow) as port:
        outcome = load.run(port, [numbered(1000), numbered(1000)], seconds=1, warm_up=0.2)
    assert len(outcome.answers) == len(received) >= 8
    assert 0 < len(outcome.latencies) < len(outcome.answers)  # neither the warm-up's nor the last ones
    assert outcome.seconds == pytest.approx(1)


def test_a_large_request_is_sent_in_whole() -> None:
    received = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await read_request(reader))
        writer.write(PLAIN)
        await writer.drain()
        writer.close()

    body = bytes(8_000_000)
    with served(handle) as port:
        outcome = load.run(port, [numbered(1, body)], seconds=30)
    assert outcome.answers == [(0, b"{}")]
    assert received == [body]


def test_what_is_not_http_is_told() -> None:
    with served(answering(b"SSH-2.0\r\n\r\n")) as port, pytest.raises(load.LoadError, match="not an HTTP/1 response"):
        load.run(port, [numbered(1)], seconds=30)
    with served(answering(PLAIN + b"more")) as port, pytest.raises(load.LoadError, match="bytes after the end"):
        load.run(port, [numbered(1)], seconds=30)
    with served(answering()) as port, pytest.raises(load.LoadError, match="no answer for"):
        load.run(port, [numbered(1)], seconds=30, timeout=0.1)
