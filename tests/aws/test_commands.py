"""`headrace aws` against moto's account: export, plan, up, status, connect, down, as processes."""

from __future__ import annotations

import ipaddress
import json
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import requests
from botocore.stub import Stubber
from click.testing import CliRunner

from headrace.aws import execute, hosts, images, journal, plan, stacks
from headrace.aws.client import Cloud
from headrace.aws.deployment import AWS_KEYS_LACK, Choices
from headrace.cli.aws import PAST_THE_TUNNEL, aws
from headrace.errors import AwsError, ConfigurationError
from tests.aws.conftest import Account
from tests.aws.host import HostStandIn
from tests.support import tls
from tests.support.postgres import Postgres
from tests.support.processes import Process, free_port, wait_until
from tests.support.servers import SCRIPTS, Server

NAME = "mlflow"
IMAGE = "example.org/headrace@sha256:" + 64 * "1"
DOMAIN = "mlflow.example.org"
OTHER_IMAGE = "example.org/headrace@sha256:" + 64 * "2"


def test_export_needs_no_account(account: Account) -> None:
    for what in ("data", "app"):
        done = account.run("export", what, plugin=False)
        assert done.returncode == 0
        assert "Resource" in done.stdout


def test_exported_policies_can_be_used_as_they_are(account: Account) -> None:
    for region, partition in (("us-east-1", "aws"), ("us-gov-west-1", "aws-us-gov")):
        for what in ("deployer-policy", "deployer-policy-2", "connect-policy"):
            done = account.run(
                "export", what, "--region", region, "--account", "210987654321", "--name", "ours", plugin=False
            )
            text = done.stdout
            assert f"arn:{partition}:" in text
            assert not re.search(
                r"PARTITION|ACCOUNT|REGION|NAME|arn:aws:" if partition != "aws" else r"ACCOUNT|NAME", text
            )
            assert len(json.dumps(json.loads(text), separators=(",", ":"))) < 6_144, "IAM's limit of a managed policy"
    assert '"210987654321"' not in text
    done = account.run("export", "connect-policy", plugin=False)
    assert "123456789012" in done.stdout  # of the credentials


def test_a_plan_changes_nothing(account: Account) -> None:
    done = account.run("plan", "--json", "--image", IMAGE)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    changed = {change["resource"]: change["action"] for step in shown["steps"] for change in step["changes"]}
    assert changed["Database"] == changed["Bucket"] == "Add"
    assert shown["keys"] == "aws-managed"
    assert shown["monthly_usd"] <= 25 < shown["monthly_usd_without_allowance"]
    done = account.run("plan", "--image", IMAGE)
    assert "  together, without *                               24.80\n" in done.stdout
    assert f"{AWS_KEYS_LACK}.\n--keys customer-managed makes a key of its own, for 1.00" in done.stdout
    assert account.cloud().call("cloudformation", "describe_stacks")["Stacks"] == []


def test_up_without_the_plugin_says_how_to_install_it(account: Account) -> None:
    done = account.run("up", "--yes", plugin=False)
    assert done.returncode == 4
    assert "session-manager-plugin is not installed" in done.stderr
    assert "Install it:" in done.stderr
    assert account.cloud().call("cloudformation", "describe_stacks")["Stacks"] == []


def test_up_asks_first(account: Account) -> None:
    done = account.run("up", "--image", IMAGE, given="n\n")
    assert done.returncode == 130
    assert "Deploy this to us-east-1 of account 123456789012?" in done.stderr
    assert account.cloud().call("cloudformation", "describe_stacks")["Stacks"] == []


def test_the_doctor_finds_what_is_missing(account: Account) -> None:
    done = account.run("doctor", plugin=False)
    assert done.returncode == 1
    assert "ok   credentials: arn:aws:sts::123456789012:" in done.stdout
    assert "ok   region: us-east-1" in done.stdout
    assert "FAIL session-manager-plugin" in done.stdout
    assert "Install it:" in done.stdout
    assert "?    permissions: could not be looked at" in done.stdout  # moto does not simulate policies


