"""Proxies that inject faults: in front of an HTTP server, and on the way to any TCP server."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.support.listening import Listening
from tests.support.processes import free_port

RETRANSMISSION_SECONDS = 0.2
UNAVAILABLE = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Fault:
    """`unavailable`: a 503, the request is not passed on; `reset`: a TCP reset instead of an answer; `cut`: the answer
    ends after so many bytes of it."""

    kind: Literal["unavailable", "reset", "cut"]
    after: int = 0


class FaultyProxy(Listening):
    """`fault`: (a request's line, how many like it came before) -> what happens to it; None: it is passed on."""

    def __init__(self, target: str, fault: Callable[[str, int], Fault | None]) -> None:
        super().__init__()
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._fault = fault
        self.url = f"http://127.0.0.1:{self.port}"
        self.seen: list[str] = []
        self._lock = threading.Lock()

    def serve(self, connection: socket.socket) -> None:
        """One request; the connection ends with its answer."""
        with connection:
            head = _read_head(connection)
            if not head:
                return
            line, _, rest = head.partition(b"\r\n")
            text = line.decode("latin-1")
            with self._lock:
                before = self.seen.count(text)
                self.seen.append(text)
            fault = self._fault(text, before)
            if fault is not None and fault.kind == "unavailable":
                connection.sendall(UNAVAILABLE)
                _drain(connection)
            elif fault is not None and fault.kind == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self._pass_on(connection, line + b"\r\nConnection: close\r\n" + rest, fault)

    def _pass_on(self, connection: socket.socket, head: bytes, fault: Fault | None) -> None:
        with socket.create_connection(self._target) as upstream:
            upstream.sendall(head)
            sending = threading.Thread(target=_copy, args=(connection, upstream), daemon=True)
            sending.start()
            left = fault.after if fault is not None else 1 << 60
            try:
                while left > 0 and (chunk := upstream.recv(min(65536, left))):
                    connection.sendall(chunk)
                    left -= len(chunk)
                # said aloud, because a close waits for the thread that still reads
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                return


def _read_head(connection: socket.socket) -> bytes:
    """A request's head, and what of its body came with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        try:
            more = connection.recv(65536)
        except OSError:
            return b""
        if not more:
            return b""
        head += more
    return head


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
    except OSError:
        return


def _drain(connection: socket.socket) -> None:
    """Read what still comes, so that the answer is not lost to a reset."""
    connection.settimeout(1)
    try:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    except OSError:
        return


class TcpProxy(threading.Thread):
    """A way to a TCP server that can be cut in every manner. New connections are passed on unless it is `silent`.

    `loss`: which part of what is sent comes later, and holds up what is behind it, as TCP sends a lost segment again.
    """

    def __init__(self, target: int, host: str = "127.0.0.1", port: int = 0, loss: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._loss, self._chance = loss, random.Random(1)
        self.lost = 0
        self._target = target
        self._listener = socket.create_server((host, port or free_port()), backlog=128)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.silent = False
        self.accepted = 0
        self._ways: list[_Way] = []
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                server = None if self.silent else socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # nobody is there: as if the client had been refused
                client.close()
                continue
            self._ways.append(_Way(client, server, self._delay))

    def _delay(self) -> None:
        """Linux's least time-out of a segment, twice as long for each time that it is lost again."""
        pause = RETRANSMISSION_SECONDS
        while self._chance.random() < self._loss:
            self.lost += 1
            time.sleep(pause)
            pause *= 2

    def swallow(self) -> None:
        """What is sent on the connections that there are is taken, and never arrives."""
        for way in self._ways:
            way.swallows = True

    def forget(self) -> None:
        """Each of the connections that there are ends with a TCP reset when it is used next, as in a restarted NAT."""
        for way in self._ways:
            way.forgotten = True

    def reset(self) -> None:
        """End the connections that there are with a TCP reset."""
        while self._ways:
            self._ways.pop().reset()

    def stop(self) -> None:
        """Refuse new connections, and end the others."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join()  # one that it has accepted may be on its way
        self.reset()


class _Way:
    """One connection; without a server behind it whatever comes is swallowed."""

    def __init__(self, client: socket.socket, server: socket.socket | None, delay: Callable[[], None]) -> None:
        self._delay = delay
        self.swallows = server is None
        self.forgotten = False
        self._client, self._server = client, server
        for source, target in ((client, server), (server, client)):
            if source is not None:
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket | None) -> None:
        try:
            while chunk := source.recv(65536):
                if self.forgotten:
                    self.reset()
                    return
                self._delay()
                if not self.swallows and target is not None:
                    target.sendall(chunk)
            if not self.swallows and target is not None:
                target.shutdown(socket.SHUT_WR)
        except OSError:  # the one end is gone: the other shall know
            if not self.swallows:
                self.reset()

    def reset(self) -> None:
        for end in (self._client, self._server):
            if end is not None:
                with contextlib.suppress(OSError):  # it may be closed
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)  # a thread that reads keeps the socket open: wake it up first
                end.close()
