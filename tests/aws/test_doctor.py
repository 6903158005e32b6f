"""`headrace aws doctor` where moto can't answer: IAM's simulation, which refuses some actions together as AWS does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import urllib.error
from collections.abc import Iterator
from email.message import Message
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.stub import Stubber

from headrace.aws import doctor, stacks, templates, tunnel
from headrace.aws.client import Answer, Cloud
from headrace.aws.stacks import Stack
from headrace.errors import AwsError
from tests.support import session_manager_plugin

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_1"
USER = "AROAEXAMPLE:ann"
CALLER = {
    "Account": ACCOUNT,
    "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/AWSReservedSSO_Admin_1/ann",
    "UserId": USER,
}
OWN = "ssm:resourceTag/aws:ssmmessages:session-id"


class Simulating(Cloud):
    """IAM alone. The caller has the deployer's policies, but for `denied`.

    It takes actions of one service only at a time, knows every action but `unknown`, and of a call what it is told.
    """

    def __init__(self, denied: str = "", unknown: str = "", boundary: str | None = None) -> None:
        super().__init__("us-east-1")
        self.denied, self.unknown = denied, unknown
        self.asked: list[Answer] = []
        place = templates.Place("aws", ACCOUNT, "us-east-1", "lab")
        given = [json.loads(templates.policy(one, place, boundary)) for one in templates.DEPLOYER_POLICIES]
        told = json.loads(json.dumps(given).replace("${aws:userid}", USER))
        self.statements = [one for policy in told for one in policy["Statement"]]

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        if operation == "list_roles":
            yield {"RoleName": "AWSReservedSSO_Admin_1", "Arn": ROLE}
            return
        assert operation == "simulate_principal_policy"
        assert arguments["PolicySourceArn"] == ROLE
        assert not [action for action in arguments["ActionNames"] if "*" in action], "IAM: InvalidInput"
        if len({action.split(":")[0] for action in arguments["ActionNames"]}) > 1 or (
            self.unknown in arguments["ActionNames"]
        ):
            raise AwsError("different authorization information", "InvalidInput")
        self.asked.append(arguments)
        context = {one["ContextKeyName"]: one["ContextKeyValues"][0] for one in arguments["ContextEntries"]}
        for action in arguments["ActionNames"]:
            good = action != self.denied and self.allows(action, arguments["ResourceArns"], context)
            yield {"EvalActionName": action, "EvalDecision": "allowed" if good else "implicitDeny"}

    def allows(self, action: str, resources: list[str], context: dict[str, str]) -> bool:
        if context.get("aws:userid") != USER:  # then ${aws:userid} is nothing
            context = {key: value for key, value in context.items() if key != OWN}
        return all(any(allows(one, action, resource, context) for one in self.statements) for resource in resources)


def allows(statement: Answer, action: str, resource: str, context: dict[str, str]) -> bool:
    conditions = [pair for given in statement.get("Condition", {}).values() for pair in given.items()]
    return (
        any(fnmatchcase(action, one) for one in doctor._listed(statement["Action"]))
        and any(fnmatchcase(resource, one) for one in doctor._listed(statement["Resource"]))
        and all(context.get(key) in doctor._listed(value) for key, value in conditions)
    )


def permissions(cloud: Cloud, boundary: str | None = None) -> doctor.Finding:
    return doctor._permissions(cloud, CALLER, "lab", (boundary,))


def test_permissions_are_asked_for_in_groups_that_iam_takes() -> None:
    cloud = Simulating()
    found = permissions(cloud)
    assert found.ok, found
    asked = {action: one for one in cloud.asked for action in one["ActionNames"]}
    assert asked["rds:CreateDBInstance"]["ResourceArns"][0] == f"arn:aws:rds:us-east-1:{ACCOUNT}:db:lab-data-*"
    context = {one["ContextKeyName"]: one["ContextKeyValues"] for one in asked["ec2:RunInstances"]["ContextEntries"]}
    assert context["aws:RequestedRegion"] == ["us-east-1"]


def test_ones_own_sessions_are_ones_own() -> None:
    """The policy lets people end the sessions that have their ${aws:userid}: IAM knows of a call what it is told."""
    cloud = Simulating()
    assert permissions(cloud).ok
    (asked,) = [one for one in cloud.asked if "ssm:TerminateSession" in one["ActionNames"]]
    context = {one["ContextKeyName"]: one["ContextKeyValues"] for one in asked["ContextEntries"]}
    assert context == {OWN: [USER], "aws:userid": [USER]}


def test_who_may_make_roles_within_a_boundary_only() -> None:
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/limit"
    assert permissions(Simulating(boundary=boundary), boundary).ok
    found = permissions(Simulating(boundary=boundary))
    assert found.ok is False, "without --permissions-boundary `up` would fail, too"
    assert "iam:CreateRole" in found.says
    assert permissions(Simulating(), boundary).ok, "who has no such limit may make a role within one"


def test_a_permission_that_is_missing_is_named_with_its_fix() -> None:
    found = permissions(Simulating(denied="rds:CreateDBInstance"))
    assert (found.ok, found.says) == (False, "not allowed: rds:CreateDBInstance")
    assert "headrace aws export deployer-policy" in found.fix


def test_an_action_that_iam_does_not_know_is_told() -> None:
    found = permissions(Simulating(unknown="ssm:StartSession"))
    assert found.ok
    assert "it does not know ssm:StartSession" in found.says


def test_the_root_user_is_not_asked_about() -> None:
    assert doctor._permissions(Simulating(), CALLER | {"Arn": f"arn:aws:iam::{ACCOUNT}:root"}, "lab").ok


def test_of_a_federated_user_nothing_is_claimed() -> None:
    cloud = Simulating()
    arn = f"arn:aws:sts::{ACCOUNT}:federated-user/ann"
    assert doctor._permissions(cloud, CALLER | {"Arn": arn}, "lab").ok is None
    assert cloud.asked == []


def test_where_stacks_can_not_be_looked_at_the_tools_are_all_the_same(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who may do nothing each finding is told."""

    def refuse(_: Cloud, service: str, operation: str, *__: Any, **___: Any) -> Answer:
        if operation == "get_caller_identity":
            return CALLER
        raise AwsError(f"AWS refused {service}:{operation} (AccessDenied)\nAsk for it", "AccessDenied")

    monkeypatch.setattr(Cloud, "call", refuse)
    monkeypatch.setattr(Cloud, "pages", refuse)
    monkeypatch.setattr(doctor, "_docker_hub", lambda: doctor.Finding("Docker Hub", True, ""))
    found = {one.what: one.ok for one in doctor.examine(cloud, "lab")}
    assert found["credentials"]
    assert {"session-manager-plugin", "arm64 images"} < found.keys()
    assert found["permissions"] is found["quota of VPCs"] is found["earlier tries"] is None


