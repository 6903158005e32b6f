"""What SOURCE and TARGET mean: databases, and what MLflow's own code makes one of: servers, folders of runs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from headrace import database_url
from headrace.copy import sql, tensorboard, wandb
from headrace.copy.store import Store
from headrace.database import is_made, prepare
from headrace.database_url import DatabaseURL, PostgresURL, SqliteURL
from headrace.errors import ConfigurationError
from headrace.settings import Settings
from headrace.uri import redact

_CONNECTION_SECONDS = 10
_FOLDERS = "headrace-copied-"
_SURELY_LOCKED_SECONDS = 60  # after a folder was made
# what a folder can have, and the module that reads it
_READERS = {
    "MLflow": "headrace.copy.filestore",
    "TensorBoard": "headrace.copy.tensorboard",
    "W&B": "headrace.copy.wandb",
}
_NEEDS = {"TensorBoard": "tensorboard", "W&B": "wandb"}  # a package, which Headrace itself does without


@contextmanager
def source(
    text: str, experiments: Sequence[str], known: Callable[[], Sequence[str]]
) -> Iterator[PostgresURL | SqliteURL]:
    """The database that is read. Of a server no more is read than these experiments (none for all), and
    not again the runs that are `known`. Raises ConfigurationError, SchemaOutOfDate.
    """
    database = _database(text)
    if isinstance(database, PostgresURL | SqliteURL):
        yield database
    elif database is None and not is_server(text):
        with _of_folder(text) as made:
            yield made
    else:
        url = text if database is None else database.stock_url()
        asked = {"source": url, "experiments": list(experiments), "known": list(known())}
        with _made_by("headrace.copy.server", asked, f"{redact(text)} can't be read") as made:
            yield made


@contextmanager
def source_url(text: str) -> Iterator[str]:
    """What MLflow's client takes as its tracking URI. Raises ConfigurationError, SchemaOutOfDate."""
    database = _database(text)
    if database is not None or is_server(text):
        yield text if database is None else database.stock_url()
    else:
        with _of_folder(text) as made:
            yield made.url


def _database(text: str) -> DatabaseURL | None:
    """None for a server or a folder. Raises ConfigurationError for what is none of them, or has no tables."""
    if Path(text.removeprefix("file://")).exists():
        return None
    if is_server(text):
        reach(text)
        return None
    found = database_url.parse(text)
    if found is None:
        raise ConfigurationError(
            f"{redact(text)} is no source that can be copied. Name a database (postgresql://..., sqlite:///PATH), "
            "a server (http://...) or a folder of runs (./mlruns, TensorBoard's, ./wandb)."
        )
    if isinstance(found, PostgresURL | SqliteURL) and not is_made(found, writes=False):
        raise ConfigurationError(f"There are no tables of MLflow in {found.shown}. Look at SOURCE.")
    return found


@contextmanager
def _of_folder(text: str) -> Iterator[SqliteURL]:
    folder = Path(text.removeprefix("file://"))
    writer = _writer_of(folder)
    package = _NEEDS.get(writer)
    if package is not None and find_spec(package) is None:
        raise ConfigurationError(
            f"{folder} has runs of {writer}, which are read by a package that is not installed here: "
            f"pip install 'headrace[{package}]'."
        )
    with _made_by(_READERS[writer], {"source": str(folder)}, f"{writer}'s runs in {folder} can't be read") as made:
        yield made


def is_unpacked(text: str) -> bool:
    """Whether the files of its runs are unpacked for the copy, and are gone with it."""
    return Path(text.removeprefix("file://")).exists() and _writer_of(Path(text.removeprefix("file://"))) != "MLflow"


def _writer_of(folder: Path) -> str:
    """Whose runs are in it. Raises ConfigurationError for a file."""
    if folder.is_file():
        if folder.match(tensorboard.FILES) or folder.suffix == ".wandb":
            raise ConfigurationError(f"{folder} is a file of a run. Name its folder: {folder.parent}.")
        raise ConfigurationError(f"{folder} is a file. Name a SQLite database as sqlite:///{folder}.")
    if wandb.logs(folder):
        return "W&B"
    if not any(folder.rglob("meta.yaml")) and any(folder.rglob(tensorboard.FILES)):
        return "TensorBoard"
    return "MLflow"


