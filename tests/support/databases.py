"""Fresh MLflow databases on PostgreSQL and SQLite, and what is in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import sqlalchemy

from headrace.database_url import PostgresURL, parse
from tests.support import fork_server
from tests.support.fork_server import ROOT
from tests.support.postgres import Postgres
from tests.support.processes import clean_environment, one_at_a_time

Backend = Literal["postgresql", "sqlite"]
# The revision before the last of MLflow 2.0, when the tables of 3.x were not there.
OLD_REVISION = "cc1f77228345"
BACKENDS: tuple[Backend, ...] = ("postgresql", "sqlite")


@cache
def _engine(uri: str) -> sqlalchemy.Engine:
    """Without a pool: no connection stays open between two uses."""
    return sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)


@dataclass(frozen=True)
class Database:
    """`name` is the database's name or the file's path; `uri` what a user gives as --backend-store-uri."""

    backend: Backend
    name: str
    uri: str

    @property
    def url(self) -> PostgresURL:
        """What the URI of one on PostgreSQL means to Headrace."""
        url = parse(self.uri)
        assert isinstance(url, PostgresURL)
        return url

    @contextmanager
    def connect(self) -> Iterator[sqlalchemy.Connection]:
        """A transaction that is committed at the end."""
        with _engine(self.uri).begin() as connection:
            yield connection

    def query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of one SELECT as dictionaries; `:name` marks a parameter."""
        with self.connect() as connection:
            return [dict(row) for row in connection.execute(sqlalchemy.text(sql), parameters).mappings()]

    def execute(self, sql: str, **parameters: Any) -> None:
        with self.connect() as connection:
            connection.execute(sqlalchemy.text(sql), parameters)


class Databases:
    """Makes databases; the migrated one is made once by stock's own code and then copied (50 ms).

    `shared`: a folder where all that run tests at the same time keep what stock has made (5 s of processor time).
    """

    def __init__(self, postgres: Postgres, folder: Path, shared: Path) -> None:
        self._postgres = postgres
        self._folder = folder
        self._shared = shared
        self._template = ""  # PostgreSQL's
        self._count = 0

    def empty(self, backend: Backend) -> Database:
        """A database without a table; the SQLite one is a file that does not exist yet."""
        if backend == "postgresql":
            return self._of_postgres(self._postgres.create_database())
        return self._of_file(self._next_file())

    def migrated(self, backend: Backend) -> Database:
        """A database as stock leaves it after its first start: its schema and the experiment "Default"."""
        with one_at_a_time(self._shared / f"{backend}.lock"):
            made = self._made_by_stock(backend)
        if backend == "sqlite":
            file = self._next_file()
            shutil.copy(made, file)
            return self._of_file(file)
        if not self._template:
            self._template = self._postgres.create_database()
            self._postgres.load(self._template, made.read_text())
        return self._of_postgres(self._postgres.create_database(self._template))

    def _made_by_stock(self, backend: Backend) -> Path:
        """SQLite's file, or PostgreSQL's dump."""
        made = self._shared / backend
        if not made.exists():
            database = self.empty(backend)
            initialise(database)
            if backend == "sqlite":
                Path(database.name).rename(made)
            else:
                made.write_text(self._postgres.dump(database.name))
        return made

    def _of_postgres(self, name: str) -> Database:
        return Database("postgresql", name, self._postgres.uri(name))

    def _of_file(self, file: Path) -> Database:
        return Database("sqlite", str(file), f"sqlite:///{file}")

    def _next_file(self) -> Path:
        self._count += 1
        return self._folder / f"mlflow_{self._count}.db"


def initialise(database: Database) -> None:
    """Let stock's own code make its tables and first rows, in a process of its own."""
    _make_tables(database.uri)


def made_by_an_older_mlflow(database: Database) -> None:
    """Make the tables of `OLD_REVISION` in an empty database, by stock's own migrations."""
    _make_tables(database.uri, OLD_REVISION)


def _make_tables(*arguments: str) -> None:
    command = [sys.executable, "-m", "tests.support.stock_tables", *arguments]
    env = clean_environment() | {"PYTHONPATH": str(ROOT)} | fork_server.environment()
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
