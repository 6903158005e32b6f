"""What `headrace serve` and `headrace db` do to a database that is missing, empty, old, new or out of reach."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from headrace.database import _aside, installed_revisions
from headrace.database_url import SqliteURL
from headrace.errors import ConfigurationError
from tests.server.conftest import Serve, run_headrace
from tests.support import fork_server
from tests.support.databases import (
    BACKENDS,
    OLD_REVISION,
    Backend,
    Database,
    Databases,
    initialise,
    made_by_an_older_mlflow,
)
from tests.support.postgres import Postgres
from tests.support.processes import Process, free_port
from tests.support.servers import SCRIPTS


def contents(database: Database) -> tuple[object, ...]:
    """The schema's revision and what stock puts into a new database."""
    experiments = database.query("SELECT name, artifact_location, lifecycle_stage FROM experiments")
    return database.query("SELECT version_num FROM alembic_version"), experiments


def test_without_options_everything_is_below_headrace_data(serve: Serve, tmp_path: Path) -> None:
    server = serve("--stock", "lazy", "--stock-wait", "60")
    assert (tmp_path / "headrace-data" / "mlflow.db").exists()
    answer = server.get("/api/2.0/mlflow/experiments/get?experiment_id=0").json()
    assert answer["experiment"]["name"] == "Default"
    assert answer["experiment"]["artifact_location"] == "mlflow-artifacts:/0"
    assert not (tmp_path / "mlruns").exists()
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_database_becomes_what_stock_makes_of_it(
    databases: Databases, backend: Backend, tmp_path: Path
) -> None:
    ours, theirs = databases.empty(backend), databases.empty(backend)
    initialise(theirs)
    done = run_headrace("db", "create", "--backend-store-uri", ours.uri, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(ours) == contents(theirs)


def test_a_missing_database_is_created(postgres: Postgres, tmp_path: Path) -> None:
    # the names of the container, as the project's first document has them; here with a name that needs quoting
    database = Database("postgresql", "", postgres.uri("ml%20%22flow%22"))
    env = {"HOST": "127.0.0.1", "PORT": str(postgres.port), "USERNAME": "postgres", "PASSWORD": "any"}
    env |= {"DATABASE": 'ml "flow"', "BUCKET": "s3://bucket/"}
    done = run_headrace("db", "create", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert 'made the database ml "flow" on 127.0.0.1' in done.stdout
    assert contents(database)[1] == [
        {"name": "Default", "artifact_location": "mlflow-artifacts:/0", "lifecycle_stage": "active"}
    ]
    again = run_headrace("db", "create", cwd=tmp_path, env=env)
    assert (again.returncode, "made the database" in again.stdout) == (0, False)


def test_a_missing_database_that_the_role_may_not_create(postgres: Postgres, tmp_path: Path) -> None:
    postgres.execute("CREATE ROLE modest LOGIN")
    backend = f"postgresql://modest@127.0.0.1:{postgres.port}/nowhere"
    done = run_headrace("serve", "--port", str(free_port()), "--backend-store-uri", backend, cwd=tmp_path)
    assert done.returncode == 2
    assert "The database nowhere does not exist, and the role modest may not make it" in done.stderr
    assert "CREATE DATABASE nowhere OWNER modest;" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_servers_that_start_at_once(databases: Databases, tmp_path: Path) -> None:
    database = databases.empty("postgresql")
    create = ["db", "create", "--backend-store-uri", database.uri]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run_headrace(*create, cwd=tmp_path), range(2)))
    assert [done.returncode for done in both] == [0, 0], [done.stderr for done in both]
    assert sum("making MLflow's tables" in done.stdout for done in both) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_tables_without_an_experiment_get_the_default_one(
    databases: Databases, backend: Backend, tmp_path: Path
) -> None:
    """As `mlflow db upgrade` leaves an empty database: stock makes it at its start, which may never come."""
    ours, theirs = databases.migrated(backend), databases.migrated(backend)
    ours.execute("DELETE FROM experiments")
    done = run_headrace("db", "create", "--backend-store-uri", ours.uri, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'making the experiment "Default"' in done.stdout
    assert contents(ours) == contents(theirs)
    # One of that name with another id is left alone: stock's server would not start.
    ours.execute("UPDATE experiments SET experiment_id = 7")
    done = run_headrace("db", "create", "--backend-store-uri", ours.uri, cwd=tmp_path)
    assert (done.returncode, "Default" in done.stdout) == (0, False), done.stderr
    assert ours.query("SELECT experiment_id FROM experiments") == [{"experiment_id": 7}]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_older_schema_is_refused_and_upgraded_on_demand(
    databases: Databases, backend: Backend, tmp_path: Path
) -> None:
    database = databases.empty(backend)
    made_by_an_older_mlflow(database)
    database.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'mine', 'active')")
    options = ["--backend-store-uri", database.uri]
    refused = run_headrace("serve", "--port", str(free_port()), *options, cwd=tmp_path)
    assert refused.returncode == 3
    assert f"is of an older MLflow ({OLD_REVISION};" in refused.stderr
    assert "`headrace db upgrade`" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    looked = run_headrace("usage", *options, cwd=tmp_path)
    assert looked.returncode == 1
    (line,) = looked.stderr.splitlines()
    assert line.startswith("headrace: The database has not got what this command asks for (the schema has changed: ")
    assert line.endswith("An older one becomes the installed MLflow's by `headrace db upgrade`.")
    assert database.query("SELECT version_num FROM alembic_version") == [{"version_num": OLD_REVISION}]
    upgraded = run_headrace("db", "upgrade", *options, cwd=tmp_path)
    assert upgraded.returncode == 0, upgraded.stderr
    head = installed_revisions().head
    assert database.query("SELECT version_num FROM alembic_version") == [{"version_num": head}]
    assert database.query("SELECT name FROM experiments WHERE experiment_id = 7") == [{"name": "mine"}]


