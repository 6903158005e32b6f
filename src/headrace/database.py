"""The database before the server starts: create it, let stock initialise an empty one, refuse another schema.

Nothing is migrated silently: `headrace db upgrade` does that, with stock's own migrations.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from headrace import database_url, uri
from headrace.database_url import PostgresURL, SqliteURL
from headrace.errors import ConfigurationError, SchemaOutOfDate
from headrace.process import run_once
from headrace.settings import Settings
from headrace.sql.files import read
from headrace.sqlite_wait import SAID_AFTER, TellingConnection, say_that_it_waits
from headrace.stock.passwords import with_each_password
from headrace.versions import installed_version, mlflow_folder

if TYPE_CHECKING:
    import psycopg2.extensions

Log = Callable[[str], None]
Rows = Callable[[str], list[tuple[Any, ...]]]  # of a statement
_MIGRATE = "headrace.stock.migrate"
_LOCK = 0x68656164_72616365  # "headrace": one server at a time looks and initialises
BUSY_SECONDS = 20  # for which another process may hold a SQLite file
_PAUSE = 1.0  # seconds between two looks at a database that is not up, or that another server is at
_SAID_AFTER = 3.0  # seconds of waiting for another server
_REVISION = re.compile(r"^(down_)?revision\s*=\s*(?:[\"'](\w+)[\"']|None)", re.M)
_SQLITE_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
# Those that a statement finds along the search_path, whether the role may read them or not.
_POSTGRES_TABLES = (
    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND pg_table_is_visible(oid) "
    "AND relnamespace = ANY (current_schemas(false)::regnamespace[])"
)
_DEFAULT_EXPERIMENT = "SELECT 1 FROM experiments WHERE experiment_id = 0 OR name = 'Default'"


class Found(NamedTuple):
    """What is in a database: its tables, MLflow's revision, and how to ask it more."""

    tables: set[str]
    revision: str | None
    rows: Rows


class Revisions(NamedTuple):
    """MLflow's schema revisions: all of them, and the newest, which its code works on."""

    known: frozenset[str]
    head: str


def installed_revisions() -> Revisions:
    """Read them from the migrations of the installed MLflow, without importing it."""
    folder = mlflow_folder() / "store" / "db_migrations" / "versions"
    known: set[str] = set()
    replaced: set[str] = set()
    for file in folder.glob("*.py"):
        for down, revision in _REVISION.findall(file.read_text(encoding="utf-8")):
            (replaced if down else known).add(revision)
    (head,) = known - replaced
    return Revisions(frozenset(known), head)


def prepare(settings: Settings, log: Log) -> None:
    """Make the stores of `settings` ready for stock and for the workers.

    Raises ConfigurationError when a store can't be reached or made, SchemaOutOfDate when it is of another MLflow.
    """
    if settings.artifacts_only and not settings.native:
        return
    deadline = time.monotonic() + settings.database_wait
    for store_uri, role in _stores(settings).items():
        database = database_url.parse(store_uri)
        if isinstance(database, PostgresURL | SqliteURL):
            with _opened(database, log, deadline, starting=True) as found:
                if _is_empty(found, database.shown):
                    log(f"making MLflow's tables in {database.shown}")
                elif role == "registry" or found.rows(_DEFAULT_EXPERIMENT):
                    continue
                else:  # as stock at each of its starts; `mlflow db upgrade` on an empty database leaves it out
                    log(f'making the experiment "Default" in {database.shown}')
                _run_stock("initialise", role, store_uri, settings.default_artifact_root)
        elif database is not None:  # MySQL: stock alone can say whether it can use it
            _run_stock("initialise", role, store_uri, settings.default_artifact_root, wait=settings.database_wait)
        else:
            _check_folder(store_uri, "--registry-store-uri" if role == "registry" else "--backend-store-uri")
    if settings.trace_archival_config:
        _check_archival(settings.trace_archival_config)


def _check_archival(file: str) -> None:
    """Raises ConfigurationError for what MLflow can't read, or can't archive to."""
    if run_once(_MIGRATE, {"action": "archival", "file": file}, source="stock"):
        raise ConfigurationError(
            f"--trace-archival-config is {file}, which MLflow can't use; its words are above. See docs/traces.md."
        )


