"""What `headrace aws` needs on this machine and in this account, each finding with its fix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from headrace.aws import stacks, templates, tunnel
from headrace.aws.client import Cloud
from headrace.errors import AwsError

# service, quota code, what it is, how much a deployment needs, and how much of it is used
_VCPUS = ("ec2", "L-1216C47A", "vCPUs of running on-demand standard instances", 4)
_VPCS = ("vpc", "L-F678F1CE", "VPCs of a region")
_NOT_THERE = {"UnknownOperationException", "InvalidAction", "NotImplemented", "501", "404", "InternalFailure"}


class Finding(NamedTuple):
    """`ok`: True; False with the `fix`; None where it could not be found out."""

    what: str
    ok: bool | None
    says: str
    fix: str = ""


def examine(cloud: Cloud, name: str) -> Iterator[Finding]:
    """One finding after the other; the first that nothing works without ends the row."""
    try:
        caller = cloud.call("sts", "get_caller_identity")
    except AwsError as error:
        yield Finding("credentials", False, *_split(error))
        return
    yield Finding("credentials", True, f"{caller['Arn']} of account {caller['Account']}")
    try:
        zones = cloud.call("ec2", "describe_availability_zones", Filters=[{"Name": "state", "Values": ["available"]}])[
            "AvailabilityZones"
        ]
        enough = len(zones) >= 2
        yield Finding(
            "region", enough, f"{cloud.region}, {len(zones)} zones", "" if enough else "Take another --region."
        )
    except AwsError as error:
        yield Finding("region", False, *_split(error))
    for what, look in (
        ("permissions", lambda: _permissions(cloud, caller["Arn"], caller["Account"], name)),
        ("quota of vCPUs", lambda: _vcpus(cloud)),
        ("quota of VPCs", lambda: _vpcs(cloud, name)),
        ("earlier tries", lambda: _stacks(cloud, name)),
    ):
        yield _guarded(what, look)
    yield _plugin()
    yield _programs()


def _guarded(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except AwsError as error:
        says, fix = _split(error)
        return Finding(what, None, f"could not be looked at: {says}", fix)


def _permissions(cloud: Cloud, arn: str, account: str, name: str) -> Finding:
    """Asks IAM about each statement of the deployer's policy, on its resources and under its conditions."""
    principal = _principal(cloud, arn)
    denied: list[str] = []
    asked = 0
    for which in ("deployer-policy", "deployer-policy-2"):
        for statement in json.loads(templates.policy(which, account, cloud.region, name))["Statement"]:
            single = [action for action in _listed(statement["Action"]) if "*" not in action]
            asked += len(single)
            denied += _denied(cloud, principal, single, statement)
    if not denied:
        return Finding("permissions", True, f"all {asked} actions are allowed")
    shown = ", ".join(denied[:8]) + (f" and {len(denied) - 8} more" if len(denied) > 8 else "")
    return Finding(
        "permissions",
        False,
        f"not allowed: {shown}",
        "Attach the policies that `headrace aws export deployer-policy` and `... deployer-policy-2` print.",
    )


def _denied(cloud: Cloud, principal: str, actions: list[str], statement: dict[str, Any]) -> list[str]:
    """The actions that IAM denies. It takes only such together as need the same information: where it refuses a group,
    each half is asked about by itself."""
    if not actions:
        return []
    conditions = [
        {"ContextKeyName": key, "ContextKeyValues": _listed(values), "ContextKeyType": "string"}
        for test in statement.get("Condition", {}).values()
        for key, values in test.items()
    ]
    try:
        results = list(
            cloud.pages(
                "iam",
                "simulate_principal_policy",
                "EvaluationResults",
                PolicySourceArn=principal,
                ActionNames=actions,
                ResourceArns=_listed(statement["Resource"]),
                ContextEntries=conditions,
            )
        )
    except AwsError as error:
        if error.code not in ("InvalidInput", "InvalidInputException") or len(actions) == 1:
            raise
        half = len(actions) // 2
        return [
            *_denied(cloud, principal, actions[:half], statement),
            *_denied(cloud, principal, actions[half:], statement),
        ]
    # an action that knows no resource of the statement's other kinds is asked about on those, too, and denied there
    allowed = {item["EvalActionName"] for item in results if item["EvalDecision"] == "allowed"}
    return [action for action in actions if action not in allowed]


def _vcpus(cloud: Cloud) -> Finding:
    service, code, what, needed = _VCPUS
    quota = cloud.call("service-quotas", "get_service_quota", ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
    ok = quota >= needed
    fix = "" if ok else f"Ask for {needed}: aws service-quotas request-service-quota-increase --service-code {service} "
    fix += "" if ok else f"--quota-code {code} --desired-value {needed} --region {cloud.region}"
    return Finding("quota of vCPUs", ok, f"{quota:.0f} {what}", fix)


def _vpcs(cloud: Cloud, name: str) -> Finding:
    service, code, what = _VPCS
    quota = cloud.call("service-quotas", "get_service_quota", ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
    used = len(list(cloud.pages("ec2", "describe_vpcs", "Vpcs")))
    data = stacks.find(cloud, f"{name}-data")
    ok = used < quota or (data is not None and data.exists)
    fix = "" if ok else "Use one that is there with --vpc-id and --app-subnet-ids, or ask for more in Service Quotas."
    return Finding("quota of VPCs", ok, f"{used} of {quota:.0f} {what} are used", fix)


def _stacks(cloud: Cloud, name: str) -> Finding:
    found = [stacks.find(cloud, f"{name}-{part}") for part in ("data", "app")]
    said = [f"{stack.name} is {stack.status}" for stack in found if stack is not None]
    broken = [stack for stack in found if stack is not None and stack.status.endswith("_FAILED")]
    fix = "" if not broken else f"{broken[0].reason or 'Look at its events'}; then `headrace aws up`."
    return Finding("earlier tries", not broken, ", ".join(said) or "none", fix)


def _plugin() -> Finding:
    try:
        tunnel.check_plugin()
    except AwsError as error:
        return Finding("session-manager-plugin", False, *_split(error))
    return Finding("session-manager-plugin", True, "is installed")


def _programs() -> Finding:
    missing = [program for program in ("docker", "aws") if shutil.which(program) is None]
    if not missing:
        return Finding("docker and aws", True, "are installed, so that `up` can build and push the image by itself")
    return Finding(
        "docker and aws",
        None,
        f"{' and '.join(missing)} is not installed: `up` can't build the image by itself",
        "Let the pipeline push it (docs/pipeline.md); nothing else needs them.",
    )


def _principal(cloud: Cloud, arn: str) -> str:
    """arn:aws:sts::1:assumed-role/R/session -> arn:aws:iam::1:role/R, which IAM can simulate.

    A role of Identity Center has a path, which only IAM can tell.
    """
    if ":assumed-role/" not in arn:
        return arn
    head, role = arn.split(":assumed-role/")
    name = role.split("/")[0]
    try:
        return str(cloud.call("iam", "get_role", RoleName=name)["Role"]["Arn"])
    except AwsError:  # one may not look at one's own role
        path = "aws-reserved/sso.amazonaws.com/" if name.startswith("AWSReservedSSO_") else ""
        return f"{head.replace(':sts:', ':iam:')}:role/{path}{name}"


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _split(error: AwsError) -> tuple[str, str]:
    says, _, fix = str(error).partition("\n")
    return says, fix
