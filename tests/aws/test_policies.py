"""The IAM policies of people: complete for every call and for the stacks' resources, no wider, and within IAM's limits.

Moto's own evaluation of statements decides. The resources' permissions are those of CloudFormation's handlers, as
their schemas list them (cfn-lint carries them).
"""

from __future__ import annotations

import ast
import json
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from moto.iam.access_control import IAMPolicyStatement, PermissionResult

import headrace.aws
from headrace.aws import templates
from headrace.aws.templates import DEPLOYER_POLICIES, POLICIES, Place
from tests.aws.conftest import Account

PLACE = Place("aws", "123456789012", "eu-west-1", "lab")
HERE = "eu-west-1:123456789012"
BOUNDARY = "arn:aws:iam::123456789012:policy/limit"
MANAGED = 6144  # characters of a managed policy without white space
ROOM = 480  # for what comes
# What the handlers list for features that the templates don't use. For each the reason why nobody asks AWS for it.
UNUSED = {
    "managed-fleets:*|vpc-lattice:*|vpce:*|cognito-idp:*|s3tables:*|firehose:*": "other services",
    "autoscaling:*LoadBalancers|autoscaling:*Notification*|autoscaling:*MetricsCollection": "no classic balancers",
    "ec2:*VpnGateway*|ec2:*SubnetCidrBlock|ec2:CreateVpcEncryptionControl|ec2:ModifyVpcTenancy": "no VPN, no IPv6",
    "ec2:Get*|ssm:Get*": "of one resource each: ec2:GetManagedPrefixListEntries, ssm:GetParameters of Amazon Linux",
    "ecr:*RepositoryPolicy|ecr:PutImageTagMutability": "no policy of its own, the default of tags",
    "elasticloadbalancing:*registerTargets|elasticloadbalancing:RegisterTargets": "the group registers its hosts",
    "iam:*AttachRolePolicy|iam:*tachRolePolicy": "the role has no managed policy",
    "iam:DeleteRolePermissionsBoundary": "who is bounded must not undo it",
    "kms:DisableKey|kms:EnableKey|kms:DisableKeyRotation": "the key is on, and rotates",
    "logs:*IndexPolic*|logs:*ResourcePolic*|logs:Put*Protection*|logs:DeleteDataProtectionPolicy": "no such policy",
    "logs:CreateLogDelivery|logs:PutBearerTokenAuthentication|s3:REST.PUT.OBJECT": "no delivery of logs",
    "rds:*RoleToDBInstance|rds:*RoleFromDBInstance|rds:*Replica*|rds:RestoreDBInstanceFromS3": "no replica, no import",
    "s3:*Website|s3:*C[Oo][Rr][Ss]|s3:*Replication*|s3:*Metadata*|s3:*Metrics*|s3:*Analytics*": "a plain bucket",
    "s3:*Inventory*|s3:*Tiering*|s3:*Accelerate*|s3:*Logging|s3:*Notification": "a plain bucket",
    "s3:*ObjectLock*|s3:*Acl": "a plain bucket",
    "s3:*BucketAbac|s3:DeleteBucketEncryption|s3:DeleteBucketLifecycle": "a plain bucket; neither is taken away",
    "elasticloadbalancing:ModifyCapacityReservation|elasticloadbalancing:ModifyIpPools": "neither is reserved",
    "sns:PutDataProtectionPolicy": "no such policy",
}
# boto3's operation -> the permissions that it asks for, where they are named otherwise
PERMISSIONS = {
    ("s3", "list_object_versions"): ["s3:ListBucketVersions"],
    ("s3", "delete_objects"): ["s3:DeleteObject", "s3:DeleteObjectVersion"],
    ("s3", "get_bucket_encryption"): ["s3:GetEncryptionConfiguration"],
    ("s3", "get_public_access_block"): ["s3:GetBucketPublicAccessBlock"],
    ("service-quotas", "get_service_quota"): ["servicequotas:GetServiceQuota"],
}
READING = ("Describe", "Get", "List")
# what a permission is used on: instances are tagged, so that the policies can tell
TAGGED = {"ssm:resourceTag/headrace": "lab"}
CONTEXT = {"aws:RequestedRegion": "eu-west-1", "iam:PassedToService": "ec2.amazonaws.com", **TAGGED}
USES = [
    (f"arn:aws:cloudformation:{HERE}:stack/lab-data/1", "cloudformation:CreateChangeSet cloudformation:DeleteStack"),
    (f"arn:aws:cloudformation:{HERE}:stack/lab-app/1", "cloudformation:ExecuteChangeSet cloudformation:TagResource"),
    (f"arn:aws:rds:{HERE}:db:lab-data-database-1", "rds:CreateDBInstance rds:ModifyDBInstance rds:DeleteDBInstance"),
    (
        f"arn:aws:rds:{HERE}:db:lab-data-database-1-restoring",
        "rds:RestoreDBInstanceFromDBSnapshot rds:RestoreDBInstanceToPointInTime rds:AddTagsToResource "
        "rds:RemoveTagsFromResource",
    ),
    *(
        (f"arn:aws:rds:{HERE}:{used}", "rds:RestoreDBInstanceFromDBSnapshot")
        for used in (
            "snapshot:headrace-lab-2026-01-01-00-00-00",
            "snapshot:rds:lab-data-database-1-2026-01-01-00-00",
            "subgrp:lab-data-databasesubnets-1",
            "pg:lab-data-databaseparameters-1",
            "og:default:postgres-17",
        )
    ),
    (f"arn:aws:rds:{HERE}:og:default:postgres-17", "rds:CreateDBInstance rds:ModifyDBInstance"),
    (f"arn:aws:rds:{HERE}:pg:lab-data-databaseparameters-1", "rds:CreateDBInstance rds:CreateDBParameterGroup"),
    (f"arn:aws:rds:{HERE}:subgrp:lab-data-databasesubnets-1", "rds:CreateDBInstance rds:CreateDBSubnetGroup"),
    (f"arn:aws:rds:{HERE}:snapshot:headrace-lab-2026-01-01-00-00-00", "rds:CreateDBSnapshot rds:DeleteDBSnapshot"),
    (
        f"arn:aws:logs:{HERE}:log-group:/aws/rds/instance/lab-data-database-1/postgresql",
        "logs:PutRetentionPolicy logs:DeleteLogGroup",
    ),
    (f"arn:aws:rds:{HERE}:snapshot:lab-data-snapshot-database-1", "rds:CreateDBSnapshot rds:AddTagsToResource"),
    (f"arn:aws:acm:{HERE}:certificate/1", "acm:RequestCertificate acm:DescribeCertificate acm:AddTagsToCertificate"),
    ("arn:aws:route53:::hostedzone/Z1", "route53:ChangeResourceRecordSets route53:ListResourceRecordSets"),
    (f"arn:aws:rds-db:{HERE}:dbuser:db-ABC/headrace_master", "rds-db:connect"),
    (f"arn:aws:secretsmanager:{HERE}:secret:rds!db-1", "secretsmanager:CreateSecret secretsmanager:GetSecretValue"),
    (f"arn:aws:kms:{HERE}:key/1", "kms:CreateGrant kms:RetireGrant kms:Decrypt kms:DescribeKey kms:CreateAlias"),
    (f"arn:aws:kms:{HERE}:alias/headrace-lab", "kms:CreateAlias kms:DeleteAlias"),
    ("arn:aws:s3:::lab-data-bucket-1", "s3:CreateBucket s3:ListBucketVersions s3:DeleteBucket s3:GetBucketTagging"),
    ("arn:aws:s3:::lab-data-bucket-1/a", "s3:DeleteObject s3:DeleteObjectVersion"),
    (f"arn:aws:ecr:{HERE}:repository/lab", "ecr:CreateRepository ecr:PutImage ecr:DescribeImages ecr:BatchGetImage"),
    (f"arn:aws:ssm:{HERE}:parameter/lab/DB_PASS", "ssm:PutParameter ssm:GetParameter ssm:DeleteParameter"),
    (f"arn:aws:ssm:{HERE}:parameter/lab/settings/oidc_client_secret", "ssm:PutParameter ssm:DeleteParameter"),
    (f"arn:aws:ssm:{HERE}:parameter/lab/settings", "ssm:GetParametersByPath"),
    (f"arn:aws:ssm:{HERE}:parameter/lab/exec/1", "ssm:PutParameter ssm:DeleteParameter"),
    (f"arn:aws:kms:{HERE}:key/1", "kms:Encrypt"),
    (
        "arn:aws:iam::123456789012:role/lab-app-Role-1",
        "iam:CreateRole iam:PutRolePolicy iam:PassRole iam:ListRolePolicies",
    ),
    ("arn:aws:iam::123456789012:instance-profile/lab-app-1", "iam:CreateInstanceProfile iam:AddRoleToInstanceProfile"),
    (f"arn:aws:ec2:{HERE}:instance/i-1", "ssm:SendCommand ssm:StartSession ec2:RunInstances ec2:CreateTags"),
    ("arn:aws:ssm:eu-west-1::document/AWS-RunShellScript", "ssm:SendCommand"),
    ("arn:aws:ssm:eu-west-1::document/AWS-StartPortForwardingSession", "ssm:StartSession"),
    ("arn:aws:ssm:eu-west-1::document/AWS-StartPortForwardingSessionToRemoteHost", "ssm:StartSession"),
    # the plugin signs it since 1.2.764.0; the session's id begins with who has begun it
    (f"arn:aws:ssm:{HERE}:session/ann-0a1b2c", "ssmmessages:OpenDataChannel"),
    ("arn:aws:ssm:eu-west-1::parameter/aws/service/ami-amazon-linux-latest/al2023", "ssm:GetParameters"),
    (f"arn:aws:logs:{HERE}:log-group:/headrace/lab:log-stream:", "logs:FilterLogEvents"),
    (f"arn:aws:cloudwatch:{HERE}:alarm:lab-app-AlarmCpu-1", "cloudwatch:PutMetricAlarm"),
    ("arn:aws:cloudwatch::123456789012:dashboard/headrace-lab", "cloudwatch:PutDashboard"),
    (f"arn:aws:sns:{HERE}:lab-app-AlarmTopic-1", "sns:CreateTopic sns:Subscribe sns:SetTopicAttributes"),
    (f"arn:aws:events:{HERE}:rule/lab-app-Reminder-1", "events:PutRule events:PutTargets events:DeleteRule"),
]
# what the same policies must refuse
REFUSED = [
    ("acm:DeleteCertificate", f"arn:aws:acm:{HERE}:certificate/1", CONTEXT),
    ("route53:DeleteHostedZone", "arn:aws:route53:::hostedzone/Z1", CONTEXT),
    ("ssm:GetParameter", f"arn:aws:ssm:{HERE}:parameter/other/DB_PASS", CONTEXT),
    ("ssm:StartSession", f"arn:aws:ec2:{HERE}:instance/i-2", {"ssm:resourceTag/headrace": "other"}),
    ("ssm:SendCommand", f"arn:aws:ec2:{HERE}:instance/i-2", {"ssm:resourceTag/headrace": "lab-data"}),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/lab-app-Role-1", {"iam:PassedToService": "lambda.amazonaws.com"}),
    ("iam:CreateRole", "arn:aws:iam::123456789012:role/other", CONTEXT),
    ("ssmmessages:OpenDataChannel", "arn:aws:ssm:us-east-1:123456789012:session/ann-0a1b2c", CONTEXT),
    ("ssmmessages:CreateDataChannel", f"arn:aws:ssm:{HERE}:session/ann-0a1b2c", CONTEXT),
    ("ec2:TerminateInstances", "*", {"aws:RequestedRegion": "us-east-1"}),
    ("s3:GetObject", "arn:aws:s3:::lab-data-bucket-1/a", CONTEXT),
    ("rds-db:connect", f"arn:aws:rds-db:{HERE}:dbuser:db-ABC/postgres", CONTEXT),
    ("rds:DeleteDBInstance", f"arn:aws:rds:{HERE}:db:other", CONTEXT),
    ("rds:DeleteDBSnapshot", f"arn:aws:rds:{HERE}:snapshot:other", CONTEXT),
    ("logs:FilterLogEvents", f"arn:aws:logs:{HERE}:log-group:/aws/rds/instance/other/postgresql", CONTEXT),
]


