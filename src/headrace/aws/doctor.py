"""What `headrace aws` needs on this machine and in this account, each finding with its fix."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from headrace.aws import adopt, stacks, templates, tunnel, zones
from headrace.aws.client import Answer, Cloud
from headrace.aws.deployment import SIZES
from headrace.errors import AwsError, ConfigurationError

# docs.docker.com/docker-hub/usage/pulls: how many pulls are left to this address, by a repository that counts none
_HUB_TOKEN = "https://auth.docker.io/token?service=registry.docker.io&scope=repository:ratelimitpreview/test:pull"  # noqa: S105
_HUB_ACCOUNT = "https://index.docker.io/v1/"  # as `docker login` calls it, whoever keeps the password
_HUB = "https://registry-1.docker.io/v2/ratelimitpreview/test/manifests/latest"
_PULLS = 3  # of a build: the base image, and what of it a broken-off build needs again
# service, quota code, what it is
_VCPUS = ("ec2", "L-1216C47A", "vCPUs of running on-demand standard instances (A, C, D, H, I, M, R, T, Z)")
_STANDARD = re.compile(r"([acdhimrtz]|im|is)\d")
_VPCS = ("vpc", "L-F678F1CE", "VPCs of a region")
_DATABASES = ("rds", "L-7B6409FD", "database instances of a region")
_EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")  # there where Linux runs arm64's programs by QEMU


class Finding(NamedTuple):
    """`ok`: True; False with the `fix`; None where it could not be found out."""

    what: str
    ok: bool | None
    says: str
    fix: str = ""


def examine(
    cloud: Cloud, name: str, database: str | None = None, bucket: str | None = None, boundary: str | None = None
) -> Iterator[Finding]:
    """One finding after the other; the first that nothing works without ends the row.

    `database` and `bucket` are those to adopt, `boundary` bounds the hosts' role; by default those of the deployment.
    """
    try:
        caller = cloud.call("sts", "get_caller_identity")
    except AwsError as error:
        yield Finding("credentials", False, *_split(error))
        return
    yield Finding("credentials", True, f"{caller['Arn']} of account {caller['Account']}")
    try:
        there = zones.available(cloud)
        enough = len(there) >= 2
        fix = "" if enough else "Take another --region."
        yield Finding("region", enough, f"{cloud.region}, {len(there)} zones", fix)
    except AwsError as error:
        yield Finding("region", False, *_split(error))
    deployed = _deployed(cloud, name)
    database = database or deployed.get("ExistingDatabase")
    bucket = bucket or deployed.get("ExistingBucket")
    boundary = boundary or deployed.get("PermissionsBoundary")
    for what, look in (
        ("permissions", lambda: _permissions(cloud, caller, name, (boundary, database, bucket))),
        ("zones", lambda: _zones(cloud)),
        ("quota of vCPUs", lambda: _vcpus(cloud, name)),
        ("quota of VPCs", lambda: _vpcs(cloud, name)),
        ("quota of databases", lambda: _databases(cloud, name)),
        ("the disks' key", lambda: _disk_key(cloud)),
        ("the account's plan", lambda: _account_plan(cloud, name)),
        ("earlier tries", lambda: _stacks(cloud, name)),
    ):
        yield _guarded(what, look)
    if database:
        yield _guarded("existing database", lambda: _database(cloud, database))
    if bucket:
        yield _guarded("existing bucket", lambda: _bucket(cloud, bucket))
    yield _plugin()
    yield _programs()
    yield _docker_hub()
    yield _emulation()


def _guarded(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except ConfigurationError as error:
        return Finding(what, False, str(error))
    except AwsError as error:
        says, fix = _split(error)
        return Finding(what, None, f"could not be looked at: {says}", fix)


def _deployed(cloud: Cloud, name: str) -> Mapping[str, str]:
    """The parameters of the stacks that are there; none where they can't be looked at, which `_stacks` tells."""
    found: dict[str, str] = {}
    with suppress(AwsError):
        for part in ("data", "app"):
            stack = stacks.find(cloud, f"{name}-{part}")
            found |= stack.parameters if stack is not None and stack.exists else {}
    return found