def _check_folder(store_uri: str, option: str) -> None:
    """Raises ConfigurationError for a server, or for a file store that MLflow refuses or that can't be written."""
    scheme = uri.scheme_of(store_uri)
    if scheme in ("http", "https"):
        raise ConfigurationError(
            f"{option} is {uri.redact(store_uri)}, a server, but must be the database that a server works on. Name "
            "that, or set MLFLOW_TRACKING_URI to the server and start none."
        )
    if scheme not in ("", "file") or store_uri == "databricks":
        return
    folder = Path(urlsplit(store_uri).path if store_uri.startswith("file:") else store_uri).absolute()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"The file store {store_uri} can't be used: {there} is no folder that this user may write. Look at "
            f"{option}."
        )
    allow = "MLFLOW_ALLOW_FILE_STORE"  # older MLflows take file stores without it
    known = allow in (mlflow_folder() / "environment_variables.py").read_text(encoding="utf-8")
    if known and os.environ.get(allow, "").lower() not in ("true", "1"):  # as MLflow reads it
        raise ConfigurationError(
            f"{option} is {store_uri}, a folder: a file store, which MLflow refuses. "
            f"Copy it with `headrace copy {store_uri} sqlite:///mlflow.db`, or set {allow}=true."
        )


def upgrade(settings: Settings, log: Log = lambda _: None) -> None:
    """Bring the stores to the schema of the installed MLflow, by stock's own migrations.

    Raises ConfigurationError where that can't be, or where the tables are another application's.
    """
    for store_uri, role in _stores(settings).items():
        database = database_url.parse(store_uri)
        if isinstance(database, SqliteURL) and not Path(database.path).exists():
            raise ConfigurationError(
                f"There is no database {database.path} to upgrade. Look at --backend-store-uri, or at the folder that "
                "you are in; `headrace db create` makes a new one."
            )
        if isinstance(database, PostgresURL | SqliteURL):
            with _opened(database, log) as found:
                _check_owner(found, database.shown, may_be_empty=True)
                _check_not_newer(found.revision, database.shown)
        _run_stock("upgrade", role, store_uri, settings.default_artifact_root)


def check(settings: Settings) -> None:
    """Raises ConfigurationError unless the backend store can be used and MLflow's tables are there.

    For commands that look into a server's database: they make no tables in another application's.
    """
    database = settings.database
    if not isinstance(database, PostgresURL | SqliteURL):
        store = settings.backend_store_uri
        file = f" A SQLite database is named sqlite:///{store}." if Path(store).is_file() else ""
        raise ConfigurationError(
            f"{uri.redact(store)} is no PostgreSQL and no SQLite database, and this command looks into no other store. "
            f"Look at --backend-store-uri.{file}"
        )
    if isinstance(database, SqliteURL) and not Path(database.path).exists():
        raise ConfigurationError(
            f"There is no database {database.path}. Look at --backend-store-uri, or at the folder that you are in; "
            "`headrace serve` and `headrace db create` make a new one."
        )
    with _opened(database, lambda _: None) as found:
        _check_owner(found, database.shown, may_be_empty=False)


def is_made(database: PostgresURL | SqliteURL, writes: bool = True) -> bool:
    """Whether MLflow's tables are there; they are then of the installed MLflow's schema. Nothing is made.

    `writes`: it is to be written to, not only read. Raises ConfigurationError, SchemaOutOfDate.
    """
    if isinstance(database, SqliteURL) and not Path(database.path).exists():
        return False
    with _opened(database, lambda _: None, writes=writes) as found:
        _check_owner(found, database.shown, may_be_empty=True)
        return not _is_empty(found, database.shown)


def _check_owner(found: Found, shown: str, may_be_empty: bool) -> None:
    if "experiments" in found.tables:
        return
    if not found.tables and may_be_empty:
        return
    if not found.tables:
        raise ConfigurationError(
            f"There are no tables of MLflow in {shown}. Look at --backend-store-uri; `headrace serve` and "
            "`headrace db create` make them."
        )
    raise ConfigurationError(
        f"The tables in {shown} are another application's, MLflow's are not among them. Look at --backend-store-uri, "
        "and at the search_path."
    )


def _stores(settings: Settings) -> dict[str, str]:
    """URI -> role of the stores; the registry is usually in the same database."""
    return {settings.registry_store_uri or settings.backend_store_uri: "registry"} | {
        settings.backend_store_uri: "tracking"
    }


