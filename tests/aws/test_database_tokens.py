"""`--db-auth iam`: a server without a password, whose tokens are renewed, at a stand-in for RDS (tests/support/rds.py).

They are made anew each second here, where it is each five minutes.
"""

from __future__ import annotations

import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import boto3
import psycopg2
import pytest
import requests

from headrace import rds_token
from headrace.aws import database as aws_database
from headrace.aws import templates, tunnel
from headrace.aws.client import Cloud
from headrace.aws.stacks import Stack
from headrace.database import check
from headrace.errors import ConfigurationError
from headrace.server_role import create_server_role
from headrace.settings import Settings
from headrace.settings.resolve import resolve
from tests.aws.conftest import KEYS, REGION
from tests.aws.template import Template
from tests.support import fork_server, tls
from tests.support.databases import Database, Databases
from tests.support.postgres import Postgres
from tests.support.processes import Process, free_port, wait_until
from tests.support.rds import Rds
from tests.support.servers import PASSED_THROUGH, STOCK_SECONDS, Server

ROLE = "by_token"
HOST = "localhost"
# the command, but that tokens are made anew more often
QUICK = "import headrace.renewal as r; r.TOKEN_EVERY = 1; from headrace.cli.main import main; main()"


@pytest.fixture(scope="module")
def database(postgres: Postgres, databases: Databases) -> Iterator[Database]:
    made = databases.migrated("postgresql")
    postgres.execute("CREATE ROLE rds_iam")
    create_server_role(Settings(backend_store_uri=made.uri), ROLE, None)
    yield made
    made.execute(f"DROP OWNED BY {ROLE}")
    for role in (ROLE, "rds_iam"):
        postgres.execute(f"DROP ROLE {role}")


