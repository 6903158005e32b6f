"""The steps of a deployment, as data. `headrace aws plan` previews the same steps that `up` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from headrace.aws import adopt, database, images, journal, leftover, server_settings, stacks, templates, zones
from headrace.aws.client import Cloud
from headrace.aws.deployment import SIZES, Choices, architecture_of
from headrace.aws.server_settings import Changed
from headrace.aws.stacks import Say, Stack
from headrace.errors import ConfigurationError


class MakeStack(NamedTuple):
    """Create or update a stack; nothing happens where it is as it should be. `tags` are added to those it has.

    `seen`: the stack's parameters that this was planned for; none for a stack that was not there.
    """

    name: str
    template: str
    parameters: dict[str, str]
    tags: Mapping[str, str] = MappingProxyType({})
    seen: Mapping[str, str] | None = None


class MakeSecret(NamedTuple):
    """Generate a SecureString, encrypted with the data stack's key, where there is none."""

    name: str
    data_stack: str
    what: str


class PutSettings(NamedTuple):
    """Keep the server's settings in SSM, where each host's server reads them."""

    name: str
    data_stack: str
    changed: Changed


class Publish(NamedTuple):
    """See that the image is in ECR; build and push it where it is not."""

    image: str
    name: str
    architecture: str


class MakeCertificate(NamedTuple):
    """See that ACM has a certificate for the domain, and wait for it."""

    name: str
    domain: str


class PointDomain(NamedTuple):
    """See that the domain leads to the load balancer, and wait until it does."""

    app_stack: str
    domain: str


class MakeApp(NamedTuple):
    """Create or update the app stack, with the image's digest; `by_token`: its hosts make tokens for the database."""

    stack: MakeStack
    image: str
    by_token: bool = False


class RenewHosts(NamedTuple):
    """Replace hosts that were made from an older launch template: their size, Linux or first boot."""

    choices: Choices


class MakeRole(NamedTuple):
    """Make MLflow's tables and the server's role in the database, through a host."""

    choices: Choices


class WaitHealthy(NamedTuple):
    """Wait until the server answers on every host."""

    choices: Choices


class SwitchLogin(NamedTuple):
    """Change how servers that run log in at the database: by tokens of IAM, or by a password."""

    choices: Choices
    by_token: bool


class SettleLogin(NamedTuple):
    """See that every server knows how it logs in at the database."""

    choices: Choices


class ApplySettings(NamedTuple):
    """Make the container anew on every host that runs with other settings than SSM has."""

    choices: Choices


class ExpireLog(NamedTuple):
    """See that the database's log is not kept for ever."""

    choices: Choices


class TryOut(NamedTuple):
    """Log a param and an artifact, and read them back."""

    choices: Choices


Step = (
    MakeStack
    | MakeSecret
    | PutSettings
    | Publish
    | MakeCertificate
    | PointDomain
    | MakeApp
    | RenewHosts
    | MakeRole
    | WaitHealthy
    | SwitchLogin
    | SettleLogin
    | ApplySettings
    | ExpireLog
    | TryOut
)


