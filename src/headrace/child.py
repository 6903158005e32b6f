"""The child's side of headrace.process: read the configuration, say `ready`, see the parent's end; import MLflow."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Parent:
    """The socket pair to the parent, moved away from standard input so that our own children don't get it."""

    def __init__(self) -> None:
        self.fd = os.dup(0)  # not inheritable
        self.listener: socket.socket | None = None
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)

    def read_configuration(self) -> dict[str, Any]:
        """Wait for the configuration, set the environment that came with it, and return the rest.

        `listener` is then the socket to serve, where one came along. Ends the process when the parent ends before it
        has sent a configuration.
        """
        line = b""
        while not line.endswith(b"\n"):
            piece = self._read_with_listener()
            if not piece:
                raise SystemExit(0)
            line += piece
        configuration: dict[str, Any] = json.loads(line)
        os.environ.update(configuration.pop("environ"))
        return configuration

    def _read_with_listener(self) -> bytes:
        with socket.socket(fileno=os.dup(self.fd)) as channel:
            try:
                piece, descriptors, _, _ = socket.recv_fds(channel, 65536, 1)
            except ConnectionError:
                return b""
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            # The protocol in full: asyncio sets TCP_NODELAY on sockets that say they are TCP, and on macOS a
            # descriptor can't be asked for it.
            with socket.socket(fileno=os.dup(descriptor)) as asked:
                family = asked.family
            self.listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)
        return piece

    def read(self) -> bytes:
        """The next bytes of the parent; empty when it is gone."""
        try:
            return os.read(self.fd, 65536)
        except ConnectionError:  # it died without having read our `ready`
            return b""

    def ready(self) -> None:
        """Tell the parent that we serve. One that has ended is noticed by `when_gone`."""
        with suppress(OSError):
            os.write(self.fd, b"ready\n")

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call back in a thread of its own when the parent has ended."""

        def wait() -> None:
            while self.read():
                pass
            callback()

        threading.Thread(target=wait, name="parent", daemon=True).start()


def remove_runtime_directory(path: str) -> None:
    """Remove the socket's directory; the children do it when the parent can't any more."""
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def importing() -> Iterator[None]:
    """Around the imports of MLflow: what they make stays, and Python does not look through it for what could go.

    A sixth of their processor time was that: 0.65 of 4.0 s of `mlflow.server.fastapi_app`. Later collections leave it
    out, too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
