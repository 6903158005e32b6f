"""`headrace aws up --existing-database --existing-bucket`: a database and a bucket made by hand are used in place.

The account is moto's, the database a real PostgreSQL whose tables are those of the role that the old server has.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests
from click.testing import CliRunner

from headrace.aws import adopt, database, plan, prices, stacks, templates
from headrace.aws.client import Answer, Cloud
from headrace.aws.deployment import Choices
from headrace.cli.aws import aws
from headrace.database import installed_revisions
from headrace.errors import AwsError, ConfigurationError, SchemaOutOfDate
from tests.aws.conftest import Account
from tests.aws.host import HostStandIn
from tests.aws.template import Template
from tests.support import fork_server
from tests.support.databases import OLD_REVISION, Database, made_by_an_older_mlflow
from tests.support.postgres import Postgres
from tests.support.processes import clean_environment
from tests.support.servers import SCRIPTS

IMAGE = "example.org/headrace@sha256:" + 64 * "1"
DATABASE, BUCKET = "seed-db", "mlflow-artifacts"
OLD_ROLE = "mlflow"  # of the old server, in the guide that so many have followed
EXISTING = {
    "ExistingDatabase": DATABASE,
    "ExistingDatabaseHost": "seed-db.aaa.us-east-1.rds.amazonaws.com",
    "ExistingDatabasePort": "5433",
    "ExistingDatabaseSecurityGroup": "sg-seed",
    "ExistingBucket": BUCKET,
}


class Seed(dict[str, str]):
    """What was made by hand: `vpc`, `subnets` (with a comma), `group`."""


def made_by_hand(cloud: Cloud) -> Seed:
    vpc = cloud.call("ec2", "create_vpc", CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        cloud.call("ec2", "create_subnet", VpcId=vpc, CidrBlock=f"10.9.{number}.0/24", AvailabilityZone=zone)["Subnet"]
        for number, zone in enumerate(("us-east-1a", "us-east-1b"))
    ]
    ids = [one["SubnetId"] for one in subnets]
    group = cloud.call("ec2", "create_security_group", GroupName="seed", Description="seed", VpcId=vpc)["GroupId"]
    cloud.call(
        "rds", "create_db_subnet_group", DBSubnetGroupName="seed", DBSubnetGroupDescription="seed", SubnetIds=ids
    )
    cloud.call(
        "rds",
        "create_db_instance",
        DBInstanceIdentifier=DATABASE,
        DBInstanceClass="db.t3.micro",
        Engine="postgres",
        EngineVersion="14",
        DBName="runs",
        AllocatedStorage=20,
        MasterUsername="postgres_master",
        MasterUserPassword="typed by hand",
        DBSubnetGroupName="seed",
        VpcSecurityGroupIds=[group],
        BackupRetentionPeriod=1,
    )
    cloud.call("s3", "create_bucket", Bucket=BUCKET)
    return Seed(vpc=vpc, subnets=",".join(ids), group=group)


def rules(cloud: Cloud, group: str) -> list[Any]:
    found: list[Any] = cloud.call("ec2", "describe_security_groups", GroupIds=[group])["SecurityGroups"]
    return [rule for one in found for rule in one["IpPermissions"]]


def instance() -> Answer:
    return {
        "Engine": "postgres",
        "EngineVersion": "14.9",
        "DBInstanceStatus": "available",
        "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1"}],
        "DBSubnetGroup": {"VpcId": "vpc-1"},
    }


def test_a_database_and_a_bucket_are_used_and_outlive_the_deployment(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the old server's tables to `down --delete-data`. One test, since each step stands on the one before."""
    cloud = account.cloud()
    seed = made_by_hand(cloud)
    cloud.call("s3", "put_object", Bucket=BUCKET, Key="1/artifact", Body=b"artifact")
    postgres = Postgres(asked=("headrace", "postgres_master"))
    host = HostStandIn(account, postgres, tmp_path)
    try:
        postgres.start()
        run_id = _old_server(postgres)
        for name, value in account.environment().items():
            monkeypatch.setenv(name, value)
        options = ["--existing-database", DATABASE, "--existing-bucket", BUCKET, "--app-subnet-ids", seed["subnets"]]
        asked = ["doctor", "--json", "--existing-database", DATABASE, "--existing-bucket", BUCKET]
        found = {one["what"]: one for one in json.loads(CliRunner().invoke(aws, asked).output)}
        assert found["existing database"]["ok"] is not False, found["existing database"]
        assert found["existing bucket"]["ok"] is None, "it is not versioned"
        without = CliRunner().invoke(aws, ["up", "--yes", "--image", IMAGE, *options])
        assert "Give that of postgres_master as PGPASSWORD" in str(without.exception)
        monkeypatch.setenv("PGPASSWORD", "typed by hand")
        host.start()
        done = CliRunner().invoke(aws, ["up", "--yes", "--image", IMAGE, *options])
        assert done.exit_code == 0, (done.output, done.exception)
        assert f"the master user is a member of {OLD_ROLE}" in done.output
        assert "typed by hand" not in done.output + str(host.parameters())
        assert host.server is not None
        token = {"Authorization": f"Bearer {host.parameters()['ADMIN_TOKEN']}"}
        of_before = {"run_id": run_id}
        answer = requests.get(f"{host.server.url}/api/2.0/mlflow/runs/get", params=of_before, headers=token, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["run"]["info"]["run_name"] == "of the old server"
        keys = [one["Key"] for one in cloud.pages("s3", "list_objects_v2", "Contents", Bucket=BUCKET)]
        assert any(key.endswith("/artifacts/trial.txt") for key in keys), "the new server keeps artifacts there"
        _old_server_goes_on(postgres)
        _stays(cloud, seed, rules_of_hosts=1)
        made = stacks.resources(cloud, "mlflow-data")
        assert not {"Database", "DatabaseSubnets", "DatabaseSecurityGroup", "Bucket", "BucketPolicy"} & set(made)
        again = CliRunner().invoke(aws, ["up"])
        assert "stack mlflow-data: as it should be" in again.output, (again.output, again.exception)
        assert f"in place database {DATABASE}: it was there before" in CliRunner().invoke(aws, ["status"]).output
        refused = CliRunner().invoke(aws, ["restore", "--yes", "--snapshot", "any"])
        assert "was there before the deployment, which does not replace it" in str(refused.exception)

        gone = CliRunner().invoke(aws, ["down", "--delete-data"], input="mlflow-data\n")
        assert gone.exit_code == 0, (gone.output, gone.exception)
        assert f"database {DATABASE}: stays as it is" in gone.output
        assert f"bucket {BUCKET}: stays as it is" in gone.output
        _stays(cloud, seed, rules_of_hosts=0)
        after = [one["Key"] for one in cloud.pages("s3", "list_objects_v2", "Contents", Bucket=BUCKET)]
        assert set(keys) <= set(after)
        assert cloud.call("cloudformation", "describe_stacks")["Stacks"] == []
    finally:
        host.stop()
        postgres.remove()


def test_a_database_of_an_older_mlflow_is_migrated_in_place(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide, word for word: `up` says that the schema is older, `upgrade` migrates it, `up` once more proves it."""
    cloud = account.cloud()
    seed = made_by_hand(cloud)
    postgres = Postgres(asked=("headrace", "postgres_master"))
    host = HostStandIn(account, postgres, tmp_path)
    try:
        postgres.start()
        run_id = _old_server(postgres, made_by_an_older_mlflow)
        for name, value in account.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PGPASSWORD", "typed by hand")
        options = ["--existing-database", DATABASE, "--existing-bucket", BUCKET, "--app-subnet-ids", seed["subnets"]]
        first = CliRunner().invoke(aws, ["up", "--yes", "--image", IMAGE, *options])
        assert "`headrace aws upgrade latest --name mlflow` takes a snapshot and migrates" in str(first.exception)
        _old_server_goes_on(postgres)
        revision = "SELECT version_num FROM alembic_version"
        assert postgres.ask(revision, "runs") == OLD_REVISION
        newer = IMAGE.replace("1", "2")
        migrated = CliRunner().invoke(aws, ["upgrade", "--yes", newer])
        assert migrated.exit_code == 0, (migrated.output, migrated.exception)
        assert postgres.ask(revision, "runs") == installed_revisions().head
        (kept,) = cloud.call("rds", "describe_db_snapshots", SnapshotType="manual")["DBSnapshots"]
        assert kept["DBInstanceIdentifier"] == DATABASE
        host.start()
        proved = CliRunner().invoke(aws, ["up", "--yes"])
        assert proved.exit_code == 0, (proved.output, proved.exception)
        assert "logged a param and an artifact, and read them back" in proved.output
        assert host.server is not None
        token = {"Authorization": f"Bearer {host.parameters()['ADMIN_TOKEN']}"}
        at = f"{host.server.url}/api/2.0/mlflow/runs/search"
        found = requests.post(at, json={"experiment_ids": ["0"]}, headers=token, timeout=60).json()["runs"]
        (mine,) = [one for one in found if one["info"]["run_id"] == run_id]
        assert mine["info"]["run_name"] == "of the old server"
        assert mine["info"]["artifact_uri"] == f"s3://{BUCKET}/0/a/artifacts"
        assert [(one["key"], one["value"]) for one in mine["data"]["metrics"]] == [("loss", 0.5)]
    finally:
        host.stop()
        postgres.remove()


def _made_by_headrace(database: Database) -> None:
    command = [str(SCRIPTS / "headrace"), "db", "create", database.uri]
    env = clean_environment() | fork_server.environment()
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def _old_server(postgres: Postgres, made: Callable[[Database], None] = _made_by_headrace) -> str:
    """Its tables, which its own role has `made`, and a run; the run's id."""
    postgres.execute("CREATE ROLE postgres_master LOGIN CREATEDB CREATEROLE PASSWORD 'typed by hand'")
    master = "postgres_master:typed%20by%20hand"
    postgres.execute(f"CREATE ROLE {OLD_ROLE} LOGIN", user=master)
    postgres.execute("CREATE DATABASE runs", user=master)
    postgres.execute(f"GRANT CREATE ON SCHEMA public TO {OLD_ROLE}", "runs", user=master)
    uri = postgres.uri("runs").replace("postgres@", f"{OLD_ROLE}@")
    made(Database("postgresql", "runs", uri))
    run_id = 32 * "a"
    with psycopg2.connect(uri.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (0, 'Default', 'active')"
            " ON CONFLICT DO NOTHING"
        )
        cursor.execute(
            "INSERT INTO runs (run_uuid, name, experiment_id, user_id, status, lifecycle_stage, artifact_uri,"
            " start_time, source_type, source_name, entry_point_name, source_version)"
            f" VALUES (%s, 'of the old server', 0, 'me', 'RUNNING', 'active', 's3://{BUCKET}/0/a/artifacts', 1,"
            " 'LOCAL', '', '', '')",
            (run_id,),
        )
        for table in ("metrics", "latest_metrics"):
            values = "(key, value, timestamp, step, is_nan, run_uuid) VALUES ('loss', 0.5, 1, 0, false, %s)"
            cursor.execute(f"INSERT INTO {table} {values}", (run_id,))
    connection.close()
    return run_id


def _old_server_goes_on(postgres: Postgres) -> None:
    """Until it is stopped it connects anew, and writes."""
    with psycopg2.connect(host="127.0.0.1", port=postgres.port, user=OLD_ROLE, dbname="runs") as connection:
        connection.cursor().execute("UPDATE runs SET status = 'FINISHED' WHERE name = 'of the old server'")
    connection.close()


def _stays(cloud: Cloud, seed: Seed, rules_of_hosts: int) -> None:
    (found,) = cloud.call("rds", "describe_db_instances")["DBInstances"]
    assert (found["DBInstanceIdentifier"], found["DBInstanceStatus"]) == (DATABASE, "available")
    assert len(rules(cloud, seed["group"])) == rules_of_hosts
    assert cloud.call("s3", "head_object", Bucket=BUCKET, Key="1/artifact")


def test_the_template_has_no_resource_that_it_could_delete() -> None:
    data = Template(templates.data(), VpcId="vpc-1", AppSubnetIds="subnet-1,subnet-2", **EXISTING)
    assert set(data.resources) == {"Key", "KeyAlias", "Repository"} | {
        f"Parameter{one}" for one in ("DbHost", "DbPort", "DbName", "DbUser", "DbAuth", "Bucket")
    }
    value = {name: data.properties(f"Parameter{name}")["Value"] for name in ("DbHost", "DbPort", "DbUser", "Bucket")}
    assert value["DbHost"] == {"Ref": "ExistingDatabaseHost"}
    assert value["DbPort"] == {"Ref": "ExistingDatabasePort"}
    assert value["DbUser"] == "headrace"
    assert value["Bucket"] == {"Fn::Sub": "s3://${ExistingBucket}/"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"Engine": "mysql", "EngineVersion": "8.0.35"}, "`headrace copy` takes its runs along"),
        ({"EngineVersion": "12.22"}, "Let RDS upgrade it first"),
        ({"DBInstanceStatus": "stopped"}, "Start it first"),
        ({"VpcSecurityGroups": []}, "in no VPC"),
    ],
)
def test_what_can_not_be_used_is_told_with_the_way_out(changed: Answer, why: str) -> None:
    assert adopt.unfit(instance()) == ""
    assert why in adopt.unfit(instance() | changed)


