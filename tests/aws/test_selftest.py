"""`headrace aws selftest`: each promise kept, and each broken in turn. AWS is a table here.

botocore holds the table to its models: what is asked, and what is answered, have AWS's shapes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.stub import validate_parameters
from click.testing import CliRunner

from headrace.aws import execute, hosts, selftest, stacks, trial, tunnel
from headrace.aws.client import Cloud
from headrace.aws.hosts import Host
from headrace.aws.stacks import Stack
from headrace.aws.trial import Address
from headrace.cli.aws import aws
from headrace.errors import AwsError

Say = Callable[[str], None]
HOST, CLASS = "t4g.micro", "db.t4g.micro"
DATA = Stack("lab-data", "CREATE_COMPLETE", {}, {"DatabaseId": "lab-db", "Bucket": "lab-bucket"})
PARAMETERS = {"Image": "x.dkr.ecr/lab@sha256:1", "InstanceType": HOST}
APP = Stack("lab-app", "UPDATE_COMPLETE", PARAMETERS, {"Hosts": "lab-app-Hosts-1"})


def price_list(**prices: str) -> dict[str, Any]:
    """AWS's, as it answers for several machines; of each the hour, and a line of what is free."""
    names = {"host": HOST, "database": CLASS}
    lines = [(names[name], usd) for name, usd in prices.items()]
    return {
        "PriceList": [
            json.dumps(
                {
                    "product": {"attributes": {"instanceType": kind}},
                    "terms": {"OnDemand": {"a": {"priceDimensions": {"b": {"pricePerUnit": {"USD": usd}}}}}},
                }
            )
            for kind, price in lines
            for usd in (price, "0.0000000000")
        ]
    }


def group(**changed: Any) -> dict[str, Any]:
    made = {
        "AutoScalingGroupName": "lab-app-Hosts-1",
        "MinSize": 1,
        "MaxSize": 2,
        "DesiredCapacity": 1,
        "DefaultCooldown": 300,
        "AvailabilityZones": ["eu-west-1a"],
        "HealthCheckType": "ELB",
        "CreatedTime": datetime(2026, 1, 1, tzinfo=UTC),
        "TargetGroupARNs": ["arn"],
        "Instances": [
            {
                "InstanceId": "i-1",
                "AvailabilityZone": "eu-west-1a",
                "LifecycleState": "InService",
                "HealthStatus": "Healthy",
                "ProtectedFromScaleIn": False,
            }
        ],
    }
    return {"AutoScalingGroups": [made | changed]}


def health(state: str) -> dict[str, Any]:
    return {"TargetHealthDescriptions": [{"Target": {"Id": "i-1"}, "TargetHealth": {"State": state}}]}


KEPT: dict[str, dict[str, Any]] = {
    "rds describe_db_instances": {
        "DBInstances": [
            {
                "PubliclyAccessible": False,
                "StorageEncrypted": True,
                "DeletionProtection": True,
                "MasterUserSecret": {"SecretArn": "arn"},
                "DBInstanceClass": CLASS,
                "EngineVersion": "17.6",
                "BackupRetentionPeriod": 7,
            }
        ]
    },
    "secretsmanager describe_secret": {"RotationEnabled": True, "NextRotationDate": datetime(2026, 12, 6, tzinfo=UTC)},
    "autoscaling describe_auto_scaling_groups": group(),
    "autoscaling describe_lifecycle_hooks": {"LifecycleHooks": [{"LifecycleHookName": "serves"}]},
    "elbv2 describe_target_health": health("healthy"),
    "pricing get_products": price_list(host="0.0084000000", database="0.0160000000"),
    "s3 get_bucket_encryption": {
        "ServerSideEncryptionConfiguration": {
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
        }
    },
    "s3 get_public_access_block": {
        "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "IgnorePublicAcls": True}
    },
    "s3 get_bucket_versioning": {"Status": "Enabled"},
    "s3 get_bucket_policy": {"Policy": '{"Condition": {"Bool": {"aws:SecureTransport": "false"}}}'},
    "ec2 describe_instances": {
        "Reservations": [
            {
                "Instances": [
                    {
                        "InstanceType": HOST,
                        "SecurityGroups": [{"GroupId": "sg-1"}],
                        "MetadataOptions": {"HttpTokens": "required"},
                    }
                ]
            }
        ]
    },
    "ec2 describe_security_groups": {
        "SecurityGroups": [{"IpPermissions": [{"FromPort": 5000, "UserIdGroupPairs": [{"GroupId": "sg-2"}]}]}]
    },
    "logs filter_log_events": {"events": [{"message": "MLflow is on"}]},
    "cloudwatch describe_alarms": {
        "MetricAlarms": [
            {
                "AlarmName": "lab-app-HostIsDown-1A2B",
                "AlarmDescription": "Headrace lab: a host is down",
                "StateValue": "OK",
            }
        ]
    },
}
ON_HOST = {
    "ssm get-parameter": "/lab/DB_HOST\nAn error occurred (AccessDeniedException): arn:aws:iam::123456789012:role/x",
    "docker inspect": "0",
    "rpm -q": "docker-25\namazon-ecr-credential-helper-0.9\nactive\nactive\nStartup finished in 9s\n2026-11-28 12:00",
}


