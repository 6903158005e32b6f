"""Walks through what docs/aws.md promises on a deployment that is there, and says of each what AWS itself shows.

For people with an account: what moto and stand-ins can't prove. Nothing is changed but for a run that is logged. What
is said has no account number and no secret, so that the table can be sent.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from headrace.aws import alarms, database, execute, hosts, prices, stacks, trial
from headrace.aws.client import Answer, Cloud
from headrace.aws.deployment import OWN_KEY, keys_of
from headrace.aws.stacks import Say, Stack
from headrace.errors import AwsError, ConfigurationError

_ACCOUNT = re.compile(r"\b\d{12}\b")
_BACKUP_SECONDS = 1800  # how old the newest moment that can be restored may be; RDS says five minutes
_PRICE_DIFFERS = 0.05  # by which share of AWS's
_FOREIGN = "/headrace-selftest/of-somebody-else"


class Outcome(NamedTuple):
    """`ok`: kept; not kept; None where it could not be looked at. `seconds`: that it took."""

    promise: str
    ok: bool | None
    seen: str
    seconds: float


class Deployment(NamedTuple):
    """What the promises are about."""

    cloud: Cloud
    name: str
    data: Stack
    app: Stack
    instance: Answer
    host: str
    say: Say

    def on_host(self, script: str, what: str) -> str:
        """What a script says there, as root."""
        return hosts.run(self.cloud, self.host, script, what, self.say)


Seen = tuple[bool, str]


def walk(cloud: Cloud, name: str, say: Say) -> Iterator[Outcome]:
    """One outcome after the other. Raises AwsError where there is no deployment."""
    data, app = (execute.required(cloud, f"{name}-{part}") for part in ("data", "app"))
    running = hosts.wait_online(cloud, app, say)
    place = Deployment(cloud, name, data, app, database.instance(cloud, data), running[0].id, say)
    for promise, look in PROMISES.items():
        began = time.monotonic()
        ok: bool | None
        try:
            ok, seen = look(place)
            if not ok and (key := _THEIRS.get(look)) and place.data.parameters.get(key):
                ok, seen = None, f"{seen}; it was there before, and the deployment leaves it as it is"
        except (AwsError, ConfigurationError) as error:
            ok, seen = None, str(error).partition("\n")[0]
        yield Outcome(promise, ok, _ACCOUNT.sub("<account>", seen), time.monotonic() - began)


def table(outcomes: list[Outcome], cloud: Cloud) -> str:
    """In Markdown, with the day and the region."""
    words = {True: "kept", False: "NOT KEPT", None: "?"}
    lines = [
        f"Headrace's self-test in {cloud.region}, {datetime.now(UTC):%Y-%m-%d}",
        "",
        "| promise | | what was seen | s |",
        "|---|---|---|---|",
        *(
            f"| {one.promise} | {words[one.ok]} | {one.seen.replace('|', '/')} | {one.seconds:.1f} |"
            for one in outcomes
        ),
    ]
    return "\n".join(lines)


def _stacks(place: Deployment) -> Seen:
    changed = [line for stack in (place.data, place.app) for line in stacks.drift(place.cloud, stack.name)]
    return not changed, "; ".join(changed) or f"{place.data.status} and {place.app.status}, nothing changed by hand"


def _round_trip(place: Deployment) -> Seen:
    token = execute.admin_token(place.cloud, place.name)
    with execute.reached(place.cloud, place.app, place.say) as address:
        trial.round_trip(address, token)
        return True, f"a param and an artifact were logged and read back over {address.url.partition(':')[0]}"


def _private_database(place: Deployment) -> Seen:
    found = place.instance
    seen = {
        "no public address": not found["PubliclyAccessible"],
        "encrypted": found["StorageEncrypted"],
        "protected": found["DeletionProtection"],
        "master password kept by RDS": "MasterUserSecret" in found,
    }
    what = f"{found['DBInstanceClass']}, PostgreSQL {found['EngineVersion']}"
    return all(seen.values()), f"{what}; {_said(seen)}"


def _backups(place: Deployment) -> Seen:
    newest = place.instance.get("LatestRestorableTime")
    if newest is None:
        return False, "no moment can be restored yet; the first backup takes a while after `up`"
    age = (datetime.now(UTC) - newest).total_seconds()
    days = place.instance["BackupRetentionPeriod"]
    return age < _BACKUP_SECONDS and days >= 1, f"{days} days, until {age / 60:.0f} minutes ago"


def _master_secret(place: Deployment) -> Seen:
    if "MasterUserSecret" not in place.instance:
        return False, "RDS does not keep it"
    arn = place.instance["MasterUserSecret"]["SecretArn"]
    found = place.cloud.call("secretsmanager", "describe_secret", SecretId=arn)
    at = found.get("NextRotationDate")
    return bool(found.get("RotationEnabled")), f"the next time {at:%Y-%m-%d}" if at else "no next time is set"


def _group(place: Deployment) -> Seen:
    """Each host serves, as the hook and the balancer have it, and one that breaks is replaced."""
    cloud, name = place.cloud, place.app.output("Hosts")
    (group,) = cloud.call("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[name])[
        "AutoScalingGroups"
    ]
    hooks = cloud.call("autoscaling", "describe_lifecycle_hooks", AutoScalingGroupName=name)["LifecycleHooks"]
    targets = [
        one["TargetHealth"]["State"]
        for target in group.get("TargetGroupARNs", [])
        for one in cloud.call("elbv2", "describe_target_health", TargetGroupArn=target)["TargetHealthDescriptions"]
    ]
    states = [(one["LifecycleState"], one["HealthStatus"]) for one in group["Instances"]]
    seen = {
        "all hosts in service": states == [("InService", "Healthy")] * group["DesiredCapacity"],
        "a new one waits for its server": [one["LifecycleHookName"] for one in hooks] == ["serves"],
        "nothing suspended": not group.get("SuspendedProcesses"),
        **({"healthy for the balancer": set(targets) == {"healthy"}} if group.get("TargetGroupARNs") else {}),
    }
    zones = len({one["AvailabilityZone"] for one in group["Instances"]})
    return all(seen.values()), f"{len(states)} in {zones} zones; {_said(seen)}"


def _prices(place: Deployment) -> Seen:
    """Those of the two machines, which are most of the bill, by AWS's own list."""
    host, database = place.app.parameters["InstanceType"], place.instance["DBInstanceClass"]
    of_host = {"operatingSystem": "Linux", "preInstalledSw": "NA", "tenancy": "Shared", "capacitystatus": "Used"}
    of_database = {"databaseEngine": "PostgreSQL", "deploymentOption": "Single-AZ"}
    wrong, said = False, []
    for service, kind, ours, more in (
        ("AmazonEC2", host, prices.HOSTS.get(host), of_host),
        ("AmazonRDS", database, prices.DATABASES.get(database), of_database),
    ):
        if ours is None:  # of a database that was there before, or a type that somebody has set by hand
            said.append(f"{kind} is none of `plan`'s")
            continue
        asked = {"instanceType": kind, "regionCode": prices.REGION, **more}
        filters = [{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in asked.items()]
        listed = [
            float(dimension["pricePerUnit"]["USD"])
            for text in place.cloud.pages("pricing", "get_products", "PriceList", ServiceCode=service, Filters=filters)
            if (one := json.loads(text))["product"]["attributes"]["instanceType"] == kind
            for term in one["terms"]["OnDemand"].values()
            for dimension in term["priceDimensions"].values()
        ]
        theirs = max(listed, default=0.0)  # what is free of charge is a line there, too
        wrong = wrong or abs(ours - theirs) > _PRICE_DIFFERS * theirs
        said.append(f"{kind} {ours} USD an hour, AWS's {theirs}")
    return not wrong, f"{prices.REGION}: {'; '.join(said)}"


def _bucket(place: Deployment) -> Seen:
    bucket, cloud = place.data.output("Bucket"), place.cloud
    rules = cloud.call("s3", "get_bucket_encryption", Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    blocked = cloud.call("s3", "get_public_access_block", Bucket=bucket)["PublicAccessBlockConfiguration"]
    algorithm = "aws:kms" if keys_of(place.data.parameters) == OWN_KEY else "AES256"
    seen = {
        "encrypted as the template says": rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == algorithm,
        "private": all(blocked.values()),
        "versioned": cloud.call("s3", "get_bucket_versioning", Bucket=bucket).get("Status") == "Enabled",
        "TLS only": "aws:SecureTransport" in cloud.call("s3", "get_bucket_policy", Bucket=bucket)["Policy"],
    }
    return all(seen.values()), _said(seen)


def _closed_host(place: Deployment) -> Seen:
    reservations = place.cloud.call("ec2", "describe_instances", InstanceIds=[place.host])["Reservations"]
    found = reservations[0]["Instances"][0]
    ids = [one["GroupId"] for one in found["SecurityGroups"]]
    groups = place.cloud.call("ec2", "describe_security_groups", GroupIds=ids)["SecurityGroups"]
    inbound = [rule for group in groups for rule in group["IpPermissions"]]
    addresses = [rule for rule in inbound if rule.get("IpRanges") or rule.get("Ipv6Ranges")]
    seen = {
        "no port for any address": not addresses,
        "IMDSv2 only": found["MetadataOptions"]["HttpTokens"] == "required",
    }
    return all(seen.values()), f"{found['InstanceType']}; {_said(seen)}"


def _hosts_rights(place: Deployment) -> Seen:
    """The role may read the deployment's parameters alone; AWS must say AccessDenied, not ParameterNotFound."""
    region = place.cloud.region
    output = place.on_host(
        f"aws ssm get-parameters --region {region} --names /{place.name}/DB_HOST --query 'Parameters[0].Name' "
        "--output text\n"
        f"aws ssm get-parameter --region {region} --name {_FOREIGN} 2>&1 || true\n",
        "what the host's role may read",
    )
    seen = {"its own parameters": f"/{place.name}/DB_HOST" in output, "not another's": "AccessDenied" in output}
    return all(seen.values()), _said(seen)


def _no_secret_on_host(place: Deployment) -> Seen:
    output = place.on_host(
        "docker inspect mlflow-server | grep -c -E 'PASSWORD=|_TOKEN=|postgresql://[^\"]*:[^\"]*@' || true\n",
        "look for secrets in docker inspect",
    )
    return output.strip() == "0", f"{output.strip()} lines of `docker inspect` look like a secret"


def _amazon_linux(place: Deployment) -> Seen:
    output = place.on_host(
        "rpm -q docker amazon-ecr-credential-helper; systemctl is-active docker headrace-metrics.timer; "
        "systemd-analyze time | head -1; uptime --since\n",
        "the host's packages",
    )
    return "is not installed" not in output and output.count("\nactive") == 2, "; ".join(output.split("\n"))


def _logs(place: Deployment) -> Seen:
    start = int((time.time() - 24 * 3600) * 1000)
    group = f"/headrace/{place.name}"
    # a page may be empty, and the next one not
    events = place.cloud.pages("logs", "filter_log_events", "events", logGroupName=group, startTime=start)
    there = next(events, None) is not None
    return there, "the server's lines arrive" if there else "no line in 24 hours"


def _alarms(place: Deployment) -> Seen:
    found = alarms.find(place.cloud, place.app.name)
    blind = [one["AlarmDescription"].partition(": ")[2] for one in found if one["StateValue"] == "INSUFFICIENT_DATA"]
    return bool(found) and not blind, f"of {len(found)} without metrics: {', '.join(blind) or 'none'}"


def _image(place: Deployment) -> Seen:
    image = place.app.parameters["Image"]
    return "@sha256:" in image, "by its digest" if "@sha256:" in image else image


def _said(seen: dict[str, bool]) -> str:
    return ", ".join(what if ok else f"NOT {what}" for what, ok in seen.items())


PROMISES: dict[str, Callable[[Deployment], Seen]] = {
    "the stacks are as the templates": _stacks,
    "a run can be logged": _round_trip,
    "the database is private and protected": _private_database,
    "any time of the last days can be restored": _backups,
    "the master password is rotated": _master_secret,
    "the bucket is private": _bucket,
    "hosts are in service, and replaced": _group,
    "a host has no open port": _closed_host,
    "a host reads its own parameters alone": _hosts_rights,
    "no secret is in docker inspect": _no_secret_on_host,
    "Amazon Linux has what a host needs": _amazon_linux,
    "the log arrives": _logs,
    "the alarms have metrics": _alarms,
    "hosts run an image by its digest": _image,
    "the prices of `plan` are AWS's": _prices,
}
# what the deployment does not answer for where it uses one that was there before: the data stack's parameter for it
_THEIRS: dict[Callable[[Deployment], Seen], str] = {
    _private_database: "ExistingDatabase",
    _backups: "ExistingDatabase",
    _master_secret: "ExistingDatabase",
    _bucket: "ExistingBucket",
}