@cache
def statements(*which: str, boundary: str | None = None) -> list[dict[str, Any]]:
    return [one for name in which for one in json.loads(templates.policy(name, PLACE, boundary))["Statement"]]


def allowed(given: list[dict[str, Any]], action: str, resource: str, context: dict[str, str]) -> bool:
    # one by one: moto takes an Allow whose condition does not hold for a denial
    return any(
        IAMPolicyStatement(one).is_action_permitted(action, resource, None, context) == PermissionResult.PERMITTED
        for one in given
    )


def actions(given: list[dict[str, Any]]) -> set[str]:
    listed = [one["Action"] for one in given]
    return {action for one in listed for action in ([one] if isinstance(one, str) else one)}


def calls() -> set[tuple[str, str]]:
    """Every (service, operation) that a module of headrace.aws asks of AWS."""
    found = set()
    for path in Path(headrace.aws.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("call", "pages")
            ):
                given = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
                assert len(given) == 2, f"{path.name}:{node.lineno}: the policies' test reads literal names only"
                found.add((str(given[0]), str(given[1])))
    return found


def permissions(service: str, operation: str) -> list[str]:
    if (service, operation) in PERMISSIONS:
        return PERMISSIONS[service, operation]
    client = boto3.client(service, region_name="us-east-1")
    prefix = {"monitoring": "cloudwatch"}.get(client.meta.service_model.signing_name)
    return [f"{prefix or client.meta.service_model.signing_name}:{client.meta.method_to_api_mapping[operation]}"]


