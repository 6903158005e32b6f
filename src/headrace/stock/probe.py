"""A stock process that lives but no longer answers is ended, and so started again."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable

from headrace.process import Child

# Stock answers this on its event loop, without a store and without a thread of its pool: busy is not hung.
_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Probe(threading.Thread):
    """Asks the process behind the Unix socket at `path` every `pause` seconds.

    When it was ready, and has then not answered within `patience` seconds `failures` times in a row, it is killed.
    """

    def __init__(
        self,
        child: Child,
        path: str,
        log: Callable[[str], None],
        *,
        pause: float = 5.0,
        patience: float = 10.0,
        failures: int = 3,
    ) -> None:
        super().__init__(daemon=True, name=f"probe of {child.name}")
        self._child, self._path, self._log = child, path, log
        self._pause, self._patience, self._failures = pause, patience, failures

    def run(self) -> None:
        process, failed = None, 0
        while True:
            time.sleep(self._pause)
            if self._child.popen is not process:
                process, failed = self._child.popen, 0
            if process is None or self._child.ready_since is None:
                continue
            failed = 0 if self.answers() else failed + 1
            # Still the one that was asked, and it has not ended by itself meanwhile?
            if failed >= self._failures and self._child.popen is process and process.poll() is None:
                self._log(f"{self._child.name} did not answer {failed} times in a row; it is ended")
                process.send_signal(signal.SIGKILL)
                failed = 0

    def answers(self) -> bool:
        """Whether anything comes back in time."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._patience)
                connection.connect(self._path)
                connection.sendall(_REQUEST)
                return bool(connection.recv(1))
        except OSError:
            return False
