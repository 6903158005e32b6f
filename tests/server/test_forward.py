"""The pass-through over real sockets: client, uvicorn with the Forwarder, a Unix socket, uvicorn with a test's app."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.stock.app import AsSeenByWorker
from headrace.stock.forward import Forwarder
from tests.support.asgi import running
from tests.support.processes import PATIENCE_SECONDS

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
MEGABYTE = 1024 * 1024


@pytest.fixture
def path() -> Any:
    with tempfile.TemporaryDirectory() as directory:
        yield str(Path(directory) / "stock.sock")


@asynccontextmanager
async def forwarded(app: App, path: str) -> AsyncIterator[int]:
    """The port of a server that forwards to `app`."""
    stock = running(AsSeenByWorker(app), uds=path, proxy_headers=False, server_header=False, date_header=False)
    async with stock, forwarding(path) as port:
        yield port


@asynccontextmanager
async def forwarding(path: str, wait: float = 5, body: bytes | None = None) -> AsyncIterator[int]:
    forwarder = Forwarder(path, wait)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await forwarder.forward(scope, receive, send, body)

    async with running(app, port=0, server_header=False) as server:
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            await forwarder.close()


class Connection:
    """A client that sends bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, data: bytes = b"") -> Connection:
        connection = cls(*await asyncio.open_connection("127.0.0.1", port))
        connection.writer.write(data)
        return connection

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        status, *lines = raw.decode("latin-1").strip().split("\r\n")
        headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
        return int(status.split()[1]), headers

    async def answer(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body of an answer with a length, chunked, or without a body."""
        status, headers = await self.head()
        fields = dict(headers)
        if "content-length" in fields:
            return status, headers, await self.reader.readexactly(int(fields["content-length"]))
        body = b""
        while fields.get("transfer-encoding") == "chunked" and (chunk := await self.chunk()):
            body += chunk
        return status, headers, body

    async def chunk(self) -> bytes:
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), PATIENCE_SECONDS), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def ask(port: int, data: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = await Connection.open(port, data)
    try:
        return await connection.answer()
    finally:
        await connection.close()


async def read_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def respond(send: Send, status: int = 200, headers: Any = (), body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what arrived."""
    seen = {
        "method": scope["method"],
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "client": scope["client"],
        "scheme": scope["scheme"],
        "body": (await read_body(receive)).decode("latin-1"),
    }
    body = json.dumps(seen).encode()
    await respond(send, headers=[(b"content-length", b"%d" % len(body))], body=body)


async def test_the_request_arrives_as_it_was_sent(path: str) -> None:
    target = b"/a%2Fb/%2e%2E/c%20d//e;x=1?q=%3D&q=a+b&empty="
    head = (
        b"PUT "
        + target
        + (
            b" HTTP/1.1\r\nHost: mlflow.example.com:80\r\nX-Two: 1\r\nX-Two: 2\r\nX-Latin: caf\xe9\r\nX-Empty:\r\n"
            b"Content-Length: 5\r\nConnection: keep-alive, X-Hop, Content-Length, Host\r\nX-Hop: 1\r\nTE: trailers\r\n"
            b"X-MLflow-Workspace: w\r\nContent-Type: text/x\r\nConnection: X-MLflow-Workspace,content-type\r\n"
            b"Keep-Alive: timeout=5\r\nX-Forwarded-For: 1.2.3.4\r\nHeadrace-Client: http 1 127.0.0.1\r\n\r\n"
        )
    )
    async with forwarded(echo, path) as port:
        status, headers, body = await ask(port, head + b"a\x00\xffbc")
    seen = json.loads(body)
    assert status == 200
    assert (seen["method"], seen["raw_path"] + "?" + seen["query"]) == ("PUT", target.decode())
    assert seen["body"] == "a\x00\xffbc"
    assert seen["scheme"] == "http"
    # uvicorn of the worker trusts X-Forwarded-For of 127.0.0.1, as that of `mlflow server` does
    assert seen["client"] == ["1.2.3.4", 0]
    assert sorted(map(tuple, seen["headers"])) == [
        ("content-length", "5"),
        ("content-type", "text/x"),
        ("host", "mlflow.example.com:80"),
        ("x-empty", ""),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-latin", "caf\xe9"),
        ("x-mlflow-workspace", "w"),
        ("x-two", "1"),
        ("x-two", "2"),
    ]
    assert ("headrace-answered-by", "stock") in headers
    assert len([name for name, _ in headers if name == "date"]) == 1


async def test_a_client_on_this_machine_is_seen_with_its_address(path: str) -> None:
    async with forwarded(echo, path) as port:
        connection = await Connection.open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        ours = list(connection.writer.get_extra_info("sockname"))
        _, _, body = await connection.answer()
        await connection.close()
    assert json.loads(body)["client"] == ours


async def test_a_chunked_upload_and_one_whose_body_was_read_already(path: str) -> None:
    head = b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with forwarded(echo, path) as port:
        _, _, body = await ask(port, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        seen = json.loads(body)
        assert (seen["body"], dict(seen["headers"])["transfer-encoding"]) == ("abcde", "chunked")
        async with forwarding(path, body=b"read before") as other:
            _, _, body = await ask(other, head)
            seen = json.loads(body)
            assert (seen["body"], dict(seen["headers"])["content-length"]) == ("read before", "11")
            assert "transfer-encoding" not in dict(seen["headers"])


async def test_without_a_host(path: str) -> None:
    async with forwarded(echo, path) as port:
        for version in (b"1.0", b"1.1"):
            status, _, body = await ask(port, b"GET /p HTTP/" + version + b"\r\n\r\n")
            assert status == 200
            assert dict(json.loads(body)["headers"])["host"] == ""  # which stock's check of hosts refuses


async def test_two_hosts_are_a_bad_request(path: str) -> None:
    async with forwarded(echo, path) as port:
        status, headers, body = await ask(port, b"GET /p HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert status == 400
    assert json.loads(body)["error_code"] == "INVALID_PARAMETER_VALUE"
    assert ("headrace-answered-by", "native") in headers


async def test_expect_100_continue(path: str) -> None:
    async with forwarded(echo, path) as port:
        connection = await Connection.open(
            port, b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await connection.head())[0] == 100
        connection.writer.write(b"abc")
        status, _, body = await connection.answer()
        await connection.close()
    assert (status, json.loads(body)["body"]) == (200, "abc")


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", 200, [(b"content-length", b"1234")]),
        ("GET", 204, []),
        ("GET", 304, [(b"etag", b'"x"')]),
        ("OPTIONS", 200, [(b"content-length", b"0"), (b"allow", b"GET")]),
    ],
)
async def test_answers_without_a_body(path: str, method: str, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, status, headers)

    async with forwarded(app, path) as port:
        connection = await Connection.open(port)
        for _ in range(2):  # the connection can be used again, so nothing of a body was sent
            connection.writer.write(method.encode() + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
            got, fields = await connection.head()
            assert got == status
            assert set(headers) <= {(name.encode(), value.encode()) for name, value in fields}
            assert "transfer-encoding" not in dict(fields)
        await connection.close()


async def test_the_answer_arrives_as_it_was_sent(path: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-latin", b"caf\xe9")]
        await respond(send, 418, [*cookies, (b"content-length", b"3")], b"\x00\xff!")

    async with forwarded(app, path) as port:
        status, headers, body = await ask(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body) == (418, b"\x00\xff!")
    assert [value for name, value in headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert dict(headers)["x-latin"] == "caf\xe9"


async def test_server_sent_events_arrive_one_by_one(path: str) -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            await go_on.wait()
            go_on.clear()
        await send({"type": "http.response.body", "body": b""})

    async with forwarded(app, path) as port:
        connection = await Connection.open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.head()
        for number in range(3):
            assert await connection.chunk() == b"data: %d\n\n" % number  # the next one is not sent before this arrived
            go_on.set()
        assert await connection.chunk() == b""
        await connection.close()


async def test_a_slow_reader_slows_stock_down(path: str) -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(256):
            await send({"type": "http.response.body", "body": bytes(MEGABYTE), "more_body": True})
            sent += MEGABYTE
        await send({"type": "http.response.body", "body": b""})

    async with forwarded(app, path) as port:
        connection = await Connection.open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.head()
        held = await settled(lambda: sent)
        assert held < 32 * MEGABYTE
        received = 0
        while chunk := await connection.chunk():
            received += len(chunk)
        assert received == 256 * MEGABYTE
        await connection.close()


async def test_a_slow_stock_slows_the_client_down(path: str) -> None:
    go_on = asyncio.Event()
    received = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal received
        await go_on.wait()
        more = True
        while more:
            message = await receive()
            received += len(message["body"])
            more = message["more_body"]
        await respond(send, headers=[(b"content-length", b"0")])

    async with forwarded(app, path) as port:
        head = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (256 * MEGABYTE)
        connection = await Connection.open(port, head)
        written = 0

        async def upload() -> None:
            nonlocal written
            for _ in range(256):
                connection.writer.write(bytes(MEGABYTE))
                await connection.writer.drain()
                written += MEGABYTE

        uploading = asyncio.create_task(upload())
        assert await settled(lambda: written) < 32 * MEGABYTE
        go_on.set()
        await uploading
        assert (await connection.answer())[0] == 200
        assert received == 256 * MEGABYTE
        await connection.close()


async def settled(value: Callable[[], int]) -> int:
    """Wait until `value` has not changed for a while."""
    before = -1
    while (now := value()) != before:
        before = now
        await asyncio.sleep(0.3)
    return now


@pytest.mark.parametrize("head", [b"content-length: 100\r\n", b""])
async def test_an_answer_that_breaks_off_is_not_ended_properly(path: str, head: bytes) -> None:
    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        kind = head or b"transfer-encoding: chunked\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n" + (b"abc" if head else b"3\r\nabc\r\n"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(stock, path), forwarding(path) as port:
        connection = await Connection.open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.head()
        rest = await asyncio.wait_for(connection.reader.read(), PATIENCE_SECONDS)
        await connection.close()
    assert rest == (b"abc" if head else b"3\r\nabc\r\n")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_stock_sees_that_the_client_has_gone(path: str, method: str) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        arrived.set()
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async with forwarded(app, path) as port:
        head = f"{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        connection = await Connection.open(port, head)
        await asyncio.wait_for(arrived.wait(), PATIENCE_SECONDS)
        await connection.close()
        await asyncio.wait_for(gone.wait(), PATIENCE_SECONDS)


async def test_stock_sees_that_an_upload_broke_off(path: str) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            assert message["more_body"]
            arrived.set()
        gone.set()

    async with forwarded(app, path) as port:
        connection = await Connection.open(port, b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        await asyncio.wait_for(arrived.wait(), PATIENCE_SECONDS)
        await connection.close()
        await asyncio.wait_for(gone.wait(), PATIENCE_SECONDS)


async def test_connections_to_stock_are_used_again(path: str) -> None:
    ports = set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ports.add(id(receive.__self__.transport))  # type: ignore[attr-defined]
        await respond(send, headers=[(b"content-length", b"0")])

    async with forwarded(app, path) as port:
        connection = await Connection.open(port)
        for _ in range(5):
            connection.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await connection.answer())[0] == 200
        await connection.close()
    assert len(ports) == 1


async def test_stock_is_away(path: str) -> None:
    async with forwarding(path, wait=0.2) as port:
        status, headers, body = await ask(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    assert status == 503
    assert json.loads(body)["error_code"] == "TEMPORARILY_UNAVAILABLE"
    fields = dict(headers)
    assert fields["retry-after"].isdecimal()
    assert fields["content-type"] == "application/json"


async def test_a_request_waits_for_stock_and_asks_for_it(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wanted:
        wanted.bind(str(Path(path).with_name("wanted")))
        wanted.setblocking(False)
        async with forwarding(path) as port:
            connection = await Connection.open(port, b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(wanted, 16), PATIENCE_SECONDS)
            async with running(AsSeenByWorker(echo), uds=path):
                status, _, body = await connection.answer()
            await connection.close()
    assert (status, json.loads(body)["body"]) == (200, "abc")


@pytest.mark.parametrize("breaks", ["in the middle", "at the end", "later"])
async def test_after_an_answer_that_broke_off_the_next_upload_arrives(path: str, breaks: str) -> None:
    """Uvicorn closes a connection on which its application failed: after the answer, which may look complete."""
    arrived = asyncio.Event()

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            arrived.set()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n" + await reader.readexactly(3))
        else:
            length = 9 if breaks == "in the middle" else 3
            writer.write(b"HTTP/1.1 500 Oh\r\ncontent-length: %d\r\n\r\nabc" % length)
            if breaks == "later":  # while the next request is under way
                await asyncio.wait_for(arrived.wait(), PATIENCE_SECONDS)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(stock, path), forwarding(path) as port:
        connection = await Connection.open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await connection.head()
        for _ in range(3):
            put = b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
            assert (await ask(port, put))[::2] == (200, b"abc")
        await connection.close()


@pytest.mark.parametrize(("method", "status", "times"), [("GET", 200, 2), ("POST", 503, 1)])
async def test_only_what_may_be_done_twice_is_sent_twice(path: str, method: str, status: int, times: int) -> None:
    requests = 0

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        if requests > 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()  # the first time without an answer, as when it is killed

    length = b"Content-Length: 0\r\n" if method == "POST" else b""
    async with await asyncio.start_unix_server(stock, path), forwarding(path) as port:
        got, _, _ = await ask(port, method.encode() + b" / HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n")
    assert (got, requests) == (status, times)
