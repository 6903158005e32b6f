"""Starting `headrace serve` and looking at its processes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import requests

from tests.support import fork_server
from tests.support.processes import Process, clean_environment, free_port, wait_until
from tests.support.servers import SCRIPTS, Server

HEALTH = "/health"


class Serving(Server):
    """A `headrace serve` with a view on its process tree."""

    def __init__(self, url: str, process: Process) -> None:
        super().__init__("headrace", url, process)

    @property
    def log(self) -> str:
        return self.process.log.read_text(errors="replace")

    def children(self, module: str) -> list[psutil.Process]:
        """The running processes of `python -m MODULE`."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if child.status() != psutil.STATUS_ZOMBIE and child.cmdline()[1:] == ["-m", module]:
                    found.append(child)
            except (psutil.NoSuchProcess, IndexError):
                continue
        return found

    @property
    def workers(self) -> list[psutil.Process]:
        return self.children("headrace.worker")

    @property
    def stock(self) -> psutil.Process | None:
        return next(iter(self.children("headrace.stock.launch")), None)

    @property
    def stock_itself(self) -> psutil.Process:
        """The fork for which `stock` stands in, or that one."""
        assert self.stock is not None
        return fork_server.fork_of(self.stock) or self.stock

    def get(self, path: str, timeout: float = 60) -> requests.Response:
        return requests.get(self.url + path, timeout=timeout)


Serve = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start `headrace serve OPTIONS` in a folder of its own and wait until `until` answers 200.

    Its stock is a fork unless `forks` is False: for who looks into that process.
    """
    started: list[Process] = []

    def start(*options: str, env: Mapping[str, str] | None = None, until: str = HEALTH, forks: bool = True) -> Serving:
        port = free_port()
        env = (fork_server.environment() if forks else {}) | dict(env or {})
        command: list[str | Path] = [SCRIPTS / "headrace", "serve", "--port", str(port), *options]
        process = Process(command, tmp_path / f"log-{port}", env=env, cwd=tmp_path)
        started.append(process)
        serving = Serving(f"http://127.0.0.1:{port}", process)
        process.wait_until(lambda: serving.answers(until), f"{until} answers")
        return serving

    yield start
    for process in started:
        process.stop()


def run_headrace(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A `headrace` command that ends by itself."""
    return subprocess.run(
        [SCRIPTS / "headrace", *arguments],
        cwd=cwd,
        env=clean_environment() | fork_server.environment() | dict(env or {}),
        capture_output=True,
        text=True,
        timeout=120,
    )


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait for processes that are not ours to reap."""

    def gone() -> bool:
        return all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes)

    wait_until(gone, f"{processes} have ended")