def is_server(text: str) -> bool:
    """Whether it is the URL of a server."""
    return text.startswith(("http://", "https://"))


def reach(server: str) -> None:
    """Raises ConfigurationError where nothing takes a connection: MLflow's client tries for minutes, and says nothing.

    Behind a proxy of the environment's only that one could know.
    """
    try:
        parts = urlsplit(server)
        address = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme in getproxies() and not proxy_bypass(parts.hostname or ""):
            return
        socket.create_connection(address, _CONNECTION_SECONDS).close()
        if parts.scheme == "https":
            _check_tls(server)
    except (OSError, ValueError) as error:  # ValueError: of a port or a name that is none
        said = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"The server {redact(server)} can't be reached: {said}. Look at its address, and at whether it is up."
        ) from None


def _check_tls(server: str) -> None:
    """Raises ConfigurationError for a certificate that MLflow's client does not trust, or where no TLS is spoken."""
    import requests

    trusted = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    try:
        requests.head(server, timeout=_CONNECTION_SECONDS, verify=trusted or not insecure)
    except requests.exceptions.SSLError as error:
        found = re.search(r"\[SSL: \w+\] ([^(]*)", str(error))
        raise ConfigurationError(
            f"The server {redact(server)} can't be reached by TLS: {found[1].strip() if found else 'it fails'}. Look "
            "at whether it is https://, and at MLFLOW_TRACKING_SERVER_CERT_PATH."
        ) from None
    except (requests.RequestException, OSError):  # MLflow's client says it
        pass


async def ended_runs(store: Store | None) -> list[str]:
    """The ids of the runs that a target has and that have ended. Closes it."""
    if store is None:
        return []
    try:
        return [row[0] for row in await store.rows(sql.ENDED_RUNS())]
    finally:
        await store.close()


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
def _made_by(module: str, asked: dict[str, Any], failed: str) -> Iterator[SqliteURL]:
    """The database that a module of ours makes with MLflow's code, in a process of its own.

    It is gone afterwards, with the files beside it.

    What is asked goes by standard input: a URL may have a password, which an argument would show.
    """
    with _folder() as (folder, lock):
        database = SqliteURL(url=f"sqlite:///{folder}/mlflow.db", path=f"{folder}/mlflow.db")
        command = [sys.executable, "-m", module, database.path]
        # which has the lock, too: after kill -9 of this process it goes on for a while
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, check=False, pass_fds=[lock]
        )
        if done.returncode:
            words = redact(_last_error(done.stderr))
            raise ConfigurationError(f"{failed}: {words[:500].rstrip('.')}. Look at SOURCE.")
        yield database


def _last_error(text: str) -> str:
    """The message at the end of a traceback, in one line; a page of HTML may be a part of it."""
    found = [match.start() for match in re.finditer(r"^[\w.]+(?:Error|Exception)\b", text, re.M)]
    return " ".join((text[found[-1] :] if found else text.strip().rpartition("\n")[2]).split())


@contextmanager
def _folder() -> Iterator[tuple[str, int]]:
    """A temporary one that goes with this copy, and its lock. Those that killed copies left behind go first."""
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        with suppress(OSError):  # another user's, or in use
            if time.time() - left.stat().st_mtime < _SURELY_LOCKED_SECONDS:
                continue
            descriptor = _locked(str(left))
            try:
                shutil.rmtree(left)
            finally:
                os.close(descriptor)
    with tempfile.TemporaryDirectory(prefix=_FOLDERS) as folder:
        descriptor = _locked(folder)
        try:
            yield folder, descriptor
        finally:
            os.close(descriptor)


def _locked(folder: str) -> int:
    """A descriptor that holds its lock. Raises OSError where another process does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