class Account:
    """`answers` and `on_host` are those of a deployment that keeps all promises; a test breaks one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers, self.on_host = copy.deepcopy(KEPT), dict(ON_HOST)
        [database] = self.answers["rds describe_db_instances"]["DBInstances"]
        database["LatestRestorableTime"] = datetime.now(UTC) - timedelta(minutes=4)
        self.drift: list[str] = []
        self.app, self.tunnel = APP, ""
        monkeypatch.setattr(Cloud, "call", lambda cloud, *a, **k: self.call(cloud, *a, **k))
        monkeypatch.setattr(Cloud, "pages", lambda cloud, *a, **k: iter(self.call(cloud, *a[:2], **k)[a[2]]))
        self.data = DATA
        monkeypatch.setattr(execute, "required", lambda _, name: {"lab-data": self.data, "lab-app": self.app}[name])
        monkeypatch.setattr(execute, "admin_token", lambda *_: "token")
        monkeypatch.setattr(execute, "reached", self.reached)
        monkeypatch.setattr(trial, "round_trip", lambda *_: "run")
        monkeypatch.setattr(stacks, "drift", lambda *_: self.drift)
        monkeypatch.setattr(hosts, "wait_online", lambda *_: [Host("i-1", "InService", "Healthy", True)])
        monkeypatch.setattr(hosts, "run", self.run)
        monkeypatch.setattr(tunnel, "check_plugin", lambda: None)

    def call(self, cloud: Cloud, service: str, operation: str, **arguments: Any) -> Any:
        client = cloud.client(service)
        model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation])
        validate_parameters(arguments, model.input_shape)
        validate_parameters(self.answers[f"{service} {operation}"], model.output_shape)
        return self.answers[f"{service} {operation}"]

    def run(self, _cloud: Any, host: str, script: str, *_: Any) -> str:
        assert host == "i-1"
        (output,) = (text for key, text in self.on_host.items() if key in script)
        return output

    @contextmanager
    def reached(self, *_: Any) -> Iterator[Address]:
        if self.tunnel:
            raise AwsError(self.tunnel)
        yield Address("127.0.0.1", 1)

    def found(self, cloud: Cloud, say: Say) -> dict[str, selftest.Outcome]:
        return {one.promise: one for one in selftest.walk(cloud, "lab", say)}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Account:
    return Account(monkeypatch)


def database(**changed: Any) -> Callable[[Account], None]:
    return lambda lab: lab.answers["rds describe_db_instances"]["DBInstances"][0].update(changed)


def answers(key: str, answer: dict[str, Any]) -> Callable[[Account], None]:
    return lambda lab: lab.answers.update({key: answer})


def host_says(key: str, text: str) -> Callable[[Account], None]:
    return lambda lab: lab.on_host.update({key: text})


BROKEN: list[tuple[str, Callable[[Account], Any]]] = [
    ("the stacks are as the templates", lambda lab: lab.drift.append("Bucket: MODIFIED")),
    ("the database is private and protected", database(PubliclyAccessible=True)),
    ("the database is private and protected", database(DeletionProtection=False)),
    (
        "any time of the last days can be restored",
        database(LatestRestorableTime=datetime.now(UTC) - timedelta(hours=2)),
    ),
    ("any time of the last days can be restored", database(BackupRetentionPeriod=0)),
    ("the master password is rotated", answers("secretsmanager describe_secret", {"RotationEnabled": False})),
    ("the master password is rotated", answers("secretsmanager describe_secret", {})),
    (
        "hosts are in service, and replaced",
        answers("autoscaling describe_auto_scaling_groups", group(SuspendedProcesses=[{"ProcessName": "HealthCheck"}])),
    ),
    ("hosts are in service, and replaced", answers("autoscaling describe_auto_scaling_groups", group(Instances=[]))),
    ("hosts are in service, and replaced", answers("autoscaling describe_lifecycle_hooks", {"LifecycleHooks": []})),
    ("hosts are in service, and replaced", answers("elbv2 describe_target_health", health("unhealthy"))),
    ("the prices of `plan` are AWS's", answers("pricing get_products", price_list(host="0.0090", database="0.016"))),
    ("the prices of `plan` are AWS's", answers("pricing get_products", price_list(host="0.0084", database="0.017"))),
    ("the prices of `plan` are AWS's", answers("pricing get_products", price_list(host="0.0084"))),
    (
        "the bucket is private",
        answers("s3 get_public_access_block", {"PublicAccessBlockConfiguration": {"BlockPublicAcls": False}}),
    ),
    ("the bucket is private", answers("s3 get_bucket_versioning", {})),
    (
        "a host has no open port",
        answers(
            "ec2 describe_security_groups",
            {"SecurityGroups": [{"IpPermissions": [{"FromPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}]},
        ),
    ),
    ("a host reads its own parameters alone", host_says("ssm get-parameter", "/lab/DB_HOST\nParameterNotFound")),
    ("no secret is in docker inspect", host_says("docker inspect", "2")),
    ("Amazon Linux has what a host needs", host_says("rpm -q", "package docker is not installed\nactive\nactive")),
    ("the log arrives", answers("logs filter_log_events", {"events": []})),
    (
        "the alarms have metrics",
        answers(
            "cloudwatch describe_alarms",
            {
                "MetricAlarms": [
                    {
                        "AlarmName": "lab-app-Disk-3C4D",
                        "AlarmDescription": "Headrace lab: disk",
                        "StateValue": "INSUFFICIENT_DATA",
                    }
                ]
            },
        ),
    ),
    (
        "hosts run an image by its digest",
        lambda lab: setattr(lab, "app", APP._replace(parameters=PARAMETERS | {"Image": "x:latest"})),
    ),
]


def test_a_deployment_that_keeps_them_all(cloud: Cloud, say: Say, lab: Account) -> None:
    found = lab.found(cloud, say)
    assert {one.ok for one in found.values()} == {True}, found
    assert {promise for promise, _ in BROKEN} | {"a run can be logged"} == found.keys(), "each can be broken below"


@pytest.mark.parametrize(("promise", "breaks"), BROKEN)
def test_a_broken_promise_is_found(
    cloud: Cloud, say: Say, lab: Account, promise: str, breaks: Callable[[Account], None]
) -> None:
    breaks(lab)
    assert [one.promise for one in lab.found(cloud, say).values() if one.ok is not True] == [promise]


def test_what_was_there_before_is_not_the_deployments_promise(cloud: Cloud, say: Say, lab: Account) -> None:
    lab.data = DATA._replace(parameters={"ExistingDatabase": "theirs", "ExistingBucket": ""})
    for _, breaks in BROKEN[1:3]:
        breaks(lab)
    answers("s3 get_bucket_versioning", {})(lab)
    found = lab.found(cloud, say)
    theirs, ours = found["the database is private and protected"], found["the bucket is private"]
    assert theirs.ok is None
    assert theirs.seen.endswith("it was there before, and the deployment leaves it as it is")
    assert ours.ok is False


def test_of_a_machine_that_plan_does_not_price_none_is_promised(cloud: Cloud, say: Say, lab: Account) -> None:
    database(DBInstanceClass="db.t3.micro")(lab)
    answers("pricing get_products", price_list(host="0.0084"))(lab)
    found = lab.found(cloud, say)["the prices of `plan` are AWS's"]
    assert found.ok
    assert found.seen == "us-east-1: t4g.micro 0.0084 USD an hour, AWS's 0.0084; db.t3.micro is none of `plan`'s"


@pytest.mark.parametrize(("keys", "algorithm"), [("aws-managed", "AES256"), ("customer-managed", "aws:kms")])
def test_the_bucket_is_encrypted_as_was_chosen(cloud: Cloud, say: Say, lab: Account, keys: str, algorithm: str) -> None:
    lab.data = DATA._replace(parameters={"Keys": keys})
    (rule,) = lab.answers["s3 get_bucket_encryption"]["ServerSideEncryptionConfiguration"]["Rules"]
    for given in ("AES256", "aws:kms"):
        rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] = given
        assert lab.found(cloud, say)["the bucket is private"].ok is (given == algorithm)


def test_what_can_not_be_looked_at_is_no_verdict(cloud: Cloud, say: Say, lab: Account) -> None:
    lab.tunnel = "AWS refused ssm:StartSession for arn:aws:iam::123456789012:user/me\nAsk for it."
    found = lab.found(cloud, say)["a run can be logged"]
    assert (found.ok, found.seen) == (None, "AWS refused ssm:StartSession for arn:aws:iam::<account>:user/me")


def test_the_table_can_be_sent(lab: Account) -> None:
    environment = {"AWS_REGION": "eu-west-1"}
    done = CliRunner().invoke(aws, ["selftest", "--name", "lab"], env=environment)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "in eu-west-1" in done.stdout
    rows = [line for line in done.stdout.splitlines() if " | kept | " in line]
    assert len(rows) == len(selftest.PROMISES)
    assert "123456789012" not in done.stdout
    lab.drift = ["Bucket: MODIFIED | by hand"]
    done = CliRunner().invoke(aws, ["selftest", "--name", "lab"], env=environment)
    assert done.exit_code == 1
    assert "| NOT KEPT | Bucket: MODIFIED / by hand; " in done.stdout
    done = CliRunner().invoke(aws, ["selftest", "--name", "lab", "--json"], env=environment)
    assert len(json.loads(done.stdout)["promises"]) == len(selftest.PROMISES)
