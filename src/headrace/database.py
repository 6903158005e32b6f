"""The database before the server starts: create it, let stock initialise an empty one, refuse another schema.

Nothing is migrated silently: `headrace db upgrade` does that, with stock's own migrations.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace import uri
from headrace.errors import ConfigurationError, SchemaOutOfDate
from headrace.process import run_once
from headrace.settings import Settings
from headrace.sql.files import read
from headrace.uri import DatabaseURI

if TYPE_CHECKING:
    import psycopg2.extensions

Log = Callable[[str], None]
_MIGRATE = "headrace.stock.migrate"
_CONNECT_TIMEOUT = 10  # seconds
_LOCK = 0x6865616472616365  # "headrace": one server at a time looks and initialises
_REVISION = re.compile(r"^(down_)?revision\s*=\s*(?:[\"'](\w+)[\"']|None)", re.M)


class Revisions(NamedTuple):
    """MLflow's schema revisions: all of them, and the newest, which its code works on."""

    known: frozenset[str]
    head: str


def installed_revisions() -> Revisions:
    """Read them from the migrations of the installed MLflow, without importing it."""
    spec = find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    known: set[str] = set()
    replaced: set[str] = set()
    for file in folder.glob("*.py"):
        for down, revision in _REVISION.findall(file.read_text(encoding="utf-8")):
            (replaced if down else known).add(revision)
    (head,) = known - replaced
    return Revisions(frozenset(known), head)


def prepare(settings: Settings, log: Log) -> None:
    """Make the stores of `settings` ready for stock and for the workers.

    Stores that are stock's alone (MySQL, files) are left to it. Raises ConfigurationError when a database can't be
    reached or made, SchemaOutOfDate when it is of another MLflow.
    """
    for store_uri, role in _stores(settings).items():
        database = uri.parse(store_uri)
        if database is not None and database.kind in ("postgresql", "sqlite"):
            with _opened(database, log) as (tables, revision):
                if _is_empty(tables, revision, store_uri):
                    log(f"making MLflow's tables in {uri.redact(store_uri)}")
                    _run_stock("initialise", role, store_uri, settings.default_artifact_root)


def upgrade(settings: Settings) -> None:
    """Bring the stores to the schema of the installed MLflow, by stock's own migrations."""
    for store_uri, role in _stores(settings).items():
        _run_stock("upgrade", role, store_uri, settings.default_artifact_root)


def _stores(settings: Settings) -> dict[str, str]:
    """URI -> role of the stores; the registry is usually in the same database."""
    return {settings.registry_store_uri or settings.backend_store_uri: "registry"} | {
        settings.backend_store_uri: "tracking"
    }


def _is_empty(tables: set[str], revision: str | None, store_uri: str) -> bool:
    """Whether stock has to make its tables; SchemaOutOfDate if they are another MLflow's."""
    if revision is None and "experiments" not in tables:
        return True
    known, head = installed_revisions()
    if revision == head:
        return False
    from importlib.metadata import version  # 20 ms that a start in order need not wait for

    database, mlflow = uri.redact(store_uri), version("mlflow")
    if revision is None or revision in known:
        raise SchemaOutOfDate(
            f"The schema of {database} is of an older MLflow ({revision or 'no revision'}; MLflow {mlflow} needs "
            f"{head}).\nMake a backup, stop every server that uses this database, and upgrade it with "
            "`headrace db upgrade`\n(with the same --backend-store-uri or environment as `headrace serve`)."
        )
    raise SchemaOutOfDate(
        f"The schema of {database} is of a newer MLflow: its revision is {revision}, and MLflow {mlflow}, which is "
        f"installed here, knows\nnone after {head}. Install the MLflow that made it, or a newer one: "
        "`pip install --upgrade mlflow`.",
        newer=True,
    )


def _run_stock(action: str, role: str, store_uri: str, default_artifact_root: str) -> None:
    configuration = {
        "action": action,
        "role": role,
        "uri": uri.for_stock(store_uri),
        "default_artifact_root": default_artifact_root,
    }
    if code := run_once(_MIGRATE, configuration, prefix="stock | "):
        raise ConfigurationError(
            f"MLflow could not {action} the database {uri.redact(store_uri)} (exit code {code}); its words are above."
        )