def test_what_does_not_go_together_is_refused(account: Account) -> None:
    cloud = account.cloud()
    seed = made_by_hand(cloud)
    here: dict[str, Any] = {"existing_database": DATABASE, "app_subnet_ids": seed["subnets"], "image": IMAGE}
    other = cloud.call("ec2", "create_vpc", CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnet = cloud.call("ec2", "create_subnet", VpcId=other, CidrBlock="10.8.0.0/24")["Subnet"]["SubnetId"]
    west = Cloud("us-west-2", endpoint_url=account.url)
    west.call("s3", "create_bucket", Bucket="far", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: Choices(existing_database=DATABASE), "needs --app-subnet-ids"),
        (lambda: Choices(**here, db_auth="iam"), "shuts out whatever else logs in"),
        (lambda: plan.up(cloud, Choices(**here, vpc_id=other), print), "must be in the database's VPC"),
        (lambda: plan.up(cloud, Choices(**here | {"app_subnet_ids": subnet}), print), "is not in vpc-"),
        (lambda: plan.up(cloud, Choices(**here | {"existing_database": "no"}), print), "no database instance no"),
        (lambda: plan.up(cloud, Choices(existing_bucket="nowhere-at-all", image=IMAGE), print), "no such bucket"),
        (lambda: plan.up(cloud, Choices(existing_bucket="far", image=IMAGE), print), "take --region us-west-2"),
        (
            lambda: Choices(existing_database="b", app_subnet_ids="x").data_parameters({"VpcId": "vpc-1"}),
            "has a database of its own, and keeps it",
        ),
    ]
    for what, why in refused:
        with pytest.raises(ConfigurationError, match=why):
            what()
    data = next(one.parameters for one in plan.up(cloud, Choices(**here), print) if isinstance(one, plan.MakeStack))
    key = cloud.call("kms", "create_key")["KeyMetadata"]
    bucket = "encrypted-by-hand"
    cloud.call("s3", "create_bucket", Bucket=bucket)
    by_key = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key["Arn"]}}
    cloud.call("s3", "put_bucket_encryption", Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [by_key]})
    assert (data["VpcId"], data["ExistingDatabaseName"]) == (seed["vpc"], "runs")
    for keys in ("aws-managed", "customer-managed"):
        steps = plan.up(cloud, Choices(existing_bucket=bucket, keys=keys, image=IMAGE), print)
        (app,) = [one.stack.parameters for one in steps if isinstance(one, plan.MakeApp)]
        assert (app["Keys"], app["ExistingBucketKey"]) == (keys, key["Arn"]), "the hosts' role follows the data"
    app = Choices(**here).app_parameters({})
    assert not any("RDS" in item.what for item in prices.estimate(data, app)), "it costs what it did"