def _is_empty(found: Found, shown: str) -> bool:
    """Whether stock has to make its tables; SchemaOutOfDate if they are another MLflow's."""
    tables, revision = found.tables, found.revision
    if revision is None and "experiments" not in tables:
        return True
    if "experiments" not in tables and revision not in installed_revisions().known:
        raise ConfigurationError(
            f"The database {shown} is another application's: its alembic_version is {revision}, which is none of "
            "MLflow's, and alembic keeps one alone. Use another database, or a schema of its own "
            "(?options=-csearch_path=mlflow)."
        )
    _check_not_newer(revision, shown)
    head = installed_revisions().head
    if revision == head:
        return False
    installed = installed_version("mlflow")
    raise SchemaOutOfDate(
        f"The schema of {shown} is of an older MLflow ({revision or 'no revision'}; MLflow {installed} needs {head}). "
        "Make a backup, stop every server that uses this database, and upgrade it with `headrace db upgrade` (with the "
        "same --backend-store-uri or environment as `headrace serve`)."
    )


def _check_not_newer(revision: str | None, shown: str) -> None:
    """Raises SchemaOutOfDate for a schema that the installed MLflow does not know."""
    known, head = installed_revisions()
    if revision is not None and revision not in known:
        installed = installed_version("mlflow")
        raise SchemaOutOfDate(
            f"The schema of {shown} is of a newer MLflow: its revision is {revision}, and MLflow {installed}, which is "
            f"installed here, knows none after {head}. Install the MLflow that made it, or a newer one: "
            "`pip install --upgrade mlflow`.",
            newer=True,
        )


def _run_stock(action: str, role: str, store_uri: str, default_artifact_root: str, wait: float = 0) -> None:
    """`wait`: seconds for a database that is not up yet. Raises ConfigurationError."""
    database = database_url.parse(store_uri)
    aside = _aside(database) if isinstance(database, SqliteURL) else contextlib.nullcontext(store_uri)
    with aside as used:
        configuration = {
            "action": action,
            "role": role,
            "uri": database_url.stock_url(used),
            "default_artifact_root": default_artifact_root,
            "wait": wait,
        }
        if code := run_once(_MIGRATE, configuration, source="stock"):
            raise ConfigurationError(
                f"MLflow could not {action} the database {uri.redact(store_uri)} (exit code {code}); its words are "
                "above."
            )


@contextmanager
def _aside(database: SqliteURL) -> Iterator[str]:
    """The URI of a copy of the file, beside it, which the file becomes at the end, in one transaction.

    MLflow's migrations have no transaction on SQLite: what is broken off in the midst of one can neither go on nor be
    used. Raises ConfigurationError where there is no room for the copy, or somebody else has written meanwhile.
    """
    copy = f"{database.path}.making"
    _remove(copy)  # of one that was killed
    with contextlib.ExitStack() as last:
        last.callback(_remove, copy)
        try:
            file = last.enter_context(contextlib.closing(TellingConnection(database.path, database.path, BUSY_SECONDS)))
            with contextlib.closing(sqlite3.connect(copy)) as made:
                file.backup(made, progress=_patience(database))
            before = _state(file)
            url, mark, query = database.url.partition("?")
            yield f"{url}.making{mark}{query}"
            with contextlib.closing(sqlite3.connect(copy)) as made:
                if _state(file) != before:
                    raise ConfigurationError(
                        f"Somebody else has written to {database.shown} meanwhile, and it is as they left it. Stop "
                        "every server that uses it, and start the same command again."
                    )
                made.backup(file, progress=_patience(database))
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"The database {database.shown} stays as it was: {error}. Its tables are made in a copy beside it, "
                f"{copy}. Look at the room on that disk, and at other processes that use the database."
            ) from None


def _state(file: sqlite3.Connection) -> Any:
    """Another one where another connection has written meanwhile."""
    return file.execute("PRAGMA data_version").fetchone()


def _patience(database: SqliteURL) -> Callable[[int, int, int], None]:
    """Ends a copy into a file that others hold: sqlite3 would wait without an end."""
    since = time.monotonic()
    said = False

    def look(status: int, _remaining: int, _total: int) -> None:
        nonlocal said
        if status not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return
        waited = time.monotonic() - since
        if waited > SAID_AFTER and not said:
            say_that_it_waits(database.path)
            said = True
        if waited > BUSY_SECONDS:
            raise ConfigurationError(
                f"The database {database.shown} stays as it was: somebody else uses it. Stop every server that does, "
                "and start the same command again."
            )

    return look


