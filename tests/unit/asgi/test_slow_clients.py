"""Clients that send without an end, or hardly at all, against uvicorn with our protocol on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from headrace.asgi import protocol
from headrace.asgi.protocol import AnsweringProtocol, Doorman
from tests.support.asgi import running
from tests.support.processes import PATIENCE_SECONDS, POLL_SECONDS

HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n"


async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    """Reads the whole body, then answers."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"OK"})


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(protocol, "PACE_SECONDS", 0.05)
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.4)
    # one socket of both families: there 127.0.0.1 comes as ::ffff:127.0.0.1, and is itself all the same
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        async with running(application, [listener], http=AnsweringProtocol):
            yield listener.getsockname()[1]


async def rest_of(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What comes back until the server ends the connection, which it must."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "pieces",
    [(), (b"POST / HT",), (HEAD,), (HEAD + b"x: ", *[b"y"] * 30), (HEAD + b"\r\n",), (HEAD + b"\r\n", *[b"z"] * 20)],
)
async def test_a_slow_client_is_let_go(port: int, pieces: tuple[bytes, ...]) -> None:
    assert await rest_of(port, *pieces, pause=0.03) == b""


async def test_a_head_without_an_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 60.0)
    answer = await rest_of(port, HEAD, *[b"x: " + b"y" * 30_000 + b"\r\n"] * 3, pause=0.02)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.endswith(b"The request's headers are too large.\r\n")


async def test_a_client_that_keeps_its_pace(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PACE_BYTES", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + b"\r\n")
    for _ in range(100):
        writer.write(b"x")
        await asyncio.sleep(0.006)
    assert (await reader.read(12)) == b"HTTP/1.1 200"
    writer.close()


async def test_a_client_that_waits_between_two_requests(port: int) -> None:
    """The keep-alive timeout's matter, not ours."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nOK")).startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.6)
    writer.close()


async def test_bursts_keep_no_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look with enough bytes makes no five others without any good."""
    monkeypatch.setattr(protocol, "PACE_BYTES", 20)
    assert await rest_of(port, HEAD + b"\r\n", *[b"z" * 21, *[b""] * 12] * 2, pause=0.03) == b""


def test_a_client_is_the_network_that_it_has() -> None:
    """Nobody has more connections by one of their other addresses; each stranger of IPv4 has their own."""
    doorman = Doorman(1, {"2001:db8:0:9::1"}.__contains__)
    assert doorman.enter("2001:db8::1")
    assert not doorman.enter("2001:db8::2")
    assert doorman.enter("2001:db8:0:1::1")
    assert doorman.enter("10.0.0.1")
    assert doorman.enter("10.0.0.2")
    assert all(doorman.enter("2001:db8:0:9::1") for _ in range(3))
    doorman.leave("2001:db8::1")
    assert doorman.enter("2001:db8::2")


async def test_no_address_takes_all_connections(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exempt: set[str] = set()
    monkeypatch.setattr(AnsweringProtocol, "doorman", Doorman(2, exempt.__contains__))
    request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"

    async def ask() -> tuple[bytes, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        return await reader.read(12), writer

    answers = [await ask() for _ in range(3)]
    assert [status for status, _ in answers] == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 503"]
    exempt.add("127.0.0.1")
    status, writer = await ask()
    assert status == b"HTTP/1.1 200"
    exempt.clear()
    for _, each in [*answers, (status, writer)]:
        each.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:  # until the server has seen their ends
            status, writer = await ask()
            writer.close()
            if status == b"HTTP/1.1 200":
                return
            await asyncio.sleep(POLL_SECONDS)
