"""`headrace aws doctor` where moto can't answer: IAM's simulation, which refuses some actions together as AWS does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.aws import doctor
from headrace.aws.client import Answer, Cloud
from headrace.errors import AwsError

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_1"
CALLER = f"arn:aws:sts::{ACCOUNT}:assumed-role/AWSReservedSSO_Admin_1/ann"


class Simulating(Cloud):
    """IAM alone; it knows every action but `unknown`, and takes those of one service only at a time."""

    def __init__(self, denied: str = "", unknown: str = "") -> None:
        super().__init__("us-east-1")
        self.denied, self.unknown = denied, unknown
        self.asked: list[Answer] = []

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
        for action in arguments["ActionNames"]:
            yield {"EvalActionName": action, "EvalDecision": "implicitDeny" if action == self.denied else "allowed"}


def permissions(cloud: Cloud) -> doctor.Finding:
    return doctor._permissions(cloud, CALLER, ACCOUNT, "lab")


def test_permissions_are_asked_for_in_groups_that_iam_takes() -> None:
    cloud = Simulating()
    found = permissions(cloud)
    assert found.ok, found
    asked = {action: one for one in cloud.asked for action in one["ActionNames"]}
    assert asked["rds:CreateDBInstance"]["ResourceArns"][0] == f"arn:aws:rds:us-east-1:{ACCOUNT}:db:lab-data-*"
    (context,) = asked["ec2:RunInstances"]["ContextEntries"]
    assert (context["ContextKeyName"], context["ContextKeyValues"]) == ("aws:RequestedRegion", ["us-east-1"])


def test_a_permission_that_is_missing_is_named_with_its_fix() -> None:
    found = permissions(Simulating(denied="rds:CreateDBInstance"))
    assert (found.ok, found.says) == (False, "not allowed: rds:CreateDBInstance")
    assert "headrace aws export deployer-policy" in found.fix


def test_an_action_that_iam_does_not_know_is_told() -> None:
    found = permissions(Simulating(unknown="ssm:StartSession"))
    assert found.ok
    assert "it does not know ssm:StartSession" in found.says


def test_the_root_user_is_not_asked_about() -> None:
    assert doctor._permissions(Simulating(), f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, "lab").ok
