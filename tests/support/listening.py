"""A TCP server of the tests' own."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.support.processes import free_port


class Listening(threading.Thread):
    """Takes connections on a free port of 127.0.0.1 once started, each of which has a thread that calls `serve`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", free_port()), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one end or the other has gone; whoever is left sees it
            self.serve(connection)

    def stop(self) -> None:
        """Take no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join()

    def serve(self, connection: socket.socket) -> None:
        """One connection, which it closes."""
        raise NotImplementedError