def test_logs_are_printed_in_their_order(account: Account) -> None:
    nothing = account.run("logs")
    assert nothing.returncode == 4
    assert "There is no log group /headrace/mlflow in us-east-1" in nothing.stderr
    cloud = account.cloud()
    cloud.call("logs", "create_log_group", logGroupName="/headrace/mlflow")
    cloud.call("logs", "create_log_stream", logGroupName="/headrace/mlflow", logStreamName="host")
    now = int(time.time() * 1000)
    lines = [
        {"timestamp": now - age, "message": text} for age, text in ((7_200_000, "old"), (2000, "one"), (1000, "two"))
    ]
    cloud.call("logs", "put_log_events", logGroupName="/headrace/mlflow", logStreamName="host", logEvents=lines)
    assert account.run("logs").stdout == "one\ntwo\n"
    assert account.run("logs", "--since", "3h").stdout == "old\none\ntwo\n"
    assert account.run("logs", "--since", "soon").returncode == 2


def test_a_log_is_followed(account: Account) -> None:
    """Each line once, though the last seconds are looked at again."""
    cloud = account.cloud()
    where = {"logGroupName": "/headrace/mlflow", "logStreamName": "host"}
    cloud.call("logs", "create_log_group", logGroupName="/headrace/mlflow")
    cloud.call("logs", "create_log_stream", **where)

    def put(text: str) -> None:
        line = {"timestamp": int(time.time() * 1000), "message": text}
        cloud.call("logs", "put_log_events", **where, logEvents=[line])

    put("one")
    log = account.folder / "followed"
    process = Process([SCRIPTS / "headrace", "aws", "logs", "-f", "--json"], log, env=account.environment())
    try:
        process.wait_until(lambda: "one" in process.tail(), "what was there is printed")
        put("two")
        process.wait_until(lambda: "two" in process.tail(), "what comes is printed")
        put("three")
        process.wait_until(lambda: "three" in process.tail(), "it goes on")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    finally:
        process.stop()
    lines = [json.loads(line)["message"] for line in process.tail().splitlines() if line.startswith("{")]
    assert lines == ["one", "two", "three"]


def test_images_are_pinned_by_their_digest(account: Account) -> None:
    cloud = account.cloud()
    assert not images.repository_exists(cloud, NAME)
    latest = images.full_name(cloud, NAME, None)
    assert latest == "123456789012.dkr.ecr.us-east-1.amazonaws.com/mlflow:latest"
    assert images.pinned(cloud, NAME, latest) is None
    cloud.call("ecr", "create_repository", repositoryName=NAME)
    assert images.repository_exists(cloud, NAME)
    assert images.pinned(cloud, NAME, latest) is None
    manifest = (
        '{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {}, "layers": []}'
    )
    cloud.call("ecr", "put_image", repositoryName=NAME, imageManifest=manifest, imageTag="latest")
    pinned = images.pinned(cloud, NAME, latest)
    assert pinned is not None
    assert pinned.startswith("123456789012.dkr.ecr.us-east-1.amazonaws.com/mlflow@sha256:")
    assert images.pinned(cloud, NAME, "example.org/other:1") == "example.org/other:1"
    first = plan.up(cloud, Choices(), print)[0]  # moto's change sets know no conditions
    assert isinstance(first, plan.MakeStack)
    assert first.parameters["MakeRepository"] == "false", "a pipeline has made it before"


def test_what_runs_keeps_a_tag_that_the_lifecycle_rule_spares(account: Account) -> None:
    cloud = account.cloud()
    cloud.call("ecr", "create_repository", repositoryName=NAME)
    kind = "application/vnd.oci.image.index.v1+json"
    said: list[str] = []
    made = []
    for version in ("1", "2", "3"):
        index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [], "annotations": {"v": version}})
        cloud.call("ecr", "put_image", repositoryName=NAME, imageManifest=index, imageTag=version)
        made.append(images.pinned(cloud, NAME, images.full_name(cloud, NAME, version)))
    one, two, three = (str(image) for image in made)

    def tagged() -> dict[str, str]:
        found = cloud.call("ecr", "describe_images", repositoryName=NAME)["imageDetails"]
        return {tag: item["imageDigest"] for item in found for tag in item["imageTags"] if tag.startswith("headrace-")}

    for running, previous in ((one, ""), (two, one), (two, one), (three, two), (two, three)):
        images.keep(cloud, NAME, running, previous, said.append)
        expected = {images.RUNNING: running} | ({images.PREVIOUS: previous} if previous else {})
        assert tagged() == {tag: image.partition("@")[2] for tag, image in expected.items()}
    images.keep(cloud, NAME, IMAGE, OTHER_IMAGE, said.append)
    assert said == []
    images.keep(cloud, NAME, one.replace(one[-8:], 8 * "0"), "", said.append)
    assert "has no" in said[0]
    assert "Push it again" in said[0]


