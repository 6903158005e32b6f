"""What SOURCE and TARGET mean: databases, and folders that MLflow's own code turns into one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace import database_url
from headrace.copy.store import Source, Store
from headrace.database import is_made, prepare
from headrace.database_url import DatabaseURL, PostgresURL, SqliteURL
from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.uri import redact

_TENSORBOARD = "events.out.tfevents.*"
_WANDB = ("*.wandb", "offline-run-*", "wandb/offline-run-*", "wandb/run-*")


@contextmanager
def source(text: str) -> Iterator[Source]:
    """What is read; nothing is connected yet. Raises ConfigurationError, SchemaOutOfDate."""
    folder = Path(text.removeprefix("file://"))
    if folder.exists():
        with _of_folder(folder) as database:
            yield open_store(database, writes=False)
        return
    found = database_url.parse(text)
    if not isinstance(found, PostgresURL | SqliteURL):
        raise ConfigurationError(
            f"{redact(text)} is no source that can be copied. Name a database (postgresql://..., sqlite:///PATH) or a "
            "folder of runs (./mlruns)."
        )
    if not is_made(found, writes=False):
        raise ConfigurationError(f"There are no tables of MLflow in {found.shown}. Look at SOURCE.")
    yield open_store(found, writes=False)


def target(settings: Settings, dry: bool, log: Callable[[str], None]) -> Store | None:
    """What is written: its tables are made where they are not there, but in a dry run it is None then.

    Raises ConfigurationError, SchemaOutOfDate.
    """
    database = settings.database
    if not isinstance(database, PostgresURL | SqliteURL):
        raise ConfigurationError(
            f"{redact(settings.backend_store_uri)} is no target that can be written. Name a database: "
            "postgresql://... or sqlite:///PATH."
        )
    if dry and not is_made(database):
        return None
    prepare(settings, log)
    return open_store(database, writes=True)


def open_store(database: DatabaseURL, writes: bool) -> Store:
    """A database on PostgreSQL or SQLite; nothing is connected yet."""
    if isinstance(database, PostgresURL):
        from headrace.copy.postgres import PostgresStore

        return PostgresStore(database)
    assert isinstance(database, SqliteURL)
    from headrace.copy.sqlite import SqliteStore

    return SqliteStore(database, writes)


def place(text: str) -> object:
    """The same for two names of one database."""
    if Path(text).exists():
        return os.path.realpath(text)
    database = database_url.parse(text)
    if isinstance(database, PostgresURL):
        return database.hosts, database.name, database.settings
    return os.path.realpath(database.path) if isinstance(database, SqliteURL) else text


@contextmanager
def _of_folder(folder: Path) -> Iterator[SqliteURL]:
    """A database with what is in a folder of runs, by MLflow's own code; it is gone afterwards."""
    if folder.is_file():
        if folder.match(_TENSORBOARD):
            raise _tensorboard(folder)
        raise ConfigurationError(f"{folder} is a file. Name a SQLite database as sqlite:///{folder}.")
    if any(folder.rglob(_TENSORBOARD)) and not any(folder.glob("**/meta.yaml")):
        raise _tensorboard(folder)
    if any(found for pattern in _WANDB for found in folder.glob(pattern)):
        raise ConfigurationError(
            f"{folder} has runs of W&B, which Headrace does not read. Read them with wandb's own Api and log them with "
            "MLflow's client, or send them to W&B with `wandb sync`."
        )
    with tempfile.TemporaryDirectory(prefix="headrace-copy-") as made:
        database = SqliteURL(url=f"sqlite:///{made}/mlflow.db", path=f"{made}/mlflow.db")
        command = [sys.executable, "-m", "headrace.copy.filestore", str(folder), database.path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            words = done.stderr.strip().rpartition("\n")[2]
            raise ConfigurationError(f"MLflow can't read the runs in {folder}: {redact(words)}. Look at SOURCE.")
        yield database


def _tensorboard(where: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{where} has TensorBoard's event files, which Headrace does not read. Read them with TensorBoard's "
        "EventAccumulator and log them with MLflow's client (log_batch)."
    )