@pytest.mark.parametrize(
    ("system", "machine", "emulator", "ok"),
    [
        ("Linux", "x86_64", False, None),
        ("Linux", "x86_64", True, True),
        ("Linux", "aarch64", False, True),
        ("Darwin", "arm64", False, True),
    ],
)
def test_a_machine_that_can_not_build_for_arm64_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, machine: str, emulator: bool, ok: bool | None
) -> None:
    monkeypatch.setattr("headrace.aws.doctor.platform.system", lambda: system)
    monkeypatch.setattr("headrace.aws.doctor.platform.machine", lambda: machine)
    monkeypatch.setattr(doctor, "_EMULATOR", tmp_path if emulator else tmp_path / "none")
    found = doctor._emulation()
    assert found.ok is ok
    assert ("tonistiigi/binfmt" in found.fix) is (ok is None)


@pytest.mark.parametrize(
    ("version", "ok", "says"),
    [
        ("1.2.896.0", True, "is 1.2.896.0"),
        ("1.2.764.0", True, "is 1.2.764.0"),
        ("1.2.707.0", None, "the oldest that AWS supports is 1.2.764.0"),
        ("1.2.536.0", None, "the oldest that AWS supports is 1.2.764.0"),
        ("1.2.497.0", False, "is 1.2.497.0, which reads no session from its environment"),
        ("1.1.61.0", False, "is 1.1.61.0"),
        ("next", True, "is installed"),
    ],
)
def test_a_plugin_that_is_too_old_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, ok: bool | None, says: str
) -> None:
    session_manager_plugin.install(tmp_path, version)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = doctor._plugin()
    assert found.ok is ok
    assert says in found.says
    assert ("Install it" in found.fix) is (ok is not True)
    if ok is False:
        with pytest.raises(AwsError, match="reads no session"):
            tunnel.check_plugin()
    else:
        tunnel.check_plugin()


