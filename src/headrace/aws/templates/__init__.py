"""The CloudFormation templates and the IAM policies of people, as texts."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any, NamedTuple

_INCLUDE = re.compile(r'^( *)- "# include (\S+)"$', re.M)
_COMMENT = re.compile(r"^ *#(?!!).*\n", re.M)


def data() -> str:
    """The data stack's template: what is kept for ever."""
    return _read("data.yaml")


def app() -> str:
    """The app stack's template: what runs; the scripts of a host's first boot are put in."""
    return _INCLUDE.sub(_include, _read("app.yaml"))


# Who deploys needs the first two: together they are longer than the 6,144 characters of a managed policy.
DEPLOYER_POLICIES = ("deployer-policy", "deployer-policy-2")
POLICIES = (*DEPLOYER_POLICIES, "connect-policy")
# What stands for several actions of a statement when it is exported, since a managed policy has so much room: of the
# service's other operations each matches only such as read (tests/aws/test_policies.py asks botocore).
TOGETHER = (
    "autoscaling:*LifecycleHook",
    "autoscaling:*LoadBalancerTargetGroups",
    "autoscaling:*Processes",
    "autoscaling:*TrafficSources",
    "cloudformation:*ChangeSet",
    "cloudwatch:*AlarmActions",
    "ec2:*LaunchTemplate",
    "ec2:*SecurityGroup",
    "ec2:*SecurityGroupEgress",
    "ec2:*SecurityGroupIngress",
    "ec2:*Tags",
    "ec2:UpdateSecurityGroupRuleDescriptions*",
    "ecr:*LifecyclePolicy",
    "ecr:*Repository",
    "elasticloadbalancing:*Tags",
    "elasticloadbalancing:*TargetGroup",
    "events:*Targets",
    "kms:*Alias",
    "logs:*KmsKey",
    "logs:*RetentionPolicy",
    "rds:*DBSubnetGroup",
)


class Place(NamedTuple):
    """Which deployment a policy is for."""

    partition: str
    account: str
    region: str
    name: str


def policy(
    which: str, place: Place, boundary: str | None = None, database: str | None = None, bucket: str | None = None
) -> str:
    """One of POLICIES (JSON) for a deployment, as IAM gets it: short. See `statements`."""
    given = statements(which, place, boundary, database, bucket)
    short = [one | {"Action": _short(one["Action"])} for one in given]
    return json.dumps({"Version": "2012-10-17", "Statement": short}, indent=2) + "\n"


def statements(
    which: str, place: Place, boundary: str | None = None, database: str | None = None, bucket: str | None = None
) -> list[dict[str, Any]]:
    """Those of a policy, with each action's name but for such as read.

    With a `boundary`, the ARN of a managed policy, the hosts' role can be made and changed within that boundary only.
    `database` and `bucket` are those that the deployment uses in place.
    """
    text = _read(f"{which}.json")
    for key, value in place._asdict().items():
        text = text.replace(key.upper(), value)
    found: list[dict[str, Any]] = json.loads(text)["Statement"]
    for statement in found:
        if statement["Sid"] == "HostsRoleWithinItsBoundary" and boundary is not None:
            statement["Condition"] = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
    if which == DEPLOYER_POLICIES[0] and database:
        arn = f"arn:{place.partition}:rds:{place.region}:{place.account}:db:{database}"
        found.append(_allow("Snapshots", "rds:CreateDBSnapshot", arn))  # what an upgrade does to it
    if which == DEPLOYER_POLICIES[1] and bucket:  # what `up` and `doctor` ask
        asked = ["s3:GetBucket*", "s3:GetEncryptionConfiguration"]
        found.append(_allow("ItsBucket", asked, f"arn:{place.partition}:s3:::{bucket}"))
    return found


def _short(actions: str | list[str]) -> str | list[str]:
    if isinstance(actions, str):
        return actions
    for pattern in TOGETHER:
        if len([one for one in actions if fnmatchcase(one, pattern)]) > 1:
            actions = [one for one in actions if not fnmatchcase(one, pattern)] + [pattern]
    return sorted(actions)


def _allow(sid: str, action: str | list[str], resource: str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}


def script(name: str) -> str:
    """A shell script of the package, for instance run_container.sh."""
    return files("headrace.aws").joinpath(name).read_text(encoding="utf-8")


def without_comments(text: str) -> str:
    """A shell script without the lines that are comments alone."""
    return _COMMENT.sub("", text)


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _include(match: re.Match[str]) -> str:
    """The script as a YAML block scalar, one level deeper than its line; without comments: user data has 16 KB."""
    indent, name = match.groups()
    lines = (f"{indent}  {line}".rstrip() for line in without_comments(script(name)).rstrip().splitlines())
    return f"{indent}- |-\n" + "\n".join(lines)