def _permissions(cloud: Cloud, caller: Answer, name: str, options: Sequence[str | None] = ()) -> Finding:
    """`options` are those of the policies, in their order: boundary, database and bucket."""
    what, arn = "permissions", str(caller["Arn"])
    if arn.endswith(":root"):
        return Finding(what, True, "all: this is the account's root user. A role of its own is better.")
    if ":federated-user/" in arn:
        return Finding(what, None, "IAM can't be asked about a federated user, whose session has a policy of its own.")
    place = templates.Place(cloud.partition, caller["Account"], cloud.region, name)
    principal = _principal(cloud, arn)
    decisions: dict[str, set[str | None]] = {}
    for policy in templates.DEPLOYER_POLICIES:
        told = json.dumps(templates.statements(policy, place, *options)).replace("${aws:userid}", caller["UserId"])
        for statement in json.loads(told):
            # one with a wildcard can't be asked for
            single = [action for action in _listed(statement["Action"]) if "*" not in action]
            for action, decision in _simulated(cloud, principal, statement, {"aws:userid": caller["UserId"]}, single):
                decisions.setdefault(action, set()).add(decision)
    denied = [action for action, found in decisions.items() if found - {"allowed", None}]
    if denied:
        shown = ", ".join(denied[:8]) + (f" and {len(denied) - 8} more" if len(denied) > 8 else "")
        fix = "Attach the policies that `headrace aws export deployer-policy` and `deployer-policy-2` print."
        return Finding(what, False, f"not allowed: {shown}", fix)
    unknown = [action for action, found in decisions.items() if None in found]
    known = len(decisions) - len(unknown)
    said = f"all {known} actions that IAM can be asked for are allowed"
    if unknown:
        said += f"; it does not know {', '.join(unknown)}"
    return Finding(what, True if known else None, said)


def _simulated(
    cloud: Cloud, principal: str, statement: Answer, caller: Mapping[str, str], actions: list[str]
) -> Iterator[tuple[str, str | None]]:
    """Each action with IAM's decision on the statement's resources; None for one that IAM can't simulate.

    IAM knows of a call what it is told (`caller`, and what the statement's conditions ask for), and refuses to be asked
    for actions together that need different kinds of resources (InvalidInput), without saying which: then each half is
    asked for by itself.
    """
    if not actions:
        return
    conditions = [pair for given in statement.get("Condition", {}).values() for pair in given.items()]
    context = [
        {"ContextKeyName": key, "ContextKeyValues": _listed(value)[:1], "ContextKeyType": "string"}
        for key, value in [*conditions, *caller.items()]
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
                ContextEntries=context,
            )
        )
    except AwsError as error:
        if error.code not in ("InvalidInput", "InvalidInputException"):
            raise
        if len(actions) == 1:
            yield actions[0], None
            return
        middle = len(actions) // 2
        for half in (actions[:middle], actions[middle:]):
            yield from _simulated(cloud, principal, statement, caller, half)
        return
    for item in results:
        yield item["EvalActionName"], item["EvalDecision"]


def _zones(cloud: Cloud) -> Finding:
    """Whether a new network finds two zones with the smallest types."""
    first, second = zones.choose(cloud, SIZES["dev"], "arm64")
    return Finding("zones", True, f"{first} and {second} have what --size dev needs")


def _emulation() -> Finding:
    """Whether this machine can build the image for the hosts' architecture, where `up` does that."""
    if platform.system() != "Linux" or platform.machine() != "x86_64" or _EMULATOR.exists():
        return Finding("arm64 images", True, "can be built here")
    return Finding(
        "arm64 images",
        None,
        "can't be built on this x86_64 machine as it is: `up` would fail where ECR has no image yet",
        "Install QEMU: docker run --privileged --rm tonistiigi/binfmt --install arm64. Or take --architecture x86_64, "
        "or let the pipeline push the image.",
    )


def _quota(cloud: Cloud, service: str, code: str) -> float:
    found = cloud.call("service-quotas", "get_service_quota", ServiceCode=service, QuotaCode=code)
    return float(found["Quota"]["Value"])


def _vcpus(cloud: Cloud, name: str) -> Finding:
    """Whether there is room for the hosts and the one more with which they are replaced, one by one."""
    service, code, what = _VCPUS
    quota, used = _quota(cloud, service, code), _running_vcpus(cloud)
    app = stacks.find(cloud, f"{name}-app")
    deployed = app is not None and app.exists
    needed = used + (2 if deployed else 4)  # every size's hosts have two
    ok = quota >= needed
    says = f"{used} of {quota:.0f} {what} are used, and " + (
        "a host that takes another's place needs 2" if deployed else "--size dev and team need 4, ha 6"
    )
    fix = (
        f"Ask for more: aws service-quotas request-service-quota-increase --region {cloud.region} --service-code "
        f"{service} --quota-code {code} --desired-value {max(needed, used + 6)}"
    )
    return Finding("quota of vCPUs", ok, says, "" if ok else fix)


