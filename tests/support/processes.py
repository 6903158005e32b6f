"""Server processes of the tests: started on a free port, waited for by polling, always ended."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

POLL_SECONDS = 0.05
# For what must happen, however slow or busy the machine is; a wait that ends costs only what it takes.
PATIENCE_SECONDS = 60.0
# For clients that log models: MLflow would find out what a model needs by a process that imports MLflow and the model
# anew, 4 s of processor time of which no server sees anything.
GUESSED_REQUIREMENTS = {"MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "0"}
# Reads process groups from its standard input, negative ones for those that have ended; at the input's end it kills
# the ones that are left.
_HEIR = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    group = int(line)
    groups.add(group) if group > 0 else groups.discard(-group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class _Ports:
    """Ports of this machine that are this process's own until it ends.

    None of those that the system hands out, to clients and to who listens on port 0: between the choice and the start
    of a server, and while a test has its server stopped, one of these would be gone. Among the others each process that
    runs tests takes a hundred at a time, and says so by a UDP socket on the first, which ends with it.
    """

    FIRST, COUNT = 11_000, 100  # above 10080, which browsers refuse to visit

    def __init__(self) -> None:
        self._left: Iterator[int] = iter(())

    def take(self) -> int:
        while True:
            for port in self._left:
                if _is_free(port):
                    return port
            self._take_a_hundred()

    def _take_a_hundred(self) -> None:
        ranges = list(range(self.FIRST, _first_of_the_systems() - self.COUNT, self.COUNT))
        here = os.getpid() % len(ranges)  # one after the other, of those that run at the same time
        for first in ranges[here:] + ranges[:here]:
            mark = socket.socket(type=socket.SOCK_DGRAM)
            try:
                mark.bind(("127.0.0.1", first))
            except OSError:
                mark.close()
                continue
            mark.detach()  # open as long as this process
            self._left = iter(range(first, first + self.COUNT))
            return
        raise AssertionError(f"other processes have all ports from {ranges[0]} to {ranges[-1] + self.COUNT}")


def _first_of_the_systems() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:  # no Linux: where IANA has them begin
        return 49_152


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("", port))
        except OSError:
            return False
        return True


_PORTS = _Ports()


def free_port() -> int:
    """A TCP port that nobody listens on, and that nobody else of the tests or of the system is given."""
    return _PORTS.take()


async def eventually(done: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """As `wait_until`, while the loop goes on."""
    async with asyncio.timeout(seconds):
        while True:
            if done():
                return
            await asyncio.sleep(0.01)


def wait_until(
    done: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS, every: float = POLL_SECONDS
) -> None:
    """Poll `done` until it is true; AssertionError with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)


@contextlib.contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Of all processes that run tests."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def _heir() -> int:
    """A descriptor of the process that ends our servers after us, even when we are killed."""
    command = [sys.executable, "-S", "-E", "-c", _HEIR]
    heir = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert heir.stdin is not None
    atexit.register(heir.wait)
    atexit.register(heir.stdin.close)  # the last one registered goes first
    return heir.stdin.fileno()


class Process:
    """A program in a process group of its own; its output goes to a file that a failure shows.

    It ends with this process, even if that is killed.

    `env` is added to a clean environment, so that a developer's MLFLOW_* variables change no test.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment() | dict(env or {}),
                cwd=cwd,
                user=user,
                extra_groups=None if user is None else [],
                start_new_session=True,
            )
        os.write(_heir(), b"%d\n" % self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float = 240) -> None:
        """Poll `ready`; when it fails, or the process ends before, the output is shown."""

        def ready_or_dead() -> bool:
            assert self.running(), f"ended with {self._process.returncode} before {what}:\n{self.tail()}"
            return ready()

        try:
            wait_until(ready_or_dead, what, seconds)
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def tail(self, characters: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, not to its children."""
        self._process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The exit code (negative: the signal that ended it)."""
        return self._process.wait(seconds)

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 15) -> None:
        """Ask the process to end; then end whatever is left of its group."""
        if self.running():
            self.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.write(_heir(), b"%d\n" % -self._process.pid)


def clean_environment() -> dict[str, str]:
    """This process's environment without what would configure a server or a client."""
    prefixes = ("MLFLOW_", "_MLFLOW_", "AWS_", "PG", "HEADRACE_")
    names = {"BUCKET", "USERNAME", "PASSWORD", "HOST", "PORT", "DATABASE"}
    return {k: v for k, v in os.environ.items() if not k.startswith(prefixes) and k not in names}
