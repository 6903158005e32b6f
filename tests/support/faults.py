"""A proxy in front of an HTTP server that injects faults: errors, resets, and answers that end too early."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

UNAVAILABLE = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Fault:
    """`unavailable`: a 503, the request is not passed on; `reset`: a TCP reset instead of an answer; `cut`: the answer
    ends after so many bytes of it."""

    kind: Literal["unavailable", "reset", "cut"]
    after: int = 0


class FaultyProxy(threading.Thread):
    """`fault`: (a request's line, how many like it came before) -> what happens to it; None: it is passed on."""

    def __init__(self, target: str, fault: Callable[[str, int], Fault | None]) -> None:
        super().__init__(daemon=True)
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._fault = fault
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.seen: list[str] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
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