def _running_vcpus(cloud: Cloud) -> int:
    """Those that count for the quota: of spot instances and of other families there are others."""
    asked = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    return sum(
        one["CpuOptions"]["CoreCount"] * one["CpuOptions"]["ThreadsPerCore"]
        for each in cloud.pages("ec2", "describe_instances", "Reservations", Filters=asked)
        for one in each["Instances"]
        if _STANDARD.match(one["InstanceType"]) and one.get("InstanceLifecycle") != "spot"
    )


def _vpcs(cloud: Cloud, name: str) -> Finding:
    used = cloud.pages("ec2", "describe_vpcs", "Vpcs")
    fix = "Use one that is there with --vpc-id and --app-subnet-ids, or ask for more in Service Quotas."
    return _room(cloud, name, "quota of VPCs", _VPCS, used, fix)


def _databases(cloud: Cloud, name: str) -> Finding:
    used = cloud.pages("rds", "describe_db_instances", "DBInstances")
    return _room(cloud, name, "quota of databases", _DATABASES, used, "Delete one, or ask for more in Service Quotas.")


def _room(cloud: Cloud, name: str, title: str, quota: tuple[str, str, str], things: Iterable[Any], fix: str) -> Finding:
    """Whether there is room for the one that the deployment makes, or has made."""
    service, code, what = quota
    most, used = _quota(cloud, service, code), len(list(things))
    data = stacks.find(cloud, f"{name}-data")
    ok = used < most or (data is not None and data.exists)
    return Finding(title, ok, f"{used} of {most:.0f} {what} are used", "" if ok else fix)


def _database(cloud: Cloud, identifier: str) -> Finding:
    """Version, state and TLS of the one to adopt. The schema's age is seen by `up`, whose host reaches it."""
    what = "existing database"
    instance = adopt.find(cloud, identifier)
    if wrong := adopt.unfit(instance):
        return Finding(what, False, f"{identifier}: {wrong}")
    vpc, group = instance["DBSubnetGroup"]["VpcId"], instance["VpcSecurityGroups"][0]["VpcSecurityGroupId"]
    says = (
        f"{identifier} is PostgreSQL {instance['EngineVersion']} in {vpc}; hosts in subnets of that are let in by a "
        f"rule in {group}; `up` looks at the schema's age"
    )
    if not instance.get("BackupRetentionPeriod"):
        return Finding(
            what,
            False,
            f"{says}; it has no backups",
            f"aws rds modify-db-instance --region {cloud.region} --db-instance-identifier {identifier} "
            "--backup-retention-period 7 --apply-immediately",
        )
    if adopt.tls(cloud, instance) is False:
        fix = "Headrace asks for TLS all the same. For everybody: rds.force_ssl = 1 in its parameter group."
        return Finding(what, None, f"{says}; it takes connections without TLS, too", fix)
    return Finding(what, True, says)


def _bucket(cloud: Cloud, bucket: str) -> Finding:
    what = "existing bucket"
    key = adopt.bucket_key(cloud, bucket)
    says = f"{bucket} is in {cloud.region}, " + (f"encrypted with {key}" if key else "encrypted with S3's own keys")
    if cloud.call("s3", "get_bucket_versioning", Bucket=bucket).get("Status") != "Enabled":
        fix = "What is overwritten or deleted is gone. To keep it: aws s3api put-bucket-versioning --bucket "
        fix += f"{bucket} --versioning-configuration Status=Enabled"
        return Finding(what, None, f"{says}, and not versioned", fix)
    return Finding(what, True, f"{says}, and versioned")


def _disk_key(cloud: Cloud) -> Finding:
    """Whether EC2 Auto Scaling can start hosts, whose disks have the account's key for EBS: AWS's own lets it in."""
    what = "the disks' key"
    key = str(cloud.call("ec2", "get_ebs_default_kms_key_id")["KmsKeyId"])
    if key.endswith("alias/aws/ebs"):
        return Finding(what, True, "is AWS's own")
    return Finding(
        what,
        None,
        f"is one of this account's, {key}: no host starts where its policy does not let in EC2 Auto Scaling",
        "Let the role AWSServiceRoleForAutoScaling use it, as docs.aws.amazon.com/autoscaling/ec2/userguide/"
        "key-policy-requirements-EBS-encryption.html has it.",
    )