def handlers() -> dict[str, set[str]]:
    """Permission -> the resource types whose handlers list it, but for listing all of a type."""
    # half a second for each of pytest-xdist's workers, of which one runs this
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

    kinds = set(re.findall(r"^    Type: (AWS::\w+::\w+)$", templates.data() + templates.app(), re.M))
    found: dict[str, set[str]] = {}
    for kind in kinds:
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
        for handler, what in schema["handlers"].items():
            for permission in what["permissions"] if handler != "list" else ():
                found.setdefault(permission, set()).add(kind)
    return found


def test_who_deploys_may_make_every_call() -> None:
    given = actions(statements(*DEPLOYER_POLICIES))
    asked = calls()
    assert len(asked) > 40
    missing = [
        one for call in asked for one in permissions(*call) if not any(fnmatchcase(one, action) for action in given)
    ]
    assert missing == []


def test_who_deploys_may_do_what_the_stacks_resources_ask_for() -> None:
    given = actions(statements(*DEPLOYER_POLICIES))
    unused = [pattern for patterns in UNUSED for pattern in patterns.split("|")]
    listed = handlers()
    assert len(listed) > 250
    missing = {
        permission: sorted(kinds)
        for permission, kinds in listed.items()
        if not any(fnmatchcase(permission, action) for action in given)
        and not any(fnmatchcase(permission, pattern) for pattern in unused)
    }
    assert missing == {}