@pytest.fixture
def rds(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rds]:
    certificate, key = tls.certificate(tmp_path, HOST)
    for name, value in {**KEYS, "AWS_DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    server = Rds(postgres.port, certificate, key, HOST)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: where a socket's would be longer than it may be, the server keeps its files elsewhere."""
    with tempfile.TemporaryDirectory(prefix="tokens-") as name:
        yield Path(name)


@pytest.fixture
def environment(rds: Rds, database: Database, tmp_path: Path, folder: Path) -> dict[str, str]:
    """As a container's, but for SSM."""
    return {
        **KEYS,
        "AWS_DEFAULT_REGION": REGION,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(tmp_path / "certificate"),
        "HEADRACE_DB_AUTH": "iam",
        "HOST": HOST,
        "PORT": str(rds.port),
        "USERNAME": ROLE,
        "DATABASE": database.name,
        "BUCKET": f"file://{tmp_path}/artifacts",
        "HEADRACE_AUTH": "true",
        "HEADRACE_ADMIN_TOKEN": "t" * 40,
        "TMPDIR": str(folder),
    }


def status(server: Server, path: str = "/api/2.0/mlflow/experiments/get?experiment_id=0") -> int:
    return requests.get(server.url + path, headers={"Authorization": f"Bearer {'t' * 40}"}, timeout=60).status_code


def token_of(passfile: Path) -> str:
    """As libpq reads it."""
    return passfile.read_text().splitlines()[0].removeprefix("*:*:*:*:").replace("\\:", ":")


def test_a_server_without_a_password(
    rds: Rds, database: Database, environment: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    """Its own connections and stock's begin with tokens that are good, longer than the first one was."""
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--stock-wait", str(STOCK_SECONDS)]
    env = environment | fork_server.environment()
    process = Process([sys.executable, "-c", QUICK, "serve", *options], tmp_path / "log", env=env, cwd=tmp_path)
    server = Server("headrace", f"http://127.0.0.1:{port}", process)
    try:
        process.wait_until(lambda: server.answers("/health"), "Headrace answers")
        assert status(server, PASSED_THROUGH) == 200
        before = set(rds.tokens)
        rds.age()
        assert not any(rds.is_good(each, ROLE) for each in before)
        (passfile,) = folder.glob("headrace-*/passfile")
        wait_until(lambda: rds.is_good(token_of(passfile), ROLE), "the server has a new token")
        ended = database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :r", r=ROLE)
        assert len(ended) >= 2
        count = rds.let_in
        assert status(server) == 200
        assert status(server, PASSED_THROUGH) == 200
        assert rds.let_in >= count + 2
        assert rds.tokens - before
        # RDS lets nobody in any more: who is connected goes on, and the others are told
        rds.refuses = True
        assert status(server) == 200
        database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :r", r=ROLE)
        wait_until(lambda: status(server) == 503, "no connection begins")
        rds.refuses = False
        wait_until(lambda: status(server) == 200, "connections begin again")
    finally:
        server.stop()
    log = process.tail(100_000)
    assert "X-Amz-Signature" not in log
    assert "Traceback" not in log


async def test_what_is_cancelled_ends_at_the_database(rds: Rds, database: Database, tmp_path: Path) -> None:
    """Cancelling is a connection of its own, without a user or a token."""
    token = boto3.client("rds", REGION).generate_db_auth_token(HOST, rds.port, ROLE)
    at = {"host": HOST, "port": rds.port, "user": ROLE, "password": token, "database": database.name}
    connection = await asyncpg.connect(**at, ssl=ssl.create_default_context(cafile=tmp_path / "certificate"))
    try:
        pid = connection.get_server_pid()
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(60)", timeout=0.1)
        assert await connection.fetchval("SELECT 1", timeout=30) == 1
        asked = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid = :pid"
        assert not database.query(asked, pid=pid)
    finally:
        await connection.close()


def test_the_tools_log_in_by_a_token(rds: Rds, database: Database, tmp_path: Path) -> None:
    at = f"postgresql://{ROLE}@{HOST}:{rds.port}/{database.name}"
    uri = f"{at}?sslmode=verify-full&sslrootcert={tmp_path}/certificate"
    settings = resolve({"backend_store_uri": uri, "db_auth": "iam"}, {})
    check(settings)
    assert rds.let_in > 0
    assert "X-Amz" not in repr(settings)
    rds.refuses = True
    with pytest.raises(ConfigurationError, match=r"PAM authentication failed.*rds-db:connect"):
        check(settings)


def test_a_token_is_botocores(monkeypatch: pytest.MonkeyPatch) -> None:
    """`aws rds generate-db-auth-token` would print the same."""
    for name, value in {**KEYS, "AWS_DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    # a session of its own: the default one keeps the credentials of whoever asked first in this process
    client = boto3.Session().client("rds", REGION)
    asked = ("db.abc.us-east-1.rds.amazonaws.com", 5432, "ml flow")
    # a second may pass between the two
    wait_until(lambda: rds_token.make(*asked, {}) == client.generate_db_auth_token(*asked), "they are equal")


@pytest.mark.parametrize(
    ("url", "variables", "says"),
    [
        ("postgresql://me@db/d", {}, "sslmode=verify-full"),
        ("postgresql://me@db/d?sslmode=require", {}, "sslmode=verify-full"),
        ("postgresql://me:secret@db/d?sslmode=verify-full", {}, "takes no password"),
        ("postgresql://me@db/d?sslmode=verify-full", {"PGPASSWORD": "secret"}, "takes no password"),
        ("postgresql://me@a,b/d?sslmode=verify-full", {}, "its address"),
        ("sqlite:///a.db", {}, "its address"),
    ],
)
def test_what_tokens_do_not_go_with(url: str, variables: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        resolve({"backend_store_uri": url, "db_auth": "iam"}, variables)


def test_the_master_user_logs_in_by_a_token_where_rds_wants_one(
    rds: Rds, database: Database, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has made a role of rds_iam is a member of it."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    found = {
        "Endpoint": {"Address": HOST, "Port": rds.port},
        "MasterUserSecret": {"SecretArn": "arn"},
        "MasterUsername": "postgres",
        "IAMDatabaseAuthenticationEnabled": True,
    }

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        yield SimpleNamespace(port=rds.port)

    monkeypatch.setattr(aws_database, "instance", lambda *_: found)
    monkeypatch.setattr(tunnel, "opened", opened)
    monkeypatch.setattr(Cloud, "call", lambda *_, **__: {"SecretString": '{"password": "the old one"}'})
    monkeypatch.setenv("PGSSLMODE", "require")
    with aws_database.as_master(cloud, Stack("d", "", {}, {"Bucket": "b", "DatabaseId": "x"}), "i-1") as settings:
        url = settings.backend_store_uri.replace("/mlflow?", f"/{database.name}?")
        psycopg2.connect(url).close()
    assert rds.let_in == 1


def test_the_stacks_grant_one_role_of_one_database() -> None:
    data = Template(templates.data(), DatabaseAuth="iam")
    assert data.properties("Database")["EnableIAMDatabaseAuthentication"] is True
    assert Template(templates.data()).properties("Database")["EnableIAMDatabaseAuthentication"] is False

    def granted(**parameters: str) -> list[str]:
        (policy,) = Template(templates.app(), **parameters).properties("Role")["Policies"]
        statements = policy["PolicyDocument"]["Statement"]
        return [one["Resource"]["Fn::Sub"] for one in statements if one["Action"] == "rds-db:connect"]

    assert granted() == []
    (resource,) = granted(DatabaseResource="db-ABC")
    assert resource.endswith(":dbuser:${DatabaseResource}/mlflow")