def _account_plan(cloud: Cloud, name: str) -> Finding:
    """Whether RDS refuses what the deployment needs, as it does on the free plan (FreeTierRestrictionError).

    "The specified backup retention period exceeds the maximum available to free tier customers", "This instance size
    isn't available with free plan accounts" (https://github.com/yc-software/qm/issues/352).
    """
    what = "the account's plan"
    if cloud.partition != "aws":
        return Finding(what, True, "has no limits of its own: GovCloud has no free plan")
    try:
        plan = cloud.call("freetier", "get_account_plan_state")["accountPlanType"]
    except AwsError as error:
        if error.code == "ResourceNotFoundException":  # an account of before there were plans
            return Finding(what, True, "has no limits of its own")
        raise
    if plan != "FREE":
        return Finding(what, True, str(plan).lower())
    data = stacks.find(cloud, f"{name}-data")
    days = None if data is None or not data.exists else data.parameters.get("BackupDays")
    if days == "1":
        return Finding(what, True, "free, and backups are kept for a day; sizes other than dev are refused")
    return Finding(
        what,
        False,
        "free: RDS refuses to keep backups for 7 days, and sizes other than dev",
        "Take `headrace aws up --size dev --backup-days 1`, or upgrade the plan in the Billing console (credits stay).",
    )


def _docker_hub() -> Finding:
    """Whether Docker Hub would still give this machine the image's base, where `up` builds it."""
    what = "Docker Hub"
    if shutil.which("docker") is None:
        return Finding(what, True, "is not needed: nothing is built here")
    if _signed_in():
        return Finding(what, True, "Docker is signed in there; what is left to that account, it does not tell")
    try:
        with urllib.request.urlopen(_HUB_TOKEN, timeout=10) as answer:
            token = json.load(answer)["token"]
        asked = urllib.request.Request(_HUB, method="HEAD", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - a literal
            left = answer.headers.get("ratelimit-remaining")
    except (OSError, ValueError, KeyError) as error:
        refused = isinstance(error, urllib.error.HTTPError) and error.code == 429
        says = "gives this address no more for a while" if refused else f"could not be asked: {error}"
        return Finding(what, False if refused else None, says, _HUB_FIX)
    count = int(left.partition(";")[0]) if left else _PULLS
    ok = count >= _PULLS
    return Finding(
        what, ok, f"{count} pulls are left to this address" if left else "has no limit here", "" if ok else _HUB_FIX
    )


def _signed_in() -> bool:
    """Whether `docker login` has an account of Docker Hub, whose pulls do not count for this address."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        return _HUB_ACCOUNT in json.loads(path.read_text()).get("auths", {})
    except (OSError, ValueError):
        return False


_HUB_FIX = (
    "Where `up` builds the image: sign in (`docker login`), or take the base from AWS: docker build --build-arg "
    "BASE_IMAGE=public.ecr.aws/docker/library/python:3.12-slim. A pipeline that pushes needs neither."
)


def _stacks(cloud: Cloud, name: str) -> Finding:
    found = [stacks.find(cloud, f"{name}-{part}") for part in ("data", "app")]
    said = [f"{stack.name} is {stack.status}" for stack in found if stack is not None]
    broken = [stack for stack in found if stack is not None and stack.status.endswith("_FAILED")]
    fix = "" if not broken else f"{broken[0].reason or 'Look at its events'}; then `headrace aws up`."
    return Finding("earlier tries", not broken, ", ".join(said) or "none", fix)


def _plugin() -> Finding:
    what = "session-manager-plugin"
    try:
        tunnel.check_plugin()
    except AwsError as error:
        return Finding(what, False, *_split(error))
    found = tunnel.version()
    if found is not None and found < tunnel.SUPPORTED:
        says = f"is {tunnel.spelled(found)}; the oldest that AWS supports is {tunnel.spelled(tunnel.SUPPORTED)}"
        return Finding(what, None, f"{says}: sessions may fail", tunnel.how_to_install())
    return Finding(what, True, f"is {tunnel.spelled(found)}" if found else "is installed")


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
    """arn:aws:sts::1:assumed-role/R/session -> the ARN of R with its path, which only IAM knows, and can simulate.

    Those of Identity Center have a path, and AWS lets nobody but the owner look at one of them by its name: listed.
    """
    if ":assumed-role/" not in arn:
        return arn
    role = arn.split(":assumed-role/")[1].split("/")[0]
    if role.startswith("AWSReservedSSO_"):
        roles = cloud.pages("iam", "list_roles", "Roles", PathPrefix="/aws-reserved/sso.amazonaws.com/")
        found = next((str(one["Arn"]) for one in roles if one["RoleName"] == role), None)
        if found is not None:
            return found
    return str(cloud.call("iam", "get_role", RoleName=role)["Role"]["Arn"])


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _split(error: AwsError) -> tuple[str, str]:
    says, _, fix = str(error).partition("\n")
    return says, fix
