"""`headrace aws upgrade` over a database of an older MLflow: a real PostgreSQL, and stock's own migrations.

The hosts are moto's: Run Command says that they did what they were told, unless the image's name has FAILS in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from headrace.aws import execute, journal, plan, upgrade
from headrace.aws.client import Cloud
from headrace.aws.deployment import Choices
from headrace.database import installed_revisions
from headrace.errors import AwsError
from tests.aws.conftest import Account
from tests.support.databases import OLD_REVISION, Database, made_by_an_older_mlflow
from tests.support.moto_aws import FAILS
from tests.support.postgres import Postgres

NAME = "mlflow"
ONE, TWO = (f"example.org/headrace@sha256:{64 * digit}" for digit in "12")


@pytest.fixture
def old_database(postgres: Postgres) -> Iterator[Database]:
    """The deployment's database as its older image has made it, owned by RDS's master user."""
    for sql in (
        "CREATE ROLE headrace_master LOGIN CREATEDB CREATEROLE",
        f"CREATE DATABASE {NAME} OWNER headrace_master",
    ):
        postgres.execute(sql)
    database = Database("postgresql", NAME, postgres.uri(NAME).replace("postgres@", "headrace_master@"))
    made_by_an_older_mlflow(database)
    database.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'mine', 'active')")
    yield database
    postgres.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
    postgres.execute("DROP ROLE headrace_master")


@pytest.fixture
def cloud(account: Account, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, say: Callable[[str], None]) -> Cloud:
    """With the stacks of a deployment; its one host is left to this test."""
    account.tunnels["remote"] = postgres.port
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    cloud = account.cloud()
    live = execute.Live(cloud, say)
    for step in plan.up(cloud, Choices(image=ONE), say):
        if isinstance(step, plan.MakeStack | plan.MakeSecret | plan.MakeApp):
            live.take(step)
    return cloud


def told(cloud: Cloud) -> list[str]:
    """What the host was told, in order."""
    return [command["Comment"].split(" example.org")[0] for command in cloud.call("ssm", "list_commands")["Commands"]]


def snapshots(cloud: Cloud) -> list[str]:
    found = cloud.call("rds", "describe_db_snapshots", SnapshotType="manual")["DBSnapshots"]
    return [one["DBSnapshotIdentifier"] for one in found]


def revision(database: Database) -> str:
    return str(database.query("SELECT version_num FROM alembic_version")[0]["version_num"])


def test_an_upgrade_migrates_an_older_database(
    cloud: Cloud, old_database: Database, say: Callable[[str], None], said: list[str]
) -> None:
    head = installed_revisions().head

    # migrations that fail are taken back whole, and the server runs again
    old_database.execute("CREATE TABLE trace_info (in_the_way int)")
    with pytest.raises(AwsError, match="MLflow could not upgrade the database"):
        upgrade.upgrade(cloud, NAME, TWO, say)
    assert "The servers run again, on the database as it was." in said
    assert told(cloud) == ["stop the server", "start the server again"]
    assert revision(old_database) == OLD_REVISION
    old_database.execute("DROP TABLE trace_info")
    assert image(cloud) == ONE

    # migrated, but the new server does not become healthy: the snapshot of before is named, and is not taken twice
    with pytest.raises(AwsError, match=f"{ONE} runs on") as refused:
        upgrade.upgrade(cloud, NAME, f"example.org/{FAILS}:1", say)
    (_, before) = snapshots(cloud)
    assert f"The database was migrated before. As it was, it is in the snapshot {before}" in str(refused.value)
    assert revision(old_database) == head
    assert old_database.query("SELECT name FROM experiments WHERE experiment_id = 7") == [{"name": "mine"}]

    said.clear()
    assert upgrade.upgrade(cloud, NAME, TWO, say) == TWO
    assert len(snapshots(cloud)) == 2
    assert told(cloud)[2:] == ["stop the server", "put", "put"], "there is nothing to migrate any more"
    assert image(cloud) == TWO

    # this Headrace's MLflow is older than the database's: nothing is touched
    old_database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(AwsError, match="Run this with the Headrace that the new image was built from"):
        upgrade.upgrade(cloud, NAME, ONE, say)
    assert len(told(cloud)) == 5
    assert image(cloud) == TWO


def test_a_host_that_comes_as_the_migrations_begin_is_stopped_too(
    cloud: Cloud, old_database: Database, say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have asked which image is wanted a moment before one was."""
    want = journal.want

    def want_as_a_host_comes(cloud: Cloud, name: str, image: str | None) -> None:
        group = execute.required(cloud, f"{NAME}-app").output("Hosts")
        cloud.call("autoscaling", "update_auto_scaling_group", AutoScalingGroupName=group, MaxSize=2, DesiredCapacity=2)
        want(cloud, name, image)

    monkeypatch.setattr(journal, "want", want_as_a_host_comes)
    assert upgrade.upgrade(cloud, NAME, TWO, say) == TWO
    assert told(cloud) == ["stop the server", "stop the server", "put", "put"]
    assert revision(old_database) == installed_revisions().head


def image(cloud: Cloud) -> str:
    return execute.required(cloud, f"{NAME}-app").parameters["Image"]
