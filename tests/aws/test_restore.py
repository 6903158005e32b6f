"""`headrace aws restore`: the exact calls of RDS and its errors, by botocore's Stubber, which checks them as AWS does.

That it continues after it was killed is in test_resuming.py; a real PostgreSQL is restored in test_restored_rows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.stub import Stubber
from click.testing import CliRunner

from headrace.aws import hosts, restore
from headrace.aws.client import Cloud
from headrace.aws.hosts import Host
from headrace.aws.restore import Source
from headrace.aws.stacks import Stack
from headrace.cli.aws import aws
from headrace.errors import AwsError, ConfigurationError

X = "lab-data-database-1"
NEW, OLD = f"{X}-restoring", f"{X}-2611281400"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
DATA = Stack("lab-data", "CREATE_COMPLETE", {}, {"DatabaseId": X, "KeyArn": KEY})
APP = Stack("lab-app", "CREATE_COMPLETE", {}, {"Hosts": "group"})
THEN = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
Say = Callable[[str], None]


def instance(identifier: str = X, status: str = "available", secret: bool = True, tags: Any = None) -> dict[str, Any]:
    found = {
        "DBInstanceIdentifier": identifier,
        "DBInstanceArn": f"arn:aws:rds:us-east-1:123456789012:db:{identifier}",
        "DBInstanceStatus": status,
        "DBInstanceClass": "db.m7g.large",
        "DBSubnetGroup": {"DBSubnetGroupName": "lab-data-subnets"},
        "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
        "DBParameterGroups": [{"DBParameterGroupName": "lab-data-parameters"}],
        "MultiAZ": True,
        "StorageType": "gp3",
        "AllocatedStorage": 100,
        "MaxAllocatedStorage": 500,
        "BackupRetentionPeriod": 7,
        "AutoMinorVersionUpgrade": True,
        "EnabledCloudwatchLogsExports": ["postgresql"],
        "TagList": [{"Key": key, "Value": value} for key, value in (tags or {}).items()],
    }
    return found | ({"MasterUserSecret": {"SecretArn": "arn:s", "SecretStatus": "active"}} if secret else {})


OPTIONS = {
    "DBInstanceClass": "db.m7g.large",
    "DBSubnetGroupName": "lab-data-subnets",
    "VpcSecurityGroupIds": ["sg-1"],
    "DBParameterGroupName": "lab-data-parameters",
    "MultiAZ": True,
    "StorageType": "gp3",
    "PubliclyAccessible": False,
    "AutoMinorVersionUpgrade": True,
    "CopyTagsToSnapshot": True,
    "EnableIAMDatabaseAuthentication": False,
    "DeletionProtection": True,
    "EnableCloudwatchLogsExports": ["postgresql"],
}


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.aws.restore.time.strftime", lambda *_: "2611281400")


@pytest.fixture
def rds(cloud: Cloud) -> Iterator[Stubber]:
    with Stubber(cloud.client("rds")) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def sees(rds: Stubber, identifier: str, found: dict[str, Any] | None) -> None:
    asked = {"DBInstanceIdentifier": identifier}
    if found is None:
        rds.add_client_error(
            "describe_db_instances", "DBInstanceNotFound", expected_params={"DBInstanceIdentifier": identifier}
        )
    else:
        rds.add_response("describe_db_instances", {"DBInstances": [found]}, asked)


@pytest.mark.parametrize("keys", ["", "customer-managed", "aws-managed"])
@pytest.mark.parametrize("source", [Source(snapshot="headrace-lab-1"), Source(time=THEN)])
def test_the_new_database_is_as_the_old_one(cloud: Cloud, rds: Stubber, say: Say, source: Source, keys: str) -> None:
    sees(rds, X, instance(tags={"Name": "lab", "headrace-restored": "2026", "aws:cloudformation:stack": "s"}))
    sees(rds, NEW, None)
    tags = {"Tags": [{"Key": "Name", "Value": "lab"}, {"Key": "headrace-restore", "Value": str(source)}]}
    if source.snapshot:
        operation = "restore_db_instance_from_db_snapshot"
        which: dict[str, Any] = {"DBInstanceIdentifier": NEW, "DBSnapshotIdentifier": "headrace-lab-1"}
    else:
        operation = "restore_db_instance_to_point_in_time"
        which = {"SourceDBInstanceIdentifier": X, "TargetDBInstanceIdentifier": NEW, "RestoreTime": THEN}
    rds.add_response(operation, {}, which | OPTIONS | tags)
    sees(rds, NEW, None)
    for status in ("creating", "backing-up", "available"):
        sees(rds, NEW, instance(NEW, status, secret=False))
    rds.add_response("modify_db_instance", {}, {
        "DBInstanceIdentifier": NEW, "ManageMasterUserPassword": True, "BackupRetentionPeriod": 7,
        "MaxAllocatedStorage": 500, "ApplyImmediately": True,
    } | ({} if keys == "aws-managed" else {"MasterUserSecretKmsKeyId": KEY}))  # fmt: skip
    sees(rds, NEW, instance(NEW, secret=False))  # RDS takes its time before it says "modifying"
    sees(rds, NEW, instance(NEW, "modifying", secret=False))
    sees(rds, NEW, instance(NEW))
    restore._make(cloud, DATA._replace(parameters={"Keys": keys} if keys else {}), X, source, say)


def renames(rds: Stubber, old: str, new: str) -> None:
    given = {"DBInstanceIdentifier": old, "NewDBInstanceIdentifier": new, "ApplyImmediately": True}
    rds.add_response("modify_db_instance", {}, given)
    sees(rds, old, instance(old, "renaming"))
    sees(rds, old, None)
    sees(rds, new, None)
    sees(rds, old, None)
    sees(rds, new, instance(new, "available"))
    sees(rds, new, instance(new, "available"))


def test_the_new_database_takes_the_old_ones_name(cloud: Cloud, rds: Stubber, say: Say) -> None:
    sees(rds, X, instance())
    rds.add_client_error("modify_db_instance", "InvalidDBInstanceState", "its backup is under way")
    renames(rds, X, OLD)
    renames(rds, NEW, X)
    restore._exchange(cloud, X, say)


def test_broken_off_between_the_renames_it_goes_on_with_the_second(cloud: Cloud, rds: Stubber, say: Say) -> None:
    sees(rds, X, None)
    renames(rds, NEW, X)
    restore._exchange(cloud, X, say)


@pytest.mark.parametrize("status", ["failed", "incompatible-restore", "incompatible-parameters"])
def test_a_database_that_never_comes(cloud: Cloud, rds: Stubber, say: Say, status: str) -> None:
    sees(rds, NEW, instance(NEW, status))
    with pytest.raises(AwsError, match=f"{NEW} in us-east-1 is {status}.*\n?.*describe-events"):
        restore._wait(cloud, NEW, say)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("DBSnapshotNotFound", "DBSnapshot not found: nothing"),
        ("InvalidRestoreFault", "the time is before the first backup"),
        ("AccessDenied", "not authorized to perform: rds:RestoreDBInstanceFromDBSnapshot"),
    ],
)
def test_what_rds_refuses_changes_nothing(
    cloud: Cloud, rds: Stubber, say: Say, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    stacks_are_there(monkeypatch)
    for identifier, found in ((X, instance()), (NEW, None), (X, instance()), (NEW, None)):
        sees(rds, identifier, found)
    rds.add_client_error("restore_db_instance_from_db_snapshot", code, message)
    with pytest.raises(AwsError, match=message):
        restore.restore(cloud, "lab", Source(snapshot="nothing"), say)


def stacks_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """And any call for a host is an error."""
    monkeypatch.setattr(restore, "settled", lambda _cloud, name, _say: {"lab-data": DATA, "lab-app": APP}[name])


def test_another_restore_waits_for_the_one_under_way(
    cloud: Cloud, rds: Stubber, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks_are_there(monkeypatch)
    sees(rds, X, instance())
    sees(rds, NEW, instance(NEW, "creating", tags={"headrace-restore": "first"}))
    with pytest.raises(AwsError, match="A restore of first is under way"):
        restore.restore(cloud, "lab", Source(snapshot="second"), say)


def test_a_database_that_is_gone_is_told(cloud: Cloud, rds: Stubber, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    stacks_are_there(monkeypatch)
    sees(rds, X, None)
    sees(rds, NEW, None)
    with pytest.raises(AwsError, match=f"has no database {X}"):
        restore.restore(cloud, "lab", Source(snapshot="first"), say)


@pytest.mark.usefixtures("older_schema")
def test_a_schema_of_before_is_told_and_no_server_is_started(
    cloud: Cloud, rds: Stubber, say: Say, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot of an upgrade that has migrated: its image of then comes with `rollback`."""

    stacks_are_there(monkeypatch)
    monkeypatch.setattr(hosts, "wait_online", lambda *_: [Host("i-1", "InService", "Healthy", True)])
    monkeypatch.setattr(hosts, "run", None)
    monkeypatch.setattr(hosts, "resume", None)  # hosts without a server would be replaced by such as can't serve either
    monkeypatch.setattr(restore, "_wait", lambda *_: {"DBInstanceArn": "arn"})
    tags = {"headrace-restore": "before"}
    sees(rds, X, instance(tags=tags))
    sees(rds, NEW, None)
    rds.add_response("add_tags_to_resource", {}, None)
    rds.add_response("describe_db_instances", {"DBInstances": []}, {})
    with Stubber(cloud.client("autoscaling")) as groups:
        groups.add_response("suspend_processes", {}, None)
        restore.restore(cloud, "lab", Source(snapshot="before"), say)
    assert "`headrace aws rollback` puts the image of then into service" in said[-1]