class Plan(Cloud):
    """An account of a plan, with a data stack or without."""

    def __init__(self, plan: str | AwsError, region: str = "us-east-1") -> None:
        super().__init__(region)
        self.plan = plan

    def call(self, service: str, operation: str, **arguments: Any) -> Answer:
        assert (service, operation) == ("freetier", "get_account_plan_state")
        if isinstance(self.plan, AwsError):
            raise self.plan
        return {"accountPlanType": self.plan, "accountPlanStatus": "ACTIVE"}


@pytest.mark.parametrize(
    ("plan", "days", "ok"),
    [
        ("FREE", None, False),
        ("FREE", "7", False),
        ("FREE", "1", True),
        ("PAID", None, True),
        (AwsError("no plan", "ResourceNotFoundException"), None, True),
    ],
)
def test_the_free_plan_is_told_before_rds_refuses(
    monkeypatch: pytest.MonkeyPatch, plan: str | AwsError, days: str | None, ok: bool
) -> None:
    stack = None if days is None else Stack("lab-data", "CREATE_COMPLETE", {"BackupDays": days}, {})
    monkeypatch.setattr("headrace.aws.stacks.find", lambda *_: stack)
    found = doctor._account_plan(Plan(plan), "lab")
    assert found.ok is ok
    assert ("--backup-days 1" in found.fix) is not ok


def test_govcloud_has_no_free_plan() -> None:
    """Its endpoint has no address: asked, it would be waited for."""
    found = doctor._account_plan(Plan(AssertionError("asked"), "us-gov-west-1"), "lab")  # type: ignore[arg-type]
    assert found.ok


@pytest.mark.parametrize("words", ["exceeds the maximum available to free tier customers", "with free plan accounts"])
def test_what_rds_says_of_the_free_plan_has_a_way_out(words: str) -> None:
    assert "or upgrade the plan" in stacks._next(f"FreeTierRestrictionError: it {words}")


class Hub:
    """Docker's two addresses, as urllib sees them."""

    def __init__(self, left: str | None, refused: int = 0) -> None:
        self.left, self.refused = left, refused

    def open(self, asked: Any, timeout: float) -> Any:
        assert timeout
        if isinstance(asked, str):
            return contextlib.closing(io.BytesIO(b'{"token": "t"}'))
        assert asked.get_method() == "HEAD"
        assert asked.headers == {"Authorization": "Bearer t"}
        if self.refused:
            raise urllib.error.HTTPError(asked.full_url, self.refused, "", Message(), None)
        answer = SimpleNamespace(headers={} if self.left is None else {"ratelimit-remaining": self.left}, close=bool)
        return contextlib.closing(answer)


@pytest.mark.parametrize(
    ("hub", "ok", "says"),
    [
        (Hub("97;w=21600"), True, "97 pulls are left"),
        (Hub("2;w=21600"), False, "2 pulls are left"),
        (Hub(None), True, "no limit"),
        (Hub("0", refused=429), False, "no more for a while"),
        (Hub("0", refused=503), None, "could not be asked"),
    ],
)
def test_docker_hubs_limit(monkeypatch: pytest.MonkeyPatch, hub: Hub, ok: bool | None, says: str) -> None:
    monkeypatch.setattr(doctor, "_signed_in", lambda: False)
    monkeypatch.setattr("headrace.aws.doctor.urllib.request.urlopen", hub.open)
    monkeypatch.setattr("headrace.aws.doctor.shutil.which", lambda _: "/usr/bin/docker")
    found = doctor._docker_hub()
    assert found.ok is ok
    assert says in found.says
    assert ("public.ecr.aws" in found.fix) is (ok is not True)


