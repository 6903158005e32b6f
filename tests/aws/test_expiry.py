"""What a deployment makes beside its stacks does not stay for ever: snapshots of upgrades, the database's log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.stub import Stubber

from headrace.aws import database, journal, templates
from headrace.aws.client import Cloud
from headrace.aws.stacks import Stack
from tests.aws.template import Template

DATA = Stack("lab-data", "CREATE_COMPLETE", {}, {"DatabaseId": "db"})


def snapshot(days: int, name: str | None = None, status: str = "available") -> dict[str, Any]:
    taken = datetime.now(UTC) - timedelta(days=days)
    named = name or f"headrace-lab-{taken:%Y-%m-%d-%H-%M-%S}"
    return {"DBSnapshotIdentifier": named, "SnapshotCreateTime": taken, "Status": status}


def test_snapshots_of_upgrades_go_and_others_stay(cloud: Cloud, said: list[str]) -> None:
    old, older = snapshot(100), snapshot(200)
    others = [snapshot(300, "headrace-lab-from-us-west-2"), snapshot(300, "headrace-lab-before-2601010000")]
    for newest, gone in (
        ([snapshot(1), snapshot(50), snapshot(89)], [old, older]),
        ([snapshot(1)], []),  # the newest three, whatever their age
        ([snapshot(1), snapshot(2)], [older]),
        ([snapshot(1), snapshot(2), snapshot(3), snapshot(80)], [old, older]),
    ):
        with Stubber(cloud.client("rds")) as rds:
            found = [older, *others, *newest, old, snapshot(400, status="creating")]
            asked = {"DBInstanceIdentifier": "db", "SnapshotType": "manual"}
            rds.add_response("describe_db_snapshots", {"DBSnapshots": found}, asked)
            for one in gone:
                identifier = one["DBSnapshotIdentifier"]
                rds.add_response("delete_db_snapshot", {}, {"DBSnapshotIdentifier": identifier})
            database.expire_snapshots(cloud, "lab", DATA, said.append)
            rds.assert_no_pending_responses()


def test_an_upgrades_snapshot_is_one_of_them(cloud: Cloud, said: list[str], monkeypatch: Any) -> None:
    """The journal names it."""
    monkeypatch.setattr(Cloud, "parameter", lambda *_: None)
    monkeypatch.setattr(Cloud, "put_parameter", lambda *_: None)
    name = journal.begin(cloud, "lab", "one", "two").snapshot
    newest = [snapshot(1), snapshot(2), snapshot(3)]
    with Stubber(cloud.client("rds")) as rds:
        # of that name, but taken long ago
        found = [{**snapshot(300), "DBSnapshotIdentifier": name.replace("-20", "-10", 1)}, *newest]
        rds.add_response("describe_db_snapshots", {"DBSnapshots": found})
        rds.add_response("delete_db_snapshot", {}, {"DBSnapshotIdentifier": found[0]["DBSnapshotIdentifier"]})
        database.expire_snapshots(cloud, "lab", DATA, said.append)
        rds.assert_no_pending_responses()


def test_the_databases_log_ends_with_the_servers(cloud: Cloud) -> None:
    """RDS makes its group with the first line, without an end."""
    assert Template(templates.app()).properties("LogGroup")["RetentionInDays"] == database.LOG_DAYS
    asked = {"logGroupName": "/aws/rds/instance/db/postgresql", "retentionInDays": database.LOG_DAYS}
    with Stubber(cloud.client("logs")) as logs:
        logs.add_response("put_retention_policy", {}, asked)
        database.expire_log(cloud, DATA)
        logs.add_client_error("put_retention_policy", "ResourceNotFoundException")
        database.expire_log(cloud, DATA)
        database.expire_log(cloud, DATA._replace(parameters={"ExistingDatabase": "theirs"}))
        logs.assert_no_pending_responses()
