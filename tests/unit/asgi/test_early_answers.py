"""Answers before the end of a body, and what comes after a body, against uvicorn with our protocol on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from headrace.asgi import protocol
from headrace.asgi.protocol import ANSWER, AnsweringProtocol
from tests.support.asgi import running
from tests.support.processes import PATIENCE_SECONDS

LARGE = 8 * 1024 * 1024


class Server:
    """`/early` is refused without a look at its body, in one packet; `/streamed` likewise, in ASGI's two messages."""

    def __init__(self) -> None:
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.port = 0

    async def application(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/early":
            scope["extensions"][ANSWER](401, (), b"who?")
            return
        if scope["path"] == "/broken":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
            return
        if scope["path"] != "/streamed":
            while (await receive()).get("more_body"):
                pass
        self.headers.append(list(scope["headers"]))
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"no"})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    served = Server()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with running(served.application, [listener], http=AnsweringProtocol, interface="asgi3"):
            served.port = listener.getsockname()[1]
            yield served


async def exchange(port: int, *pieces: bytes) -> bytes:
    """All that comes back; what could not be sent is an error, as it is for a proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    writer.close()
    return answer


@pytest.mark.parametrize("path", [b"/early", b"/streamed"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_early_answer_reaches_who_still_sends(
    server: Server, path: bytes, version: bytes, chunked: bool
) -> None:
    """As nginx sends to a server behind it: HTTP/1.0, or 1.1 with Connection: close."""
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % LARGE
    head = b"POST %b HTTP/%b\r\nhost: localhost\r\nconnection: close\r\n%b\r\n\r\n" % (path, version, framing)
    piece = b"x" * 65536
    pieces = [b"10000\r\n" + piece + b"\r\n" if chunked else piece] * (LARGE // 65536)
    answer = await exchange(server.port, head, *pieces, *([b"0\r\n\r\n"] if chunked else []))
    assert answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 403 "))
    assert answer.endswith((b"who?", b"no"))


async def test_a_connection_goes_on_after_an_early_answer(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for path, body in ((b"/early", LARGE), (b"/streamed", 10), (b"/early", 1), (b"/", 100_000)):
        writer.write(b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (path, body))
        for start in range(0, body, 65536):
            writer.write(b"x" * min(65536, body - start))
            await writer.drain()
        status = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        assert status.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 403 "))
        await reader.readexactly(4 if path == b"/early" else 2)
    writer.close()


@pytest.mark.parametrize("close", [b"", b"connection: close\r\n"])
async def test_nobody_is_read_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch, close: bytes) -> None:
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /early HTTP/1.1\r\nhost: localhost\r\n%bcontent-length: 100\r\n\r\n" % close)
    assert (await reader.readexactly(12)) == b"HTTP/1.1 401"
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(10_000), PATIENCE_SECONDS)
    writer.close()


async def test_an_answer_that_broke_off_ends_at_once(server: Server) -> None:
    head = b"POST /broken HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
    assert (await exchange(server.port, head)).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("name", [b"Authorization", b"Cookie", b"Host", b"Origin", b"X-Forwarded-For"])
async def test_what_follows_a_body_is_no_header(server: Server, name: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    trailers = name + b": smuggled\r\nx-more: smuggled\r\n\r\n"
    for pieces in ((head + b"1\r\nx\r\n0\r\n" + trailers,), (head, b"1\r\nx\r\n0\r\n", trailers[:5], trailers[5:])):
        assert (await exchange(server.port, *pieces)).endswith(b"no")
        seen = server.headers.pop()
        assert [key for key, _ in seen] == [b"host", b"connection", b"transfer-encoding"]


@pytest.mark.parametrize("endless", [b"0\r\nx: ", b"1;x="])
async def test_what_is_no_body_has_an_end(server: Server, endless: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" + endless)
    with pytest.raises(ConnectionError):
        while True:
            writer.write(b"y" * 30_000)
            await asyncio.wait_for(writer.drain(), PATIENCE_SECONDS)
            await asyncio.sleep(0)
    writer.close()