@pytest.mark.usefixtures("older_schema")
def test_an_older_schema_is_told_once_the_role_is_there(
    cloud: Cloud, say: stacks.Say, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `upgrade`, which migrates, ends with a server that can log in."""

    roles: list[str] = []
    monkeypatch.setattr("headrace.server_role.join_owners", lambda _: [OLD_ROLE])
    monkeypatch.setattr("headrace.server_role.create_server_role", lambda _, role, __: roles.append(role))
    data = stacks.Stack("lab-data", "CREATE_COMPLETE", {"ExistingDatabase": DATABASE}, {})
    with pytest.raises(AwsError, match="`headrace aws upgrade latest --name lab` takes a snapshot and migrates"):
        database.make_role(cloud, "lab", data, "i-1", say)
    assert roles == ["headrace"]
    assert f"the master user is a member of {OLD_ROLE}" in said[0]


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.usefixtures("older_schema")
def test_a_schema_of_another_mlflow_than_this_headraces_is_the_images_to_serve(
    cloud: Cloud, say: stacks.Say, said: list[str], monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    """`up` after `down`, by a newer Headrace, or an older: hosts run the image that they ran."""

    def prepare(*_: Any) -> None:
        raise SchemaOutOfDate("The schema is another MLflow's.\nUpgrade it with `headrace db upgrade`.", newer=newer)

    roles: list[str] = []
    monkeypatch.setattr("headrace.database.prepare", prepare)
    monkeypatch.setattr("headrace.server_role.create_server_role", lambda _, role, __: roles.append(role))
    database.make_role(cloud, "lab", stacks.Stack("lab-data", "CREATE_COMPLETE", {}, {}), "i-1", say)
    assert roles == ["headrace"]
    assert said[-1].startswith("The schema is another MLflow's. The hosts' image serves its own")
    assert "`headrace aws upgrade VERSION --name lab`" in said[-1]
    assert "headrace db upgrade" not in said[-1], "which reaches no database of RDS"


def test_the_key_of_a_bucket(account: Account) -> None:
    """The hosts' role needs it, where it is the account's own."""
    cloud = account.cloud()
    cloud.call("s3", "create_bucket", Bucket=BUCKET)
    key = cloud.call("kms", "create_key")["KeyMetadata"]
    for given, expected in (
        ({"SSEAlgorithm": "AES256"}, ""),
        ({"SSEAlgorithm": "aws:kms"}, ""),
        ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key["KeyId"]}, key["Arn"]),
        ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key["Arn"]}, key["Arn"]),
    ):
        rule = {"Rules": [{"ApplyServerSideEncryptionByDefault": given}]}
        cloud.call("s3", "put_bucket_encryption", Bucket=BUCKET, ServerSideEncryptionConfiguration=rule)
        assert adopt.bucket_key(cloud, BUCKET) == expected