def test_old_databases_go_with_a_last_snapshot(
    cloud: Cloud, rds: Stubber, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "required", lambda *_: DATA)
    others = [X, NEW, f"{X}-26112814000", f"{X}2-2611281400", "other"]
    rds.add_response("describe_db_instances", {"DBInstances": [instance(one) for one in (*others, OLD)]}, {})
    rds.add_response("modify_db_instance", {}, {
        "DBInstanceIdentifier": OLD, "DeletionProtection": False, "ApplyImmediately": True,
    })  # fmt: skip
    sees(rds, OLD, instance(OLD) | {"DeletionProtection": False})
    snapshot = "headrace-lab-before-2611281400"
    given = {"DBInstanceIdentifier": OLD, "FinalDBSnapshotIdentifier": snapshot}
    rds.add_response("delete_db_instance", {}, given)
    assert restore.delete_old(cloud, "lab", say) == [snapshot]


@pytest.mark.parametrize("text", ["2026-11-28T14:05:00Z", "2026-11-28 15:05+01:00"])
def test_a_time(text: str) -> None:
    assert restore.moment("2020" + text[4:]).astimezone(UTC) == datetime(2020, 11, 28, 14, 5, tzinfo=UTC)
    assert str(Source(time=restore.moment("2020" + text[4:]))) == "2020-11-28T14:05:00+00:00"


@pytest.mark.parametrize("text", ["yesterday", "2026-11-28T14:05:00", "", "2999-01-01T00:00:00Z"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--to"):
        restore.moment(text)


def test_the_command_says_what_is_lost_and_asks() -> None:
    environment = {"AWS_REGION": "us-east-1"}
    for options in ([], ["--to", "2020-01-01T00:00:00Z", "--snapshot", "x"], ["--snapshot", "x", "--delete-old"]):
        assert "Give one of --to TIME" in CliRunner().invoke(aws, ["restore", *options], env=environment).output


def test_identifiers_fit() -> None:
    """RDS takes 63 characters; CloudFormation makes NAME-data-database-<12>."""
    longest = f"{24 * 'n'}-data-database-{12 * 'x'}"
    assert max(len(f"{longest}-restoring"), len(f"{longest}-2611281400")) <= 63