def test_tags_that_can_not_be_moved_are_told(account: Account) -> None:
    cloud = account.cloud()
    image = images.full_name(cloud, NAME, None).removesuffix(":latest") + f"@sha256:{64 * '1'}"
    said: list[str] = []
    with Stubber(cloud.client("ecr")) as answers:
        for code in ("ImageAlreadyExistsException", "ImageTagAlreadyExistsException"):
            answers.add_response("batch_get_image", {"images": [{"imageManifest": "{}"}]})
            answers.add_client_error("put_image", code)
            images.keep(cloud, NAME, image, "", said.append)
    assert len(said) == 1
    assert "can't be moved" in said[0]


def subnets_in(cloud: Cloud, network: str, zones: str) -> tuple[str, dict[str, str]]:
    """A VPC, and its subnets with their ranges, one in each of the zones."""
    vpc = cloud.call("ec2", "create_vpc", CidrBlock=network)["Vpc"]["VpcId"]
    ranges = [str(one) for one in list(ipaddress.ip_network(network).subnets(new_prefix=26))[: len(zones)]]
    made = {}
    for zone, one in zip(zones, ranges, strict=True):
        where = {"VpcId": vpc, "CidrBlock": one, "AvailabilityZone": f"us-east-1{zone}"}
        made[str(cloud.call("ec2", "create_subnet", **where)["Subnet"]["SubnetId"])] = one
    return vpc, made


@pytest.mark.parametrize("network", ["10.9.0.0/16", "100.64.0.0/16", "198.51.100.0/24"])
def test_the_balancer_of_any_network_is_believed_and_nobody_else(account: Account, network: str) -> None:
    """A VPC may have public addresses; and behind an internal balancer 10.0.0.0/8 has clients, too."""
    cloud = account.cloud()
    vpc, made = subnets_in(cloud, network, "aba")
    a, b, c = made
    choices = Choices(vpc_id=vpc, app_subnet_ids=f"{a},{b}", image=IMAGE)
    for balancer, ranges in ((None, [made[a], made[b]]), (f"{c},{b}", [made[b], made[c]])):
        steps = plan.up(cloud, replace(choices, balancer_subnet_ids=balancer), print)
        (app,) = [step.stack.parameters for step in steps if isinstance(step, plan.MakeApp)]
        assert sorted(app["TrustedProxies"].split(",")) == sorted(ranges)


def test_a_network_that_aws_would_refuse_later_is_refused_before(account: Account) -> None:
    """RDS says minutes later that a group of subnets "doesn't meet Availability Zone (AZ) coverage requirement"."""
    cloud = account.cloud()
    vpc, (a, b, a2) = subnets_in(cloud, "10.9.0.0/16", "aba")
    _, (elsewhere,) = subnets_in(cloud, "10.8.0.0/16", "b")
    behind: dict[str, Any] = {
        "ingress": "alb",
        "domain": DOMAIN,
        "allow_cidr": "10.0.0.0/8",
        "database_subnet_ids": f"{a},{b}",
    }
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"app_subnet_ids": a}, "--database-subnet-ids: .* is in us-east-1a alone, and RDS needs"),
        ({"app_subnet_ids": a, "database_subnet_ids": f"{a},{a2}"}, "is in us-east-1a alone, and RDS needs"),
        ({**behind, "app_subnet_ids": f"{a},{a2}"}, "--app-subnet-ids: .* and the balancer needs subnets in two zones"),
        ({**behind, "app_subnet_ids": a, "balancer_subnet_ids": a2}, "--balancer-subnet-ids: .* in us-east-1a alone"),
        ({"app_subnet_ids": f"{a},{elsewhere}", "database_subnet_ids": f"{a},{b}"}, f"{elsewhere} is not in {vpc}"),
    )
    for more, says in wrong:
        with pytest.raises(ConfigurationError, match=says):
            plan.up(cloud, Choices(vpc_id=vpc, image=IMAGE, **more), print)
    # a host needs one zone alone
    plan.up(cloud, Choices(vpc_id=vpc, image=IMAGE, app_subnet_ids=a, database_subnet_ids=f"{a},{b}"), print)
    with pytest.raises(AwsError, match=r"InvalidSubnetID\.NotFound"):
        plan.up(cloud, Choices(vpc_id=vpc, image=IMAGE, app_subnet_ids="subnet-0000"), print)


