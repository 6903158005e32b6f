"""The sockets on which workers take connections.

On Linux each worker has one of its own, and the kernel shares out the connections evenly among them. From a socket that
all have, the worker that happens to be idle takes all that wait: of 500 clients that came at once it had 430.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

from headrace.errors import ConfigurationError

PORT_SECONDS = 3.0


class Listener:
    """A TCP socket on an address, not yet listening. `shared`: others on the same address share its connections."""

    def __init__(self, family: int, address: Any, shared: bool = False) -> None:
        self._family, self._address, self._shared = family, address, shared
        self._socket: socket.socket | None = self._open()

    @property
    def port(self) -> int:
        number: int = self._open_one().getsockname()[1]
        return number

    def fileno(self) -> int:
        return self._open_one().fileno()

    def withdraw(self) -> None:
        """Until it is asked for again, let the others have the connections, if there are any."""
        if self._shared:
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open_one(self) -> socket.socket:
        if self._socket is None:
            self._socket = self._open()
        return self._socket

    def _open(self) -> socket.socket:
        # The protocol in full, and TCP_NODELAY, which accepted connections inherit on Linux: without it every
        # keep-alive request waits 40 ms for a delayed ACK.
        opened = socket.socket(self._family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            opened.bind(self._address)
        except OSError:
            opened.close()
            raise
        return opened


def listen(host: str, port: int, workers: int) -> list[Listener]:
    """A listener for each worker. Raises ConfigurationError.

    A port that is in use is waited for a little: after kill -9 of a server its workers end by themselves, and soon.
    """
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return _listen(host, port, workers)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise ConfigurationError(
                    f"Can't listen on {host[:200]} port {port}: {error.strerror}. "
                    "Choose another with --host and --port."
                ) from None
        time.sleep(0.05)


def _listen(host: str, port: int, workers: int) -> list[Listener]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:  # of the codec for names
        raise ConfigurationError(f"--host is {host[:200]!r}, which is no name or address of this machine.") from None
    (family, _, _, _, address), *_ = found
    alone = Listener(family, address)  # it fails where another program has the port, which shared ones would share
    if workers == 1 or sys.platform != "linux":
        return [alone] * workers
    address = (address[0], alone.port, *address[2:])
    alone.close()
    return [Listener(family, address, shared=True) for _ in range(workers)]


def close(listeners: Iterable[Listener]) -> None:
    for each in listeners:
        each.close()