def _remove(file: str) -> None:
    """It, and what SQLite has beside it."""
    for end in ("", "-journal", "-wal", "-shm"):
        Path(f"{file}{end}").unlink(missing_ok=True)


@contextmanager
def _opened(
    database: PostgresURL | SqliteURL, log: Log, deadline: float = 0, starting: bool = False, writes: bool = True
) -> Iterator[Found]:
    """What is in the database.

    Until `deadline` (time.monotonic) it waits for a database that is not up. `starting`: it is made where it is
    missing, and other servers that start are kept waiting.
    """
    if isinstance(database, SqliteURL):
        with _sqlite(database, writes) as found:
            yield found
    else:
        with _postgresql(database, log, deadline, starting) as found:
            yield found


@contextmanager
def _sqlite(database: SqliteURL, writes: bool) -> Iterator[Found]:
    with contextlib.ExitStack() as opened:
        try:
            connection = opened.enter_context(contextlib.closing(_open_sqlite(Path(database.path), writes)))
            found = _found(_SQLITE_TABLES, lambda statement: [*connection.execute(statement)])
        except (OSError, sqlite3.Error) as error:
            said = str(error)
            of_the_disk = "disk I/O" in said or "is full" in said  # SQLite says the first of a full one, too
            look_at = "the room on its disk, and at the disk" if of_the_disk else "--backend-store-uri"
            raise ConfigurationError(
                f"The database {database.shown} can't be opened: {error}. Look at {look_at}."
            ) from None
        yield found


def _open_sqlite(path: Path, writes: bool) -> sqlite3.Connection:
    if path.is_dir():
        raise IsADirectoryError("it is a folder")  # of which SQLite says "disk I/O error"
    path.parent.mkdir(parents=True, exist_ok=True)
    if writes and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError("this user may not write it")
    file = path if writes else f"file:{quote(str(path.absolute()))}?mode=ro"
    return TellingConnection(str(file), str(path), BUSY_SECONDS, uri=not writes)


def _found(tables: str, rows: Rows) -> Found:
    """`tables`: the statement that names them."""
    names = {name for (name,) in rows(tables)}
    revisions = rows("SELECT version_num FROM alembic_version") if "alembic_version" in names else []
    return Found(names, revisions[0][0] if revisions else None, rows)


@contextmanager
def _postgresql(database: PostgresURL, log: Log, deadline: float, starting: bool) -> Iterator[Found]:
    import psycopg2

    connection = _connect(database, log, deadline, create=starting)
    with contextlib.closing(connection), connection.cursor() as cursor:
        # The lock ends with its transaction: one of a session would stay with a pooler's connection. A pooler without
        # transactions is found out by it, before a command begins its work.
        connection.autocommit = False

        def rows(statement: str) -> list[tuple[Any, ...]]:
            try:
                cursor.execute(statement)
            except psycopg2.Error as error:
                raise _explained(database, error) from None
            return list(cursor)

        if starting:
            _wait_for_lock(rows, database, log)
        found = _found(_POSTGRES_TABLES, rows)
        if starting and "experiments" not in found.tables:
            _check_may_create(rows, database)
        yield found


def _check_may_create(rows: Rows, database: PostgresURL) -> None:
    [(schema, may)] = rows("SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE')")
    if schema is None:
        raise ConfigurationError(
            f"No schema of the search_path of {database.shown} exists, and MLflow's tables need one. Make it "
            "(CREATE SCHEMA), or look at options=-csearch_path=NAME and at the role's search_path."
        )
    if not may:
        raise ConfigurationError(
            f"There are no tables of MLflow in {database.shown}, and the role {database.user} may not make them in the "
            f"schema {schema}. Run `headrace db create` as a role that may, or let an administrator run: GRANT CREATE "
            f"ON SCHEMA {schema} TO {database.user};"
        )


def _wait_for_lock(rows: Rows, database: PostgresURL, log: Log) -> None:
    since = time.monotonic()
    said = False
    while True:
        [(got,)] = rows(f"SELECT pg_try_advisory_xact_lock({_LOCK})")
        if got:
            return
        if not said and time.monotonic() - since > _SAID_AFTER:
            log(f"waiting for another server, which makes or looks at the tables of {database.shown}")
            said = True
        time.sleep(0.1)