@pytest.mark.parametrize(
    ("arn", "says"),
    [
        ("arn:aws:acm:us-west-2:123456789012:certificate/1", "is of us-west-2, and a balancer in us-east-1 takes"),
        ("arn:aws:iam::123456789012:server-certificate/1", "is no ARN of a certificate"),
        ("certificate/1", "is no ARN of a certificate"),
    ],
)
def test_a_certificate_of_another_region_is_refused_before(account: Account, arn: str, says: str) -> None:
    choices = Choices(ingress="alb", domain=DOMAIN, allow_cidr="10.0.0.0/8", certificate_arn=arn, image=IMAGE)
    with pytest.raises(ConfigurationError, match=says):
        plan.up(account.cloud(), choices, print)


@pytest.mark.parametrize(
    ("built", "host"), [(["amd64"], "t3.micro"), (["amd64", "arm64"], "t4g.micro"), (["riscv64"], "t4g.micro")]
)
def test_hosts_are_of_the_images_architecture(account: Account, built: list[str], host: str) -> None:
    cloud = account.cloud()
    cloud.call("ecr", "create_repository", repositoryName=NAME)
    kind = "application/vnd.oci.image.index.v1+json"
    manifests = [{"digest": f"sha256:{64 * '0'}", "platform": {"architecture": one}} for one in built]
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests})
    cloud.call("ecr", "put_image", repositoryName=NAME, imageManifest=index, imageTag="latest")
    steps = plan.up(cloud, Choices(), print)
    (app,) = [step.stack.parameters for step in steps if isinstance(step, plan.MakeApp)]
    assert app["InstanceType"] == host


def test_the_architecture_of_an_image_for_one_alone(account: Account) -> None:
    cloud = account.cloud()
    image = images.full_name(cloud, NAME, "1.0")
    manifest = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": {"digest": f"sha256:{64 * '1'}"}}
    with Stubber(cloud.client("ecr")) as answers:
        answers.add_response("describe_images", {"imageDetails": [{"imageDigest": f"sha256:{64 * '2'}"}]})
        answers.add_response("batch_get_image", {"images": [{"imageManifest": json.dumps(manifest)}]})
        answers.add_response("get_download_url_for_layer", {"downloadUrl": 'data:,{"architecture":"amd64"}'})
        assert images.architecture(cloud, NAME, image) == "x86_64"


@pytest.mark.parametrize("name", ["DB_USER", "BUCKET"])
def test_parameters_that_are_somebodys_are_found_before_anything_is_made(account: Account, name: str) -> None:
    """The project's first deployment had them, made by hand."""
    cloud = account.cloud()
    cloud.put_parameter(f"/mlflow/{name}", "of the first deployment", "by hand")
    with pytest.raises(ConfigurationError, match=f"has /mlflow/{name} already") as refused:
        plan.up(cloud, Choices(image=IMAGE), print)
    assert "another --name (such as mlflow-2)" in str(refused.value)
    assert f"aws ssm delete-parameters --region us-east-1 --names /mlflow/{name}" in str(refused.value)
    plan.up(cloud, Choices(name="mlflow-2", image=IMAGE), print)