@pytest.mark.parametrize(("resource", "used"), USES)
def test_permissions_are_for_what_they_are_used_on(resource: str, used: str) -> None:
    given = statements(*DEPLOYER_POLICIES)
    assert [one for one in used.split() if not allowed(given, one, resource, CONTEXT)] == []


@pytest.mark.parametrize(("action", "resource", "context"), REFUSED)
def test_nothing_else_is_allowed(action: str, resource: str, context: dict[str, str]) -> None:
    assert not allowed(statements(*POLICIES), action, resource, context)


def test_with_a_boundary_no_role_is_made_without_it() -> None:
    given = statements("deployer-policy", boundary=BOUNDARY)
    role = "arn:aws:iam::123456789012:role/lab-app-Role-1"
    for action in ("iam:CreateRole", "iam:PutRolePolicy", "iam:PutRolePermissionsBoundary"):
        assert allowed(given, action, role, {"iam:PermissionsBoundary": BOUNDARY})
        assert not allowed(given, action, role, {"iam:PermissionsBoundary": "arn:aws:iam::123456789012:policy/other"})


def test_what_is_used_in_place_is_not_changed() -> None:
    """An upgrade takes a snapshot of the database; nothing else is asked of it, or of the bucket."""
    given = [
        one
        for which in DEPLOYER_POLICIES
        for one in json.loads(templates.policy(which, PLACE, None, "theirs", "their-bucket"))["Statement"]
    ]
    database, bucket = f"arn:aws:rds:{HERE}:db:theirs", "arn:aws:s3:::their-bucket"
    assert allowed(given, "rds:CreateDBSnapshot", database, CONTEXT)
    assert allowed(given, "s3:GetEncryptionConfiguration", bucket, CONTEXT)
    for action in ("rds:ModifyDBInstance", "rds:DeleteDBInstance"):
        assert not allowed(given, action, database, CONTEXT)
    for action in ("s3:DeleteBucket", "s3:PutBucketPolicy", "s3:PutLifecycleConfiguration"):
        assert not allowed(given, action, bucket, CONTEXT)