def test_an_upgrade_of_sqlite_that_is_broken_off_has_changed_nothing(databases: Databases, tmp_path: Path) -> None:
    database = databases.empty("sqlite")
    made_by_an_older_mlflow(database)
    before = Path(database.name).read_bytes()
    copy = Database("sqlite", f"{database.name}.making", f"{database.uri}.making")
    command: list[str | Path] = [SCRIPTS / "headrace", "db", "upgrade", database.uri]

    def is_under_way() -> bool:
        if not Path(copy.name).exists():
            return False
        with contextlib.suppress(OperationalError):
            return copy.query("SELECT version_num FROM alembic_version") != [{"version_num": OLD_REVISION}]
        return False

    for how, left in ((signal.SIGKILL, True), (signal.SIGINT, False)):  # the second finds what the first has left
        process = Process(command, tmp_path / how.name, env=fork_server.environment(), cwd=tmp_path)
        try:
            process.wait_until(is_under_way, "some of MLflow's migrations are done")
            process.send_signal(how)
            process.wait()
        finally:
            process.stop()
        assert Path(database.name).read_bytes() == before
        assert Path(copy.name).exists() is left
        if left:
            copy.execute("UPDATE alembic_version SET version_num = :old", old=OLD_REVISION)


def test_an_upgrade_of_sqlite_does_not_overwrite_what_others_write_meanwhile(
    databases: Databases, tmp_path: Path
) -> None:
    database = databases.empty("sqlite")
    with (
        pytest.raises(ConfigurationError, match="Somebody else has written to"),
        _aside(SqliteURL(url=database.uri, path=database.name)) as used,
    ):
        assert used == f"{database.uri}.making"
        database.execute("CREATE TABLE written (n INTEGER)")
    assert database.query("SELECT * FROM written") == []
    assert [file.name for file in Path(database.name).parent.glob("*.making*")] == []


def test_what_is_not_there_is_not_upgraded(tmp_path: Path) -> None:
    done = run_headrace("db", "upgrade", "--backend-store-uri", "sqlite:///typo.db", cwd=tmp_path)
    assert done.returncode == 2
    assert "There is no database" in done.stderr
    assert "typo.db to upgrade" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_newer_schema_is_refused(databases: Databases, tmp_path: Path) -> None:
    database = databases.migrated("sqlite")
    database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    for command in (("serve", "--port", str(free_port())), ("db", "upgrade"), ("db", "create")):
        done = run_headrace(*command, "--backend-store-uri", database.uri, cwd=tmp_path)
        assert done.returncode == 3, command
        (line,) = done.stderr.splitlines()
        assert "is of a newer MLflow: its revision is ffffffffffff" in line


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    backend = f"postgresql://me:h1dden@127.0.0.1:{free_port()}/mlflow"
    options = ["--port", str(free_port()), "--database-wait", "0", "--backend-store-uri", backend]
    done = run_headrace("serve", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert "The database postgresql://me@127.0.0.1" in done.stderr
    assert "can't be used: Connection refused. Look at" in done.stderr
    assert "h1dden" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    options = ["--port", str(free_port()), "--backend-store-uri", "sqlite:///mlflow.db"]
    done = run_headrace("serve", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert "sqlite:///mlflow.db can't be opened: file is not a database" in done.stderr


@pytest.mark.parametrize(
    ("backend", "text"),
    [
        ("./a-file/mlruns", "a-file is no folder that this user may write"),
        ("file:///dev/null/mlruns", "/dev/null is no folder"),
        ("./mlruns", "is ./mlruns, a folder: a file store, which MLflow refuses. Copy it with"),
        ("http://127.0.0.1:5000", "is http://127.0.0.1:5000, a server, but must be the database"),
        ("postgresql:h/d", "postgresql:h/d is no store that MLflow knows"),
        ("sqlite+aiosqlite:///a.db", "No module named 'aiosqlite'"),
        ("sqlite:///file:not/there.db?mode=ro&uri=true", "unable to open database file"),  # stock's alone, as MySQL is
    ],
)
def test_a_store_that_cannot_work_gets_no_banner(tmp_path: Path, backend: str, text: str) -> None:
    (tmp_path / "a-file").touch()
    options = ["--port", str(free_port()), "--database-wait", "0", "--backend-store-uri", backend]
    done = run_headrace("serve", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr
    assert "MLflow is on" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_registry_that_cannot_work_is_named_by_its_option(tmp_path: Path) -> None:
    registry = ["--registry-store-uri", "http://127.0.0.1:5000"]
    done = run_headrace("serve", "--port", "0", "--backend-store-uri", "sqlite:///a.db", *registry, cwd=tmp_path)
    assert done.returncode == 2
    assert "headrace: --registry-store-uri is http://127.0.0.1:5000, a server, but must" in done.stderr


def test_the_newest_revision_is_what_mlflow_says() -> None:
    script = "from mlflow.store.db.utils import _get_latest_schema_revision as latest; print(latest())"
    done = subprocess.run(
        [sys.executable, "-c", script], env=fork_server.client_environment(), capture_output=True, text=True, check=True
    )
    assert installed_revisions().head == done.stdout.split()[-1]
    assert OLD_REVISION in installed_revisions().known