@pytest.fixture
def deployed(account: Account, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """An account with both stacks."""
    monkeypatch.setattr("headrace.aws.client.time.sleep", lambda _: None)
    cloud = account.cloud()
    for kind in (plan.MakeStack, plan.MakeApp):  # the second is planned once the first is there
        for step in plan.up(cloud, Choices(image=IMAGE), print):
            if isinstance(step, kind):
                execute.Live(cloud, print).take(step)
    return cloud


def test_a_database_that_has_grown_is_asked_for_no_less(deployed: Cloud) -> None:
    """RDS makes no disk smaller, and a change that asks for it fails in the middle."""
    identifier = outputs(deployed, "mlflow-data")["DatabaseId"]
    for grown, storage, limit in ((40, "50", "250"), (300, "300", "375")):
        asked = {"DBInstanceIdentifier": identifier, "AllocatedStorage": grown, "ApplyImmediately": True}
        deployed.call("rds", "modify_db_instance", **asked)
        data = next(one for one in plan.up(deployed, Choices(size="team"), print) if isinstance(one, plan.MakeStack))
        assert (data.parameters["DatabaseStorage"], data.parameters["DatabaseStorageLimit"]) == (storage, limit)


def test_what_a_killed_upgrade_has_left_is_told(deployed: Cloud, account: Account) -> None:
    group = outputs(deployed, "mlflow-app")["Hosts"]
    deployed.call("autoscaling", "suspend_processes", AutoScalingGroupName=group, ScalingProcesses=["ReplaceUnhealthy"])
    journal.begin(deployed, NAME, IMAGE, OTHER_IMAGE)
    shown = account.run("status").stdout
    assert "group    ReplaceUnhealthy suspended, by an upgrade or restore under way, or killed" in shown
    assert f"upgrade  to {OTHER_IMAGE} is under way, or was broken off: `headrace aws upgrade {OTHER_IMAGE}`" in shown
    up = account.run("up", "--yes")
    assert up.returncode == 2
    assert f"An upgrade of mlflow-app from {IMAGE} to {OTHER_IMAGE} was broken off" in up.stderr
    assert "`headrace aws rollback` takes it back" in up.stderr
    journal.end(deployed, NAME)
    said: list[str] = []
    hosts.renew(deployed, execute.required(deployed, "mlflow-app"), said.append)  # of the next `up`
    assert said == ["the group replaces unhealthy hosts again"]
    assert "suspended" not in account.run("status").stdout


def image_of(account: Account) -> str:
    app = stacks.find(account.cloud(), "mlflow-app")
    assert app is not None
    return app.parameters["Image"]


def outputs(cloud: Cloud, stack: str) -> dict[str, str]:
    found = cloud.call("cloudformation", "describe_stacks", StackName=stack)["Stacks"][0]["Outputs"]
    return {item["OutputKey"]: item["OutputValue"] for item in found}


def test_up_status_connect_balancer_upgrade_rollback_down(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole life of a deployment. One test, since each step stands on the one before."""
    postgres = Postgres()
    postgres.start()
    host = HostStandIn(account, postgres, tmp_path, domain=DOMAIN)
    try:
        postgres.execute("CREATE ROLE headrace_master LOGIN CREATEDB CREATEROLE")
        _up_broken_off(account)
        host.start()
        _up(account, host)
        _up_again_changes_nothing(account)
        _status(account, monkeypatch)
        _connect(account)
        _larger_and_in_the_vpc(account)
        _balancer(account, host, monkeypatch)
        _upgrade_and_back(account)
        _down(account)
    finally:
        host.stop()
        postgres.remove()


def _up_broken_off(account: Account) -> None:
    """By Ctrl-C, while it waits for a server that does not come."""
    command: list[str | Path] = [SCRIPTS / "headrace", "aws", "up", "--yes", "--image", IMAGE]
    process = Process(command, account.folder / "up.log", env=account.environment())
    process.wait_until(lambda: "waiting for the server" in process.tail(), "it waits for the server")
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait() == 130
    finally:
        process.stop()
    assert "Broken off." in process.tail()
    assert "Traceback" not in process.tail()


def _up(account: Account, host: HostStandIn) -> None:
    done = account.run("up", "--yes", "--image", IMAGE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "logged a param and an artifact, and read them back" in done.stderr
    assert "export MLFLOW_TRACKING_URI=http://localhost:5000" in done.stdout
    parameters = host.parameters()
    secrets = [parameters["DB_PASS"], parameters["ADMIN_TOKEN"]]
    assert all(len(secret) > 40 and secret not in done.stdout + done.stderr for secret in secrets)
    cloud = account.cloud()
    kinds = cloud.call("ssm", "get_parameters", Names=["/mlflow/DB_PASS", "/mlflow/ADMIN_TOKEN"])["Parameters"]
    assert {item["Type"] for item in kinds} == {"SecureString"}
    bucket = outputs(cloud, "mlflow-data")["Bucket"]
    stored = [item["Key"] for item in cloud.pages("s3", "list_objects_v2", "Contents", Bucket=bucket)]
    assert any(key.endswith("/artifacts/trial.txt") for key in stored)
    with psycopg2.connect(host="127.0.0.1", port=host.postgres.port, user="mlflow", dbname="mlflow") as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM params WHERE key = 'trial'")
        assert cursor.fetchone() == (1,)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("DROP TABLE params")
    connection.close()


def _up_again_changes_nothing(account: Account) -> None:
    done = account.run("up")  # it does not ask: there is nothing to decide
    assert done.returncode == 0, done.stderr
    assert "stack mlflow-data: as it should be" in done.stderr
    assert "stack mlflow-app: as it should be" in done.stderr


def _status(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    done = account.run("status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["silenced"] is False
    assert found["image"] == IMAGE
    assert [host["online"] for host in found["hosts"]] == [True]
    assert found["database"]["DBInstanceStatus"] == "available"
    assert "mlflow-app" in account.run("status").stdout
    with monkeypatch.context() as patched:  # moto compares nothing: test_stacks.py
        patched.setattr(stacks, "drift", lambda _, stack: [f"a resource of {stack}"])
        for name, value in account.environment().items():
            patched.setenv(name, value)
        shown = CliRunner().invoke(aws, ["status", "--drift"])
    assert "changed by hand: a resource of mlflow-data" in shown.output, shown.exception
    assert "changed by hand: a resource of mlflow-app" in shown.output


def _larger_and_in_the_vpc(account: Account) -> None:
    """Another size, ingress, mails and a boundary: hosts are replaced, and people are told an address.

    The tag is lost in moto: test_stacks.py.
    """
    cloud = account.cloud()
    vpc = outputs(cloud, "mlflow-data")["VpcId"]
    group = cloud.call("ec2", "create_security_group", GroupName="jobs", Description="jobs", VpcId=vpc)["GroupId"]
    before = json.loads(account.run("status", "--json").stdout)["hosts"]
    boundary = "arn:aws:iam::123456789012:policy/limit"
    options = ["--size", "team", "--ingress", "vpc", "--allow-security-group", group, "--tag", "team=ml"]
    options += ["--alarm-email", "ann@example.org", "--permissions-boundary", boundary, "--backup-days", "3"]
    done = account.run("up", "--yes", *options)
    assert done.returncode == 0, done.stderr
    assert f"new hosts for {before[0]['id']}, one by one" in done.stderr
    assert re.search(r"in the VPC: http://10\.71\.\d+\.\d+:5000", done.stdout)
    topics = cloud.pages("sns", "list_subscriptions", "Subscriptions")  # which moto calls confirmed: test_alarm_mail.py
    assert [one["Endpoint"] for one in topics] == ["ann@example.org"]
    found = json.loads(account.run("status", "--json").stdout)
    assert [one["id"] for one in found["hosts"]] != [one["id"] for one in before]
    assert found["database"]["DBInstanceClass"] == "db.t4g.medium"
    assert found["keys"] == "aws-managed", "the size does not change them"
    assert len(found["in_vpc"]) == 1


def _connect(account: Account) -> None:
    _connected_until(account, signal.SIGTERM)
    _connected_until(account, signal.SIGHUP)  # its terminal closes
    assert _connected_until(account, signal.SIGINT) == "headrace: Broken off. The tunnel is closed."


def _connected_until(account: Account, ends: signal.Signals) -> str:
    """What it says last."""
    port = free_port()
    command: list[str | Path] = [SCRIPTS / "headrace", "aws", "connect", "--port", str(port)]
    process = Process(command, account.folder / "connect.log", env=account.environment())
    try:
        server = Server("connect", f"http://127.0.0.1:{port}", process)
        process.wait_until(lambda: server.answers("/health"), "the tunnel leads to the server")
        process.wait_until(lambda: "Session Manager forwards less than 1 MB a second" in process.tail(), "it says so")
        assert all(f"export {name}={value}" in process.tail() for name, value in PAST_THE_TUNNEL.items())
        process.send_signal(ends)
        assert process.wait() == 128 + ends
        wait_until(lambda: not server.answers("/health"), "the plugin has ended, too")
    finally:
        process.stop()
    return "\n".join(process.tail().splitlines()[-1:])


def _balancer(account: Account, host: HostStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """`up --ingress alb` ends with a run over HTTPS. In this process, so that the balancer's port can be another."""
    certificate, key = tls.certificate(account.folder, DOMAIN)
    acm = account.cloud().client("acm")
    arn = acm.import_certificate(Certificate=certificate.read_bytes(), PrivateKey=key.read_bytes())["CertificateArn"]
    options = ["--ingress", "alb", "--domain", DOMAIN, "--certificate-arn", arn, "--allow-cidr", "203.0.113.0/24"]
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    proxy = tls.TLSProxy(host.port, certificate, key)
    proxy.start()
    monkeypatch.setattr("headrace.aws.execute.HTTPS_PORT", proxy.port)
    monkeypatch.setattr("headrace.aws.domain.leads", lambda *_: True)  # the world's name servers: test_domain.py
    try:
        distrusted = CliRunner().invoke(aws, ["up", "--yes", *options])
        assert f"is no good for https://{DOMAIN}: self-signed certificate" in str(distrusted.exception)
        assert proxy.served == 0
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        done = CliRunner().invoke(aws, ["up"])
        assert done.exit_code == 0, (done.output, done.exception)
        assert f"https://{DOMAIN}: run " in done.output
        assert f"export MLFLOW_TRACKING_URI=https://{DOMAIN}\n" in done.output
        assert proxy.served > 5, "health, experiment, run, param, artifact there and back"
    finally:
        proxy.stop()
    said: list[str] = []
    cloud = account.cloud()
    with execute.reached(cloud, execute.required(cloud, "mlflow-app"), said.append) as address:  # nobody answers now
        assert address.url.startswith("http://127.0.0.1:")
    assert "may be outside --allow-cidr (203.0.113.0/24)" in said[0]


def _upgrade_and_back(account: Account) -> None:
    done = account.run("upgrade", OTHER_IMAGE, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"image": OTHER_IMAGE}
    snapshots = account.cloud().call("rds", "describe_db_snapshots", SnapshotType="manual")["DBSnapshots"]
    assert len(snapshots) == 1
    assert image_of(account) == OTHER_IMAGE
    failed = account.run("upgrade", "example.org/headrace-test-fails:1", "--yes")
    assert failed.returncode == 4
    assert f"{OTHER_IMAGE} runs on" in failed.stderr
    assert "run_container: not healthy" in failed.stderr
    assert image_of(account) == OTHER_IMAGE
    refused = account.run("up", "--yes", "--image", IMAGE)
    assert refused.returncode == 2
    assert f"`headrace aws upgrade {IMAGE}` changes that" in refused.stderr
    assert json.loads(account.run("rollback", "--yes", "--json").stdout) == {"image": IMAGE}


def _down(account: Account) -> None:
    cloud = account.cloud()
    bucket = outputs(cloud, "mlflow-data")["Bucket"]
    done = account.run("down", "--yes")
    assert done.returncode == 0, done.stderr
    assert [stack["StackName"] for stack in cloud.call("cloudformation", "describe_stacks")["Stacks"]] == [
        "mlflow-data"
    ]
    assert cloud.call("s3", "list_objects_v2", Bucket=bucket)["KeyCount"] > 0
    wrong = account.run("down", "--delete-data", given="mlflow\n")
    assert wrong.returncode == 1
    assert "nothing was deleted" in wrong.stderr
    assert cloud.call("s3", "list_objects_v2", Bucket=bucket)["KeyCount"] > 0
    gone = account.run("down", "--delete-data", given="mlflow-data\n")
    assert gone.returncode == 0, gone.stderr
    assert "delete-db-snapshot" in gone.stdout
    assert "delete-db-instance-automated-backup --region us-east-1 --dbi-resource-id db-" in gone.stdout
    assert cloud.call("s3", "list_buckets")["Buckets"] == []
    assert requests.get(account.url, timeout=60).status_code < 500
