"""A server as a process tree: start it, wait until it answers, weigh it, and end all of it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


class ServerFailed(Exception):
    """A server ended, or was not ready in time. The text ends with the last lines of its log."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def clean_environment(extra: dict[str, str]) -> dict[str, str]:
    """What every server gets: nothing of the user's MLflow or Python settings, and no telemetry."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", **extra}


class ServerProcess:
    """A started server. `port` is where it listens on 127.0.0.1."""

    def __init__(self, command: list[str], port: int, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.log = folder / "log"
        self._started = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=clean_environment(environment),
                start_new_session=True,
            )

    def wait_ready(self, path: str = "/health", patience: float = 120.0) -> float:
        """Poll until `path` answers 200; return the seconds since the start. Raises ServerFailed."""
        while time.perf_counter() < self._started + patience:
            if self._process.poll() is not None:
                raise ServerFailed(f"ended with {self._process.returncode}:\n{self.log_tail()}")
            if self._answers(path):
                return time.perf_counter() - self._started
            time.sleep(0.005)
        raise ServerFailed(f"did not answer {path} within {patience:.0f} s:\n{self.log_tail()}")

    def _answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def settled_memory(self, patience: float = 25.0) -> float:
        """The tree's memory in MB, once it has stayed within 2 % for 2 seconds."""
        give_up = time.monotonic() + patience
        values = [memory(self.tree())]
        while time.monotonic() < give_up:
            time.sleep(0.5)
            values.append(memory(self.tree()))
            last = values[-5:]
            if len(last) == 5 and max(last) - min(last) <= 0.02 * max(last):
                break
        return values[-1]

    @property
    def pid(self) -> int:
        return self._process.pid

    def tree(self) -> list[int]:
        return descendants(self.pid)

    def stop(self) -> None:
        """SIGTERM to the root, and SIGKILL to whatever of the tree is left after 10 seconds."""
        pids = self.tree()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        give_up = time.monotonic() + 3
        while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < give_up:
            time.sleep(0.05)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def descendants(root: int) -> list[int]:
    """A process and its descendants, from /proc; the root alone where there is no /proc."""
    children: dict[int, list[int]] = defaultdict(list)
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            # after the program's name, which may hold spaces and parentheses: state, parent, ...
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        children[int(fields[1])].append(int(stat.parent.name))
    tree = [root]
    for pid in tree:
        tree += children[pid]
    return tree


def memory(pids: Iterable[int]) -> float:
    """The proportional set size of some processes, in MB (of 1,000,000 bytes): shared pages count by their share.

    Raises ServerFailed where the system does not tell it (it is Linux's).
    """
    kilobytes = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    if not kilobytes:
        raise ServerFailed("no memory figures: /proc/PID/smaps_rollup is needed (Linux)")
    return kilobytes * 1024 / 1e6


def cpu_seconds(pids: Iterable[int], ended_children: bool = False) -> float:
    """The processor time that some processes have used since they started; their ended children's too, if asked for."""
    ticks = 0
    for pid in pids:
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11 : 15 if ended_children else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")
