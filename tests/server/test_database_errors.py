"""What is wrong with a database x the command that meets it: one clear line and an exit code, never a traceback."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.cli.commands import cli
from headrace.errors import ConfigurationError
from tests.server.conftest import Serve, run_headrace
from tests.support import fork_server
from tests.support.databases import Database, Databases
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.postgres import LOCKED, Postgres
from tests.support.processes import Process, free_port, wait_until
from tests.support.servers import SCRIPTS

COMMANDS = {
    "serve": ("serve", "--port", "0", "--database-wait", "0"),
    "user": ("user", "list"),
    "token": ("token", "list"),
    "audit": ("audit",),
    "db upgrade": ("db", "upgrade"),
    "db indexes": ("db", "indexes", "list"),
}


class Situation:
    """`backend`: the URI. `says`: what each command says, or those that are named; the others do their work."""

    def __init__(self, backend: str, says: str, only: tuple[str, ...] = tuple(COMMANDS), **environment: str) -> None:
        self.backend, self.says, self.only, self.environment = backend, says, only, environment


@pytest.fixture(scope="module")
def pooler(postgres: Postgres) -> Iterator[PgBouncer | None]:
    """Asks for a password: PostgreSQL itself lets everybody in here."""
    if PROGRAM is None:
        yield None
        return
    pooler = PgBouncer(postgres, "session", password="right")
    pooler.start()
    yield pooler
    pooler.remove()


@pytest.fixture(scope="module")
def without_transactions(postgres: Postgres) -> Iterator[PgBouncer | None]:
    if PROGRAM is None:
        yield None
        return
    pooler = PgBouncer(postgres, "statement")
    pooler.start()
    yield pooler
    pooler.remove()


@pytest.fixture(scope="module")
def situations(
    postgres: Postgres, databases: Databases, pooler: PgBouncer | None, without_transactions: PgBouncer | None
) -> dict[str, Situation]:
    foreign, migrated = databases.empty("postgresql"), databases.migrated("postgresql")
    schemaless = databases.empty("postgresql")
    foreign.execute("CREATE TABLE orders (id int)")
    foreign.execute("CREATE TABLE alembic_version (version_num text)")
    foreign.execute("INSERT INTO alembic_version VALUES ('0123456789ab')")
    postgres.execute("CREATE ROLE nobody LOGIN")
    postgres.execute("CREATE ROLE newcomer LOGIN")
    postgres.execute(f"CREATE ROLE {LOCKED} LOGIN PASSWORD 'right'")
    at = f"127.0.0.1:{postgres.port}"
    found = {
        "database away": Situation(
            f"postgresql://me:h1dden@127.0.0.1:{free_port()}/mlflow",
            "can't be used: Connection refused. Look at the host",
        ),
        "unknown host": Situation("postgresql://me:h1dden@no.such.host.invalid/mlflow", "the host's name is unknown"),
        "wrong password": Situation(
            f"postgresql://{LOCKED}:h1dden@{at}/{migrated.name}", "it refuses the password of the role locked"
        ),
        "no such role": Situation(
            f"postgresql://gone:h1dden@{at}/{migrated.name}", 'does not let the role gone in: role "gone"'
        ),
        "role without rights": Situation(
            f"postgresql://nobody:h1dden@{at}/{migrated.name}",
            "can't be used by the role nobody: permission denied for table",
        ),
        "no such database": Situation(f"postgresql://newcomer:h1dden@{at}/gone", r"does(n't| not) exist"),
        "foreign application": Situation(foreign.uri, "another application's"),
        "empty database": Situation(
            databases.empty("postgresql").uri, "no tables of MLflow", ("user", "token", "audit", "db indexes")
        ),
        "no schema": Situation(
            f"{schemaless.uri}?options=-csearch_path%3Dgone", "No schema of the search_path", ("serve",)
        ),
        "role that may not create": Situation(
            f"postgresql://newcomer:h1dden@{at}/{schemaless.name}",
            "the role newcomer may not make them in the schema",
            ("serve",),
        ),
        "no driver": Situation("mysql://me:h1dden@h/d", "needs the Python module MySQLdb, which is not installed"),
        "no store": Situation("foo://x", "is no store that MLflow knows"),
        "a new line": Situation("sqlite:///a.db\n", "has a blank or a new line"),
        "quotes": Situation('"sqlite:///a.db"', "has quotes around it"),
        "a parameter": Situation(f"postgresql://me:h1dden@{at}/d?require_auth=none", "has require_auth=none, but"),
        "a typing error": Situation(f"postgresql://me:h1dden@{at}/d?ssl_mode=require", "Write sslmode"),
        "no service": Situation("postgresql://?service=gone", "There is no service gone"),
        "a variable": Situation(f"postgresql://me:h1dden@{at}/d", "PGSSLMODE has sslmode=yes, but", PGSSLMODE="yes"),
        "no certificate": Situation(
            f"postgresql://me:h1dden@{at}/d?sslmode=verify-full", "needs the certificate of who"
        ),
    }
    if pooler is not None:
        wrong = pooler.uri(migrated.name).replace("postgres@", "postgres:h1dden@")
        found["wrong password at a pooler"] = Situation(wrong, "it refuses the password of the role postgres")
    if without_transactions is not None:
        through = without_transactions.uri(migrated.name)
        found["a pooler without transactions"] = Situation(through, "pool_mode = statement allows no transactions")
    return found


NAMES = (
    "database away", "unknown host", "wrong password", "wrong password at a pooler", "no such role",
    "a pooler without transactions",
    "role without rights", "role that may not create", "no such database", "foreign application", "empty database",
    "no schema", "no driver", "no store", "a new line", "quotes", "a parameter", "a typing error", "no service",
    "a variable", "no certificate",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_is_said_in_one_line(
    name: str, situations: dict[str, Situation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in situations:
        pytest.skip("PgBouncer is not installed")
    situation = situations[name]
    environment = {"MLFLOW_BACKEND_STORE_URI": situation.backend, "HOME": str(tmp_path)} | situation.environment
    environment |= fork_server.environment()
    serving = Process([SCRIPTS / "headrace", *COMMANDS["serve"]], tmp_path / "serve", env=environment, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    for command in situation.only:
        if command == "serve":
            code, said = serving.wait(120), serving.tail().rstrip()
            assert code == 2, said
        else:
            done = CliRunner().invoke(cli, COMMANDS[command])
            assert isinstance(done.exception, ConfigurationError), (command, done.exception, done.output)
            said = str(done.exception)
        assert "\n" not in said, (command, said)
        assert re.search(situation.says, said), (command, said)
        assert "h1dden" not in said, (command, said)
    serving.stop()
    assert not list(tmp_path.glob("*.db*"))


def test_a_session_and_a_role_that_may_only_read(databases: Databases, postgres: Postgres, tmp_path: Path) -> None:
    """Neither is "away", nor does a start of the server help."""
    database, source = databases.migrated("postgresql"), databases.migrated("sqlite")
    database.execute("CREATE ROLE looker LOGIN")
    database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
    looker = database.uri.replace("postgres@", "looker@")
    reading = f"{database.uri}?options=-cdefault_transaction_read_only%3Don"
    for backend, command, says in (
        (reading, ("user", "list"), "PostgreSQL takes no writes here at the moment"),
        (reading, ("db", "indexes", "drop"), "in a read-only transaction. Look at default_transaction_read_only"),
        (reading, ("copy", source.uri, reading, "--without-artifacts"), "in a read-only transaction. Start the same"),
        (looker, ("user", "list"), "This role can't make or use Headrace's own tables: "),
        (f"{database.uri}?options=-cnone%3D1", ("usage",), 'parameter "none". Look at `options` in the URL'),
    ):
        done = run_headrace(*command, cwd=tmp_path, env={"MLFLOW_BACKEND_STORE_URI": backend})
        assert done.returncode != 0, command
        (line,) = done.stderr.splitlines()
        assert says in line, command


def test_nothing_was_made_in_the_foreign_database(situations: dict[str, Situation], postgres: Postgres) -> None:
    database = Database("postgresql", "", situations["foreign application"].backend)
    tables = database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    assert [row["tablename"] for row in tables] == ["alembic_version", "orders"]


@pytest.fixture
def late_postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


def test_a_database_that_is_not_up_yet(late_postgres: Postgres, serve: Serve, tmp_path: Path) -> None:
    """As when compose starts both together: the start waits, says so, and goes on."""
    port = free_port()
    backend = f"postgresql://postgres@127.0.0.1:{late_postgres.port}/mlflow"
    command: list[str | Path] = [SCRIPTS / "headrace", "serve", "--port", str(port), "--backend-store-uri", backend]
    process = Process([*command, "--stock", "lazy"], tmp_path / "log", env=fork_server.environment(), cwd=tmp_path)
    try:
        wait_until(lambda: "Connection refused" in process.tail(), "the wait is said")
        # of the 60, what a busy machine took to be told that nobody is there is gone
        assert re.search(r"Waiting for it, (60|5\d) s at most\.", process.tail())
        late_postgres.start()
        wait_until(lambda: "MLflow is on" in process.tail(), "it starts")
        assert process.tail().count("Waiting for it") == 1
    finally:
        process.stop()
    late_postgres.stop()
    since = time.monotonic()
    done = run_headrace("serve", "--database-wait", "2", "--backend-store-uri", backend, "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert 2 <= time.monotonic() - since < 60, "the default"