def up(cloud: Cloud, choices: Choices, say: Say) -> list[Step]:
    """The steps from what is there to what was chosen. Raises ConfigurationError for choices that can't be.

    Waits for a stack operation that an earlier command left under way.
    """
    data = stacks.settle(cloud, choices.data_stack, say)
    app = stacks.settle(cloud, choices.app_stack, say)
    data_parameters = choices.data_parameters(_parameters(data))
    data_parameters |= _adopted(cloud, choices, data_parameters)
    if data is None or not data.exists:
        _check_parameters(cloud, choices.name)
        data_parameters["MakeRepository"] = str(not images.repository_exists(cloud, choices.name)).lower()
    elif choices.size and not data_parameters.get(
        "ExistingDatabase"
    ):  # the disk may have grown by itself, and RDS makes none smaller
        grown = int(database.instance(cloud, data).get("AllocatedStorage", 0))
        if grown > int(data_parameters["DatabaseStorage"]):
            data_parameters["DatabaseStorage"] = str(grown)
        limit = max(int(data_parameters["DatabaseStorageLimit"]), grown + grown // 4)
        data_parameters["DatabaseStorageLimit"] = str(limit)
    before = _parameters(app) or leftover.find(cloud, choices.name)
    image = _image(cloud, choices, _parameters(app).get("Image", ""), before.get("Image", ""))
    if choices.architecture is None and not before:
        choices = replace(choices, architecture=images.architecture(cloud, choices.name, image))
    app_parameters = choices.app_parameters(before) | {
        key: data_parameters[key] for key in ("Keys", "ExistingBucketKey") if key in data_parameters
    }
    if not _parameters(data) and not data_parameters.get("VpcId"):  # later ones would be another network's
        size = SIZES[choices.size or "dev"]
        found = zones.choose(cloud, size, architecture_of(app_parameters))
        data_parameters |= dict(zip(("ZoneA", "ZoneB"), found, strict=True))
    if ranges := _balancer_ranges(cloud, data_parameters, app_parameters):
        app_parameters["TrustedProxies"] = ",".join(ranges)
    _check_certificate(cloud, app_parameters.get("CertificateArn", ""))
    if _parameters(app) and (record := journal.read(cloud, choices.name)) is not None:
        raise ConfigurationError(
            f"An upgrade of {choices.app_stack} from {record.source} to {record.target} was broken off. "
            f"`headrace aws upgrade {record.target}` continues it, `headrace aws rollback` takes it back; then run "
            "this command again."
        )
    kept = server_settings.find(cloud, choices.name)
    changed = server_settings.changes(kept, choices.settings, choices.unset)
    prefix = f"/{choices.name}"
    balancer = app_parameters.get("Ingress") == "alb"
    domain = app_parameters.get("Domain", "")
    certificate = [MakeCertificate(choices.name, domain)] if balancer and not app_parameters["CertificateArn"] else []
    by_token = data_parameters.get("DatabaseAuth") == "iam"
    role = MakeSecret(f"{prefix}/DB_PASS", choices.data_stack, "the password of the server's database role")
    back = _parameters(data).get("DatabaseAuth") == "iam" and not by_token
    if back and not _parameters(app):
        raise ConfigurationError(
            f"--db-auth password: what is to change in the database is done through a host, and there is no "
            f"{choices.app_stack}. Run `headrace aws up` without it first, and then with it."
        )
    there = by_token and bool(_parameters(data)) and cloud.parameter(role.name) is not None
    first: list[Step] = [role, SwitchLogin(choices, by_token=False)] if back else []
    return [
        # the role takes a password before RDS takes no token any more
        *first,
        MakeStack(choices.data_stack, templates.data(), data_parameters, choices.tags, _parameters(data)),
        *([] if by_token or back else [role]),
        MakeSecret(f"{prefix}/ADMIN_TOKEN", choices.data_stack, "the first administrator's token"),
        PutSettings(choices.name, choices.data_stack, changed),
        Publish(image, choices.name, architecture_of(app_parameters)),
        *certificate,
        MakeApp(
            MakeStack(choices.app_stack, templates.app(), app_parameters, choices.tags, _parameters(app)),
            image,
            by_token,
        ),
        RenewHosts(choices),
        MakeRole(choices),
        WaitHealthy(choices),
        *([SwitchLogin(choices, by_token=True)] if there else []),
        *([SettleLogin(choices)] if back else []),
        ApplySettings(choices),
        *([PointDomain(choices.app_stack, domain)] if balancer else []),
        ExpireLog(choices),
        TryOut(choices),
    ]


def _adopted(cloud: Cloud, choices: Choices, given: dict[str, str]) -> dict[str, str]:
    """What RDS and S3 say of what is adopted. Raises ConfigurationError where hosts could not be beside it."""
    found = adopt.parameters(cloud, choices.existing_database, choices.existing_database_name, choices.existing_bucket)
    vpc = found.get("VpcId", "")
    if vpc and given.get("VpcId", vpc) not in ("", vpc):
        raise ConfigurationError(
            f"--existing-database {choices.existing_database} is in {vpc}, and --vpc-id is {given['VpcId']}: the hosts "
            "must be in the database's VPC. Leave --vpc-id out."
        )
    return found


def _balancer_ranges(cloud: Cloud, data: Mapping[str, str], app: Mapping[str, str]) -> list[str]:
    """Those of the balancer's subnets, in a network that is not ours; none where it is.

    Raises ConfigurationError for subnets that RDS or the balancer would refuse, when other things are made already.
    """
    balancer = app.get("Ingress") == "alb"
    of_hosts, of_balancer = data.get("AppSubnetIds", ""), app.get("BalancerSubnetIds", "")
    of_database = "" if data.get("ExistingDatabase") else data.get("DatabaseSubnetIds", "")
    vpc, ranges = data.get("VpcId", ""), []
    for option, given, of_two_zones in (
        ("--database-subnet-ids", of_database, "RDS"),
        ("--app-subnet-ids", of_hosts, "the balancer" if balancer and not of_balancer else ""),
        ("--balancer-subnet-ids", of_balancer, "the balancer" if balancer else ""),
    ):
        if not given:
            continue
        subnets = cloud.call("ec2", "describe_subnets", SubnetIds=given.split(","))["Subnets"]
        if elsewhere := [one["SubnetId"] for one in subnets if vpc and one["VpcId"] != vpc]:
            raise ConfigurationError(f"{option}: {', '.join(elsewhere)} is not in {vpc}, where the deployment is.")
        zones_of = {one["AvailabilityZone"] for one in subnets}
        if of_two_zones and len(zones_of) < 2:
            raise ConfigurationError(
                f"{option}: {given} is in {', '.join(zones_of)} alone, and {of_two_zones} needs subnets in two zones."
            )
        ranges = sorted(one["CidrBlock"] for one in subnets)  # of the last
    return ranges


def _check_certificate(cloud: Cloud, arn: str) -> None:
    """Raises ConfigurationError for what no balancer of the region can use."""
    if arn and (parts := arn.split(":"))[2:4] != ["acm", cloud.region]:
        where = f"is of {parts[3]}" if parts[2:3] == ["acm"] else "is no ARN of a certificate in ACM"
        raise ConfigurationError(
            f"--certificate-arn {arn} {where}, and a balancer in {cloud.region} takes one of there. Leave it out, and "
            "one is made."
        )


# what the data stack puts into SSM
_MADE = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_AUTH", "BUCKET")


def _check_parameters(cloud: Cloud, name: str) -> None:
    """Raises ConfigurationError where somebody's parameters are where a new data stack puts its own."""
    made = [f"/{name}/{key}" for key in _MADE]
    found = {one["Name"] for one in cloud.call("ssm", "get_parameters", Names=made)["Parameters"]}
    if found:
        names = " ".join(each for each in made if each in found)
        raise ConfigurationError(
            f"SSM in {cloud.region} has {names} already, of another deployment, or made by hand. With another --name "
            f"(such as {name[:20]}-2) both go on; if nothing reads them any more: aws ssm delete-parameters --region "
            f"{cloud.region} --names {names}"
        )


def _parameters(stack: Stack | None) -> dict[str, str]:
    return dict(stack.parameters) if stack is not None and stack.exists else {}


def _image(cloud: Cloud, choices: Choices, deployed: str, before: str) -> str:
    """The image that was chosen; at first the latest, later the one that runs, which only `upgrade` changes.

    `before`: what ran, where `down` has taken it away.
    """
    if not deployed:
        return before if before and not choices.image else images.full_name(cloud, choices.name, choices.image)
    if choices.image:
        chosen = images.full_name(cloud, choices.name, choices.image)
        if images.pinned(cloud, choices.name, chosen) != deployed:
            raise ConfigurationError(
                f"{choices.app_stack} runs {deployed}. `headrace aws upgrade {choices.image}` changes that, with a "
                "snapshot and a way back; leave --image out of `up`."
            )
    return deployed
