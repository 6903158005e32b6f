"""Who is measured. A peer is added here: a name, its environment, and the command that starts it.

A peer's environment is made by the Makefile's rule `.venv-NAME/.ready` from requirements/NAME.txt.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.databases import KINDS, Database
from bench.process import ServerProcess, free_port

REPOSITORY = Path(__file__).resolve().parent.parent
# family -> what it is called in tables
FAMILIES = {
    "headrace": "Headrace",
    "stock": "stock MLflow",
    "fasttrackml": "FastTrackML",
    "bare": "bare app",
    "raw": "raw SQL",
}


@dataclass(frozen=True)
class Launch:
    """What a command is made of. `bin` is the environment's folder of programs."""

    bin: Path
    port: int
    database: Database | None


@dataclass(frozen=True)
class Peer:
    """A server program in one set-up. Of a family's set-ups the best counts, for each workload by itself.

    `command` is None for what is no server: the database alone. `migrated`: it works on MLflow's own tables, made by
    stock; FastTrackML makes its own.
    `start_only`: a set-up that only the start-up measurements know.
    """

    name: str
    family: str
    environment: str
    command: Callable[[Launch], list[str]] | None
    package: str = "mlflow"
    databases: tuple[str, ...] = KINDS
    needs_database: bool = True
    migrated: bool = True
    start_only: bool = False
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return REPOSITORY / self.environment

    def make_environment(self) -> None:
        make_environment(self.environment)

    def version(self) -> str:
        """The installed version of the peer's package."""
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        return subprocess.check_output([self.folder / "bin" / "python", "-c", code], text=True).strip()

    def start(self, database: Database | None, folder: Path) -> ServerProcess:
        """Start the server; it is not ready yet."""
        if self.command is None:
            raise ValueError(f"{self.name} is no server")
        port = free_port()
        command = self.command(Launch(self.folder / "bin", port, database))
        return ServerProcess(command, port, folder, self.variables)


def make_environment(name: str) -> None:
    """Have `make` set up an environment (quick when it is there)."""
    subprocess.run(["make", "--silent", f"{name}/.ready"], cwd=REPOSITORY, check=True, stdout=sys.stderr)


def _uri(launch: Launch) -> str:
    assert launch.database is not None
    return launch.database.uri


def _stock(*options: str) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        assert launch.database is not None
        address = ["--host", "127.0.0.1", "--port", str(launch.port)]
        store = ["--backend-store-uri", launch.database.sqlalchemy_uri, "--default-artifact-root", "./artifacts"]
        return [str(launch.bin / "mlflow"), "server", *address, *store, *options]

    return command


def _fasttrackml(launch: Launch) -> list[str]:
    uri = _uri(launch).replace("postgresql://", "postgres://").replace("sqlite:///", "sqlite://")
    address = ["--listen-address", f"127.0.0.1:{launch.port}"]
    return [str(launch.bin / "fml"), "server", *address, "--database-uri", uri]


def _headrace(*options: str) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        address = ["--host", "127.0.0.1", "--port", str(launch.port)]
        store = ["--backend-store-uri", _uri(launch), "--default-artifact-root", "./artifacts"]
        return [str(launch.bin / "headrace"), "serve", *address, *store, *options]

    return command


def _bare(launch: Launch) -> list[str]:
    """The same server and options as a worker of Headrace (src/headrace/server.py)."""
    options = ["--http", "httptools", "--loop", "uvloop", "--ws", "none", "--no-access-log", "--no-server-header"]
    server = [str(launch.bin / "python"), "-m", "uvicorn", "bench.bare_app:app"]
    return [*server, "--app-dir", str(REPOSITORY), "--port", str(launch.port), *options]


PEERS = (
    Peer("headrace", "headrace", ".venv", _headrace(), package="headrace"),
    Peer("headrace-lazy", "headrace", ".venv", _headrace("--stock", "lazy"), package="headrace", start_only=True),
    Peer("stock-workers-1", "stock", ".venv-stock", _stock("--workers", "1")),
    Peer("stock-workers-4", "stock", ".venv-stock", _stock("--workers", "4")),
    Peer(
        "stock-gunicorn-2",
        "stock",
        ".venv-stock",
        _stock("--workers", "2", "--gunicorn-opts", "--log-level warning"),
    ),
    Peer(
        "fasttrackml",
        "fasttrackml",
        ".venv-fasttrackml",
        _fasttrackml,
        package="fasttrackml",
        databases=("postgresql",),
        migrated=False,
    ),
    Peer("bare", "bare", ".venv", _bare, package="uvicorn", databases=("postgresql",), needs_database=False),
    Peer("raw", "raw", ".venv", None, package="asyncpg"),
)
BY_NAME = {peer.name: peer for peer in PEERS}