def test_who_connects_may_do_that_alone() -> None:
    given = statements("connect-policy")
    host, document = f"arn:aws:ec2:{HERE}:instance/i-1", "arn:aws:ssm:eu-west-1::document/AWS-"
    assert allowed(given, "cloudformation:DescribeStacks", f"arn:aws:cloudformation:{HERE}:stack/lab-app/1", {})
    assert allowed(given, "autoscaling:DescribeAutoScalingGroups", "*", {})
    assert allowed(given, "ssm:DescribeInstanceInformation", "*", {})
    assert allowed(given, "ssm:StartSession", host, TAGGED)
    assert allowed(given, "ssm:StartSession", f"{document}StartPortForwardingSession", {})
    assert allowed(given, "ssmmessages:OpenDataChannel", f"arn:aws:ssm:{HERE}:session/ann-0a1b2c", {})
    # through to the database, a shell, or a command: no
    assert not allowed(given, "ssm:StartSession", f"{document}StartPortForwardingSessionToRemoteHost", {})
    assert not allowed(given, "ssm:StartSession", f"arn:aws:ssm:{HERE}:document/SSM-SessionManagerRunShell", {})
    assert not allowed(given, "ssm:SendCommand", host, TAGGED)


@pytest.mark.parametrize("which", POLICIES)
def test_a_policy_fits_and_has_no_placeholder(which: str) -> None:
    longest = Place("aws-us-gov", "123456789012", "us-gov-west-1", 24 * "n")
    boundary = f"arn:aws-us-gov:iam::123456789012:policy/{128 * 'b'}"
    assert len(re.sub(r"\s", "", templates.policy(which, longest, boundary))) <= MANAGED - ROOM
    text = templates.policy(which, longest, boundary, 63 * "d", 63 * "b")
    assert len(re.sub(r"\s", "", text)) <= MANAGED
    assert not re.search("PARTITION|ACCOUNT|REGION|NAME", text)
    assert "arn:aws:" not in text
    sids = [one["Sid"] for one in json.loads(text)["Statement"]]
    assert len(set(sids)) == len(sids)
    # a star stands for reading, or for what `templates.statements` names
    stars = [one for one in actions(json.loads(text)["Statement"]) if "*" in one and one not in templates.TOGETHER]
    assert all(one.partition(":")[2].startswith(READING) for one in stars)


@pytest.mark.parametrize("pattern", templates.TOGETHER)
def test_what_stands_for_several_actions_stands_for_no_other(pattern: str) -> None:
    """Of all that the service has, by botocore's own description of it."""
    service, _, name = pattern.partition(":")
    described = {"elasticloadbalancing": ("elb", "elbv2")}.get(service, (service,))
    loaded = botocore.session.get_session()
    operations = {one for each in described for one in loaded.get_service_model(each).operation_names}
    named = actions([one for which in DEPLOYER_POLICIES for one in templates.statements(which, PLACE)])
    matched = {one for one in operations if fnmatchcase(one, name) and not one.startswith(READING)}
    assert len(matched) > 1
    assert {f"{service}:{one}" for one in matched} <= named
    assert pattern in actions(statements(*DEPLOYER_POLICIES))


def test_the_hosts_have_the_tag_that_the_policies_go_by() -> None:
    """A tag of the stack would be theirs, too, and win over the launch template's."""
    group = templates.app().split("Type: AWS::AutoScaling::AutoScalingGroup")[1].split("\n  # ----")[0]
    assert "{Key: headrace, Value: !Ref Name, PropagateAtLaunch: true}" in group


def test_export_fills_the_policies(account: Account) -> None:
    done = account.run("export", "deployer-policy", "--name", "lab", "--region", "us-gov-west-1", plugin=False)
    assert done.returncode == 0, done.stderr
    assert f"arn:aws-us-gov:ssm:us-gov-west-1:{account.cloud().account()}:parameter/lab/*" in done.stdout
    named = ("--account", "999999999999", "--permissions-boundary", BOUNDARY)
    done = account.run("export", "deployer-policy", *named, plugin=False)
    assert f'"iam:PermissionsBoundary": "{BOUNDARY}"' in done.stdout
    assert "arn:aws:iam::999999999999:role/mlflow-app-*" in done.stdout