def _connect(database: PostgresURL, log: Log, deadline: float, create: bool) -> psycopg2.extensions.connection:
    """A connection to the database, which is made first if `create`, and it does not exist, and the role may.

    Raises ConfigurationError.
    """
    import psycopg2

    waiting = False
    in_our_way = None
    while True:
        try:
            return connect(database)
        except psycopg2.OperationalError as error:
            reason = error
        # libpq gives no code for a failed connection, and its text is in the server's language: ask with asyncpg.
        failure = _failure(database)
        if failure is None:
            if in_our_way is not None:
                raise ConfigurationError(f"The database {database.shown} can't be used: {_one_line(reason)}.")
            in_our_way = reason  # or it has come up between the two: once more
            continue
        in_our_way = None
        if failure.missing and create:
            if _create(database):
                log(f"made the database {database.name} on {database.hosts[0].name}")
            deadline = max(deadline, time.monotonic() + _PAUSE)
            waiting = True
        elif not failure.temporary or time.monotonic() >= deadline:
            raise failure.meaning
        if not waiting:
            log(f"{failure.meaning} Waiting for it, {deadline - time.monotonic():.0f} s at most.")
            waiting = True
        time.sleep(min(_PAUSE, max(0.0, deadline - time.monotonic())))


class _Failure(NamedTuple):
    """Why there is no connection. `missing`: the server is there, the database is not."""

    meaning: ConfigurationError
    temporary: bool
    missing: bool


def _failure(database: PostgresURL) -> _Failure | None:
    """None where there is nothing in the way."""
    import asyncio

    return asyncio.run(_asked(database))


async def _asked(database: PostgresURL) -> _Failure | None:
    import asyncpg

    from headrace.db import connections
    from headrace.db.connection_errors import FAILURES, explain, is_temporary

    try:
        connection = await connections.connect(database)
    except FAILURES as error:
        # PgBouncer says it in its own way
        missing = isinstance(error, asyncpg.InvalidCatalogNameError) or "no such database" in str(error)
        return _Failure(explain(error, database), is_temporary(error), missing)
    await connections.close(connection)
    return None


def _create(database: PostgresURL) -> bool:
    """CREATE DATABASE, as the seed of this project did by hand; False if another server was quicker."""
    import psycopg2
    from psycopg2 import errors

    try:
        connection = connect(database, "postgres")
    except psycopg2.OperationalError as error:
        raise ConfigurationError(
            f"The database {database.shown} does not exist, and it can't be made from the database postgres: "
            f"{_one_line(error)}. Let an administrator make it."
        ) from None
    with contextlib.closing(connection), connection.cursor() as cursor:
        try:
            cursor.execute(read("create_database", database=database.name))
        except (errors.DuplicateDatabase, errors.UniqueViolation):
            return False
        except psycopg2.Error as error:
            raise ConfigurationError(
                f"The database {database.name} does not exist, and the role {database.user} may not make it: "
                f"{_one_line(error)}. Let an administrator run: CREATE DATABASE {database.name} OWNER {database.user};"
            ) from None
    return True


def connect(database: PostgresURL, name: str | None = None) -> psycopg2.extensions.connection:
    """A connection in autocommit mode, made as stock's driver makes it; to another database if one is named."""
    import psycopg2

    given = {"fallback_application_name": "headrace"} | database.for_libpq() | {"dbname": name or database.name}
    connection: psycopg2.extensions.connection = with_each_password(psycopg2.connect, given)
    connection.autocommit = True
    return connection


def _explained(database: PostgresURL, error: psycopg2.Error) -> ConfigurationError:
    from headrace.db.connection_errors import NO_TRANSACTIONS

    if error.pgcode is None:  # that it ended is not said by the server
        return ConfigurationError(
            f"The connection to the database {database.shown} ended: {_one_line(error)}. Try again. If there is a "
            f"pooler in between: {NO_TRANSACTIONS}"
        )
    return ConfigurationError(
        f"The database {database.shown} can't be used by the role {database.user}: {_one_line(error)}. Let the owner "
        "of MLflow's tables grant what is missing, or use the owner's role."
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
