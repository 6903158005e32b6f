"""`headrace db create --server-role`: the server works with that role, and the role may do no more."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import boto3
import mlflow
import psycopg2
import pytest
import sqlalchemy
from psycopg2 import errors

from headrace.auth.accounts import opened_accounts
from headrace.auth.audit_table import AuditTable, Entry
from headrace.auth.identities import Identities
from headrace.auth.single_sign_on import SingleSignOn
from headrace.clock import now_ms
from headrace.errors import ConfigurationError
from headrace.server_role import join_owners
from headrace.settings import Settings
from headrace.sql.files import read
from tests.server.conftest import Serve, run_headrace
from tests.support import fork_server
from tests.support.databases import Database
from tests.support.postgres import Postgres
from tests.support.processes import clean_environment
from tests.support.servers import PASSED_THROUGH, SCRIPTS, Server

ROLE = "mlflow server"  # to be quoted wherever it is used


def create(database_uri: str, folder: Path, password: str, role: str = ROLE) -> subprocess.CompletedProcess[str]:
    """As the master user, the role's password through standard input."""
    command = [str(SCRIPTS / "headrace"), "db", "create", database_uri, "--server-role", role, "--password-stdin"]
    env = clean_environment() | fork_server.environment()
    return subprocess.run(command, input=password, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def as_role(database: Database) -> str:
    """The cluster trusts every local connection; the password is checked by the rehearsal."""
    url = sqlalchemy.make_url(database.uri).set(username=ROLE, drivername="postgresql")
    return url.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def database(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Made by `db create`, as a master user like that of RDS, who is no superuser."""
    postgres.execute("CREATE ROLE master LOGIN CREATEDB CREATEROLE")
    uri = postgres.uri("role_test").replace("postgres@", "master@")
    done = create(uri, tmp_path_factory.mktemp("role"), "first password")
    assert done.returncode == 0, done.stderr
    assert "made the database role_test" in done.stdout
    assert "first password" not in done.stdout + done.stderr
    return Database("postgresql", "role_test", uri)


@pytest.fixture
def as_superuser(postgres: Postgres, database: Database) -> Database:
    return Database("postgresql", database.name, postgres.uri(database.name))


def test_the_server_works_with_it(serve: Serve, database: Database, tmp_path: Path) -> None:
    server = serve("--backend-store-uri", as_role(database), until=PASSED_THROUGH)
    client = mlflow.MlflowClient(server.url)
    experiment = client.create_experiment("by the role")
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "loss", 0.5)
    client.log_text(run.info.run_id, "text", "a.txt")
    client.create_registered_model("by stock")
    client.delete_run(run.info.run_id)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    assert "permission denied" not in server.log
    assert "must be owner" not in server.log


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE runs",
        "ALTER TABLE runs ADD COLUMN x int",
        "TRUNCATE metrics",
        "UPDATE alembic_version SET version_num = 'x'",
        "CREATE DATABASE other",
        "CREATE ROLE other",
        "COPY runs TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "SET ROLE postgres",
        "ALTER ROLE postgres PASSWORD 'x'",
        "CREATE SCHEMA other",
    ],
)
def test_what_it_may_not(database: Database, sql: str) -> None:
    connection = psycopg2.connect(as_role(database))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor, pytest.raises(errors.InsufficientPrivilege):
            cursor.execute(sql)
    finally:
        connection.close()


def test_tables_of_later_migrations_are_the_roles_too(database: Database) -> None:
    database.execute("CREATE TABLE later (id serial PRIMARY KEY)")
    connection = psycopg2.connect(as_role(database))
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO later DEFAULT VALUES RETURNING id")
        assert cursor.fetchone() == (1,)
    connection.close()


async def test_headraces_own_tables(database: Database) -> None:
    """The audit log only grows, whatever the server's own role tries; a provider's users are found again."""
    entry = Entry(
        now_ms(), "ada", "token laptop", "10.0.0.1", "POST", "/api/2.0/mlflow/runs/delete", 200, {"run_id": "r"}
    )
    claims = {"iss": "https://id.example.org", "sub": "1", "email": "ada@example.org", "groups": ["team"]}
    async with opened_accounts(Settings(backend_store_uri=as_role(database))) as accounts:
        await accounts.set_up()
        table, identities = AuditTable(accounts.store), Identities(accounts)
        assert not await table.exists()
        for _ in range(2):
            await table.set_up()
            await identities.set_up()
        await table.add([entry] * 2)
        assert await table.exists()
        assert await table.entries(0, "ada", 10) == [entry] * 2
        sign_on = SingleSignOn(accounts, "email", "groups", {"team": "editor", "admins": "admin"})
        made = await asyncio.gather(*(sign_on.user(claims) for _ in range(4)))
        assert {(user.name, user.role) for user in made} == {("ada@example.org", "editor")}
        promoted = await sign_on.user(claims | {"email": "other@example.org", "groups": ["admins"]})
        assert (promoted.name, promoted.role) == ("ada@example.org", "admin")
        for _ in range(2):
            await accounts.add_failure("key", 1000, 500)
        assert list(await accounts.failures(["key", "other"])) == [("key", 2, 1000)]
        await accounts.add_failure("key", 9000, 8000)
        assert list(await accounts.failures(["key"])) == [("key", 1, 9000)]
    for sql in ("UPDATE headrace_audit SET user_name = 'eve'", "DELETE FROM headrace_audit", "TRUNCATE headrace_audit"):
        connection = psycopg2.connect(as_role(database))
        with connection, connection.cursor() as cursor, pytest.raises(errors.RaiseException, match="append-only"):
            cursor.execute(sql)
        connection.close()
    assert database.query("SELECT user_name FROM headrace_audit") == [{"user_name": "ada"}] * 2


def test_again_with_a_new_password(database: Database, as_superuser: Database, tmp_path: Path) -> None:
    verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = :role"
    (before,) = as_superuser.query(verifier, role=ROLE)
    assert before["rolpassword"].startswith("SCRAM-SHA-256$")
    assert create(database.uri, tmp_path, "second password").returncode == 0
    (after,) = as_superuser.query(verifier, role=ROLE)
    assert after != before


def test_the_password_goes_to_ssm_and_nowhere_else(database: Database, s3: Server, tmp_path: Path) -> None:
    environment = {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    arguments = ["db", "create", database.uri, "--server-role", ROLE, "--ssm-prefix", "/role-test"]
    done = run_headrace(*arguments, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("ssm", endpoint_url=s3.url, **keys)
    user = client.get_parameter(Name="/role-test/DB_USER")["Parameter"]
    password = client.get_parameter(Name="/role-test/DB_PASS", WithDecryption=True)["Parameter"]
    assert (user["Value"], password["Type"]) == (ROLE, "SecureString")
    assert len(password["Value"]) >= 32
    assert password["Value"] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("postgresql://postgres@h/d", "--server-role", "r"), "either --ssm-prefix or --password-stdin"),
        (("sqlite:///a.db", "--server-role", "r", "--password-stdin"), "is for PostgreSQL"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], text: str, tmp_path: Path) -> None:
    done = run_headrace("db", "create", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr


def test_a_user_who_may_not_make_roles(database: Database, tmp_path: Path) -> None:
    done = create(as_role(database), tmp_path, "x", role="another")
    assert done.returncode == 2
    assert "Run this as the database's master user" in done.stderr


def test_psql_runs_the_same_files(postgres: Postgres) -> None:
    """The files' variables are psql's: what we make of them is what psql makes."""
    connection = psycopg2.connect(postgres.uri("postgres").replace("+psycopg2", ""))
    assert read("create_role", role='a "b"').as_string(connection).strip() == 'CREATE ROLE "a ""b""";'
    connection.close()
    with pytest.raises(KeyError):
        read("create_role")


def test_the_roles_whose_tables_they_are_are_joined_and_keep_their_rights(postgres: Postgres) -> None:
    """As for `headrace aws up --existing-database`: who has made a role may become a member of it."""
    postgres.execute("CREATE ROLE maker LOGIN CREATEDB CREATEROLE")
    postgres.execute("CREATE ROLE strangers LOGIN")
    postgres.execute("CREATE ROLE old_server LOGIN", user="maker")
    postgres.execute("CREATE DATABASE joined", user="maker")
    postgres.execute("GRANT CREATE ON SCHEMA public TO old_server", "joined", user="maker")
    postgres.execute("CREATE TABLE runs (id int)", "joined", user="old_server")

    def settings(user: str, name: str = "joined") -> Settings:
        return Settings(backend_store_uri=postgres.uri(name).replace("postgres@", f"{user}@"))

    assert join_owners(settings("maker")) == ["old_server"]
    assert join_owners(settings("maker")) == [], "it is one already"
    connects = "has_database_privilege('old_server', 'joined', 'CONNECT')"
    makes = "has_schema_privilege('old_server', 'public', 'CREATE')"
    postgres.execute("REVOKE ALL ON DATABASE joined FROM PUBLIC")
    assert postgres.ask(f"SELECT {connects} AND {makes}", "joined") is True
    postgres.execute("GRANT CONNECT ON DATABASE joined TO strangers")
    with pytest.raises(
        ConfigurationError, match="As each of them, or as who has made them: GRANT THE_ROLE TO strangers"
    ):
        join_owners(settings("strangers"))
    with pytest.raises(ConfigurationError, match=r"maker can't log in at .*does not exist"):
        join_owners(settings("maker", "no_such_database"))
