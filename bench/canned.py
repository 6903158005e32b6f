"""A server that does nothing: it answers MLflow's client at once, with what that needs to go on.

What a flow takes with it is the client's own time, which no server can make shorter.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import uvloop

VERSION = b"3.17.2"
# without it the client keeps the spans as an artifact
_STORED = {"mlflow.trace.spansLocation": "TRACKING_STORE"}


def _started(body: bytes) -> bytes:
    """The trace that was sent, as the server that keeps its spans tells it."""
    message = json.loads(body)
    message["trace"]["trace_info"].setdefault("tags", {}).update(_STORED)
    return json.dumps(message).encode()


def _experiment(body: bytes) -> bytes:
    return b'{"experiment": {"experiment_id": "1", "name": "one", "lifecycle_stage": "active"}}'


_ANSWERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"/version": lambda _: VERSION,
    b"/v1/traces": lambda _: b"",
    b"/api/2.0/mlflow/experiments/get": _experiment,
    b"/api/3.0/mlflow/traces": _started,
}


class _Protocol(asyncio.Protocol):
    """A connection of a client that waits for each answer."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._sent = b""

    def data_received(self, data: bytes) -> None:
        self._sent += data
        head, end, body = self._sent.partition(b"\r\n\r\n")
        length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
        if not end or len(body) < int(length.partition(b":")[2]):
            return
        self._sent = b""
        answer = _ANSWERS[head.split(b" ", 2)[1].partition(b"?")[0]](body)
        kind = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
        self.transport.write(kind + answer)


@contextmanager
def serving() -> Iterator[int]:
    """The port of such a server."""
    loop = uvloop.new_event_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    server = loop.run_until_complete(loop.create_server(_Protocol, sock=listening))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()