@contextmanager
def _opened(database: DatabaseURI, log: Log) -> Iterator[tuple[set[str], str | None]]:
    """The database's tables and MLflow revision, with a lock against other servers that start."""
    try:
        with _sqlite(database) if database.kind == "sqlite" else _postgresql(database, log) as found:
            yield found
    except (OSError, sqlite3.Error) as error:
        shown = uri.redact(database.render())
        raise ConfigurationError(
            f"The database {shown} can't be opened: {error}. Look at --backend-store-uri."
        ) from None


@contextmanager
def _sqlite(database: DatabaseURI) -> Iterator[tuple[set[str], str | None]]:
    path = Path(database.database)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError("this user may not write it")
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        revision = None
        if "alembic_version" in tables:
            revision = next((row[0] for row in connection.execute("SELECT version_num FROM alembic_version")), None)
    yield tables, revision


@contextmanager
def _postgresql(database: DatabaseURI, log: Log) -> Iterator[tuple[set[str], str | None]]:
    with contextlib.closing(_connect_or_create(database, log)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = ANY (current_schemas(false))"
        )
        tables = {name for (name,) in cursor.fetchall()}
        revision = None
        if "alembic_version" in tables:
            cursor.execute("SELECT version_num FROM alembic_version")
            revision = next((row[0] for row in cursor.fetchall()), None)
        yield tables, revision


def _connect_or_create(database: DatabaseURI, log: Log) -> psycopg2.extensions.connection:
    """A connection to the database, which is made first if it does not exist and the role may.

    Raises ConfigurationError.
    """
    import psycopg2

    try:
        return connect(database, database.database)
    except psycopg2.OperationalError as error:
        reason = str(error)
    # libpq gives no code for a failed connection, and its text is in the server's language: ask another database.
    try:
        if not _create(database):
            raise _unreachable(database, reason)
    except psycopg2.OperationalError:
        raise _unreachable(database, reason) from None
    log(f"made the database {database.database} on {database.host or 'this machine'}")
    try:
        return connect(database, database.database)
    except psycopg2.OperationalError as error:
        raise _unreachable(database, str(error)) from None


def _create(database: DatabaseURI) -> bool:
    """CREATE DATABASE, as the seed of this project did by hand; False if it exists."""
    import psycopg2
    from psycopg2 import errors

    with contextlib.closing(connect(database, "postgres")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database.database,))
        if cursor.fetchone():
            return False
        try:
            cursor.execute(read("create_database", database=database.database))
        except (errors.DuplicateDatabase, errors.UniqueViolation):
            pass  # another server was quicker
        except psycopg2.Error as error:
            raise ConfigurationError(
                f"The database {database.database} does not exist, and the role {database.user} may not make it: "
                f"{str(error).strip()}.\nLet an administrator run: CREATE DATABASE {database.database} "
                f"OWNER {database.user};"
            ) from None
    return True


def connect(database: DatabaseURI, name: str) -> psycopg2.extensions.connection:
    """A connection in autocommit mode, made as SQLAlchemy's dialect makes it."""
    import psycopg2

    given: dict[str, Any] = {
        "host": database.host,
        "port": database.port,
        "user": database.user,
        "password": database.password,
    }
    options: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT, "application_name": "headrace"}
    options |= {key: value for key, value in given.items() if value is not None} | database.query
    try:
        connection = psycopg2.connect(**{**options, "dbname": name})
    except psycopg2.ProgrammingError as error:  # an unknown query parameter
        raise _unreachable(database, str(error)) from None
    connection.autocommit = True
    return connection


def _unreachable(database: DatabaseURI, reason: str) -> ConfigurationError:
    shown = database.render()
    return ConfigurationError(
        f"Can't connect to the database {uri.redact(shown)}:\n{uri.redact(reason.strip(), shown)}\n"
        "Look at --backend-store-uri (or USERNAME, PASSWORD, HOST, PORT, DATABASE), and at whether the server is up."
    )