def instance(kind: str, cores: int = 1, threads: int = 2, **more: str) -> Answer:
    return {"InstanceType": kind, "CpuOptions": {"CoreCount": cores, "ThreadsPerCore": threads}, **more}


@pytest.mark.parametrize(
    ("running", "quota", "deployed", "ok"),
    [
        ([], 4.0, False, True),
        ([], 1.0, False, False),  # of a new account
        ([instance("m7g.large"), instance("t4g.micro", 2, 1)], 8.0, False, True),
        ([instance("m7g.large"), instance("im4gn.large"), instance("t3.micro")], 8.0, False, False),
        ([instance("t3.micro"), instance("g5.xlarge", 2), instance("inf2.xlarge")], 6.0, False, True),
        ([instance("c7g.large", InstanceLifecycle="spot")], 4.0, False, True),
        ([instance("t4g.micro")], 4.0, True, True),  # its own host, and the one that takes its place
        ([instance("t4g.micro")], 3.0, True, False),
    ],
)  # fmt: skip
def test_the_quota_of_vcpus(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, running: list[Answer], quota: float, deployed: bool, ok: bool
) -> None:
    stack = Stack("lab-app", "CREATE_COMPLETE", {}, {}) if deployed else None
    monkeypatch.setattr("headrace.aws.stacks.find", lambda *_: stack)
    with Stubber(cloud.client("service-quotas")) as quotas, Stubber(cloud.client("ec2")) as ec2:
        asked = {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}
        quotas.add_response("get_service_quota", {"Quota": {"Value": quota}}, asked)
        states = {"Filters": [{"Name": "instance-state-name", "Values": ["pending", "running"]}]}
        ec2.add_response("describe_instances", {"Reservations": [{"Instances": [one]} for one in running]}, states)
        found = doctor._vcpus(cloud, "lab")
    assert found.ok is ok, found
    assert ("request-service-quota-increase" in found.fix) is not ok


@pytest.mark.parametrize(
    ("config", "ok"),
    [
        ('{"auths": {"https://index.docker.io/v1/": {}}, "credsStore": "desktop"}', True),
        ('{"auths": {"123456789012.dkr.ecr.us-east-1.amazonaws.com": {}}}', False),
        ("{", False),
        (None, False),
    ],
)
def test_an_account_of_docker_hub_has_a_limit_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str | None, ok: bool
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    monkeypatch.setattr("headrace.aws.doctor.urllib.request.urlopen", Hub("0", refused=429).open)
    monkeypatch.setattr("headrace.aws.doctor.shutil.which", lambda _: "/usr/bin/docker")
    assert doctor._docker_hub().ok is ok


@pytest.mark.parametrize(("key", "ok"), [("alias/aws/ebs", True), ("arn:aws:kms:us-east-1:123456789012:key/1", None)])
def test_a_key_for_disks_that_auto_scaling_may_not_use_is_told(cloud: Cloud, key: str, ok: bool | None) -> None:
    with Stubber(cloud.client("ec2")) as ec2:
        ec2.add_response("get_ebs_default_kms_key_id", {"KmsKeyId": key}, {})
        found = doctor._disk_key(cloud)
    assert found.ok is ok
    assert ("AWSServiceRoleForAutoScaling" in found.fix) is (ok is None)


@pytest.mark.parametrize(("used", "exists", "ok"), [(39, False, True), (40, False, False), (40, True, True)])
def test_the_quota_of_databases(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, used: int, exists: bool, ok: bool
) -> None:
    stack = Stack("lab-data", "CREATE_COMPLETE", {}, {}) if exists else None
    monkeypatch.setattr("headrace.aws.stacks.find", lambda *_: stack)
    with Stubber(cloud.client("service-quotas")) as quotas, Stubber(cloud.client("rds")) as rds:
        asked = {"ServiceCode": "rds", "QuotaCode": "L-7B6409FD"}
        quotas.add_response("get_service_quota", {"Quota": {"Value": 40.0}}, asked)
        rds.add_response("describe_db_instances", {"DBInstances": used * [{}]}, {})
        assert doctor._databases(cloud, "lab").ok is ok
