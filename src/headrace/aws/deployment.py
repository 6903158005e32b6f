"""What a user may choose, and the stacks' parameters that follow from it. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.errors import ConfigurationError

PORT = 5000
_NAME = re.compile(r"(?=.{2,24}\Z)[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_DOMAIN = re.compile(r"(?=.{1,64}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]\Z")
# what a name may not begin with: SSM keeps the first two for AWS, Elastic Load Balancing the third for itself
_RESERVED = ("aws", "ssm", "internal-")
_NO_TOKENS = (
    "--db-auth iam is for a database that `up` makes: with it RDS asks the master user for tokens, too, and shuts out "
    "whatever else logs in at --existing-database as that. Leave it out."
)
OWN_KEY, AWS_KEYS = "customer-managed", "aws-managed"  # as AWS calls them; the templates' Keys
AWS_KEYS_LACK = (
    "keys that AWS manages encrypt the data: no snapshot can be shared with another account, no key policy of yours "
    "says who decrypts, and who may read any parameter of SSM in the account (as hosts with "
    "AmazonSSMManagedInstanceCore may) reads the deployment's secrets"
)
_AMI = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-"


class Size(NamedTuple):
    """`instance_types`: by architecture; storage in GiB."""

    what: str
    instance_types: Mapping[str, str]
    instances: int
    database: str
    storage: int
    multi_az: bool
    connections_alarm: int
    keys: str


SIZES = {
    "dev": Size(
        what="one small host, one small database",
        instance_types={"arm64": "t4g.micro", "x86_64": "t3.micro"},
        instances=1,
        database="db.t4g.micro",
        storage=20,
        multi_az=False,
        connections_alarm=60,
        keys=AWS_KEYS,
    ),
    "team": Size(
        what="one host, a database of 4 GB",
        instance_types={"arm64": "t4g.medium", "x86_64": "t3.medium"},
        instances=1,
        database="db.t4g.medium",
        storage=50,
        multi_az=False,
        connections_alarm=300,
        keys=OWN_KEY,
    ),
    "ha": Size(
        what="two hosts in two zones behind the balancer, a database with a standby",
        instance_types={"arm64": "m7g.large", "x86_64": "m7i.large"},
        instances=2,
        database="db.m7g.large",
        storage=100,
        multi_az=True,
        connections_alarm=700,
        keys=OWN_KEY,
    ),
}


@dataclass(frozen=True)
class Choices:
    """The options of `headrace aws plan` and `up`; None leaves what is deployed, or the default, as it is.

    `tags` are put on everything that the stacks make, beside those that it has.
    `settings` of the server (name -> value) are set, those of `unset` taken away; the others stay.
    """

    name: str = "mlflow"
    size: str | None = None
    architecture: str | None = None
    ingress: str | None = None
    scheme: str | None = None
    domain: str | None = None
    certificate_arn: str | None = None
    allow_cidr: str | None = None
    allow_security_group: str | None = None
    alarm_email: str | None = None
    permissions_boundary: str | None = None
    db_auth: str | None = None
    backup_days: int | None = None
    keys: str | None = None
    vpc_id: str | None = None
    app_subnet_ids: str | None = None
    database_subnet_ids: str | None = None
    balancer_subnet_ids: str | None = None
    existing_database: str | None = None
    existing_database_name: str | None = None
    existing_bucket: str | None = None
    image: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        for key in self.tags:
            if key == "headrace" or key.startswith("aws:"):
                raise ConfigurationError(f"--tag {key}: that tag is {'AWS' if ':' in key else 'Headrace'}'s own.")
        if self.domain is not None and not _DOMAIN.match(self.domain):
            raise ConfigurationError(
                f"--domain {self.domain} can't be: it is a name alone, mlflow.example.com say, in small letters, "
                "without https:// or a path, of 64 characters at most, as ACM takes it."
            )
        if self.alarm_email is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+", self.alarm_email):
            raise ConfigurationError(f"--alarm-email {self.alarm_email} is no address of mail.")
        boundary = self.permissions_boundary
        if boundary is not None and not re.fullmatch(r"arn:[a-z-]+:iam::(\d{12}|aws):policy/.+", boundary):
            raise ConfigurationError(
                f"--permissions-boundary {boundary} is no ARN of a policy, arn:aws:iam::123456789012:policy/limit say."
            )
        if self.allow_cidr is not None:
            try:
                ipaddress.IPv4Network(self.allow_cidr)
            except ValueError as error:
                raise ConfigurationError(f"--allow-cidr {self.allow_cidr} is no range of addresses: {error}.") from None
        if self.vpc_id and not self.app_subnet_ids:
            raise ConfigurationError(
                "--vpc-id needs --app-subnet-ids (two subnets from which hosts reach the Internet, with a comma "
                "between them) and, if the database shall be in others, --database-subnet-ids."
            )
        if self.existing_database and self.db_auth == "iam":
            raise ConfigurationError(_NO_TOKENS)
        if self.existing_database and not self.app_subnet_ids:
            raise ConfigurationError(
                "--existing-database needs --app-subnet-ids: two subnets of its VPC, with a comma between them, from "
                "which the hosts reach the Internet."
            )

    @property
    def data_stack(self) -> str:
        return f"{self.name}-data"

    @property
    def app_stack(self) -> str:
        return f"{self.name}-app"

    def data_parameters(self, deployed: Mapping[str, str]) -> dict[str, str]:
        """The data stack's parameters; `deployed` are those of the stack as it is, empty for a new one."""
        parameters = {"Name": self.name, "Keys": self._keys(deployed)}
        if size := self._size(deployed):
            parameters |= {
                "DatabaseClass": size.database,
                "DatabaseStorage": str(size.storage),
                "DatabaseStorageLimit": str(5 * size.storage),
                "MultiAZ": str(size.multi_az).lower(),
            }
        if deployed.get("ExistingDatabase") and self.db_auth == "iam":
            raise ConfigurationError(_NO_TOKENS)
        parameters |= _given(
            DatabaseAuth=self.db_auth,
            BackupDays=None if self.backup_days is None else str(self.backup_days),
            VpcId=self.vpc_id,
            AppSubnetIds=self.app_subnet_ids,
            DatabaseSubnetIds=self.database_subnet_ids or self.app_subnet_ids,
            ExistingDatabase=self.existing_database,
            ExistingBucket=self.existing_bucket,
        )
        for key, option in (("ExistingDatabase", "database"), ("ExistingBucket", "bucket")):
            if deployed and parameters.get(key, deployed.get(key, "")) != deployed.get(key, ""):
                raise ConfigurationError(
                    f"{self.data_stack} has {deployed.get(key) or f'a {option} of its own'}, and keeps it. Leave out "
                    f"--existing-{option}, or deploy with another --name."
                )
        for key in ("VpcId", "AppSubnetIds", "DatabaseSubnetIds"):
            if deployed and parameters.get(key, deployed.get(key, "")) != deployed.get(key, ""):
                raise ConfigurationError(
                    f"{self.data_stack} is in {deployed.get('VpcId') or 'a VPC of its own'}, and a database can't move "
                    "to another network. Leave out --vpc-id and the subnets, or deploy anew with another --name."
                )
        if "DatabaseStorage" in parameters and int(deployed.get("DatabaseStorage", 0)) > int(
            parameters["DatabaseStorage"]
        ):
            parameters["DatabaseStorage"] = deployed["DatabaseStorage"]  # RDS can't shrink a disk
        return {**deployed, **parameters}

    def app_parameters(self, deployed: Mapping[str, str]) -> dict[str, str]:
        """The app stack's parameters, without the image. Raises ConfigurationError for what does not go together."""
        parameters = {"Name": self.name, "DataStack": self.data_stack}
        size = self._size(deployed)
        if self.architecture and size is None:
            size = size_of(deployed["InstanceType"])
        if size is not None:
            architecture = self.architecture or architecture_of(deployed)
            parameters |= {
                "InstanceType": size.instance_types[architecture],
                "Ami": _AMI + architecture,
                "Instances": str(size.instances),
                "MaxInstances": str(size.instances + 1),
                "DatabaseConnectionsAlarm": str(size.connections_alarm),
            }
        parameters |= _given(
            Ingress=self.ingress,
            Scheme=self.scheme,
            Domain=self.domain,
            CertificateArn=self.certificate_arn,
            AllowCidr=self.allow_cidr,
            BalancerSubnetIds=self.balancer_subnet_ids,
            AllowSecurityGroup=self.allow_security_group,
            AlarmEmail=self.alarm_email,
            PermissionsBoundary=self.permissions_boundary,
        )
        merged = {**deployed, **parameters}
        merged["CertificateArn"] = self._certificate(deployed)
        _check_ingress(merged)
        return merged

    def _keys(self, deployed: Mapping[str, str]) -> str:
        """What encrypts the data, decided once: no database, repository or secret changes its key."""
        if not deployed:
            return self.keys or SIZES[self.size or "dev"].keys
        kept = keys_of(deployed)
        if self.keys not in (None, kept):
            raise ConfigurationError(
                f"{self.data_stack} is encrypted with {kept} keys, and a database keeps its key. Leave out --keys, or "
                f"deploy with --keys {self.keys} and another --name, and take the data there (docs/aws.md, With "
                "copies)."
            )
        return kept

    def _certificate(self, deployed: Mapping[str, str]) -> str:
        """That of another domain is of no use; where there is none, `up` finds or makes one."""
        if self.certificate_arn or self.domain in (None, deployed.get("Domain")):
            return self.certificate_arn or deployed.get("CertificateArn", "")
        return ""

    def _size(self, deployed: Mapping[str, str]) -> Size | None:
        return SIZES[self.size] if self.size else None if deployed else SIZES["dev"]


def check_name(name: str) -> None:
    """Raises ConfigurationError for a name that AWS would not take somewhere."""
    if not _NAME.match(name):
        raise ConfigurationError(
            f"--name {name} can't be: it names an ECR repository, a path in SSM, a database and stacks. Take 2 to 24 "
            "of a to z, 0 to 9 and -, a letter first, and - only between two others."
        )
    if name.startswith(_RESERVED):
        raise ConfigurationError(
            f"--name {name} can't be: AWS keeps names that begin with {', '.join(_RESERVED)} for itself. Take another."
        )


def size_of(instance_type: str) -> Size:
    """The size that a host's type belongs to; dev's for a type that somebody set by hand."""
    return next((size for size in SIZES.values() if instance_type in size.instance_types.values()), SIZES["dev"])


def keys_of(data: Mapping[str, str]) -> str:
    """What encrypts the data of a stack with these parameters; one that does not say is of a time when there was one
    choice."""
    return data.get("Keys", OWN_KEY)


def architecture_of(parameters: Mapping[str, str]) -> str:
    """arm64 or x86_64."""
    return "x86_64" if parameters.get("Ami", "").endswith("x86_64") else "arm64"


def _given(**values: str | None) -> dict[str, str]:
    return {key: value for key, value in values.items() if value is not None}


def _check_ingress(parameters: Mapping[str, str]) -> None:
    balancer = parameters.get("Ingress", "none") == "alb"
    needed = {"Domain": "--domain", "AllowCidr": "--allow-cidr"}
    missing = [flag for key, flag in needed.items() if not parameters.get(key)]
    if balancer and missing:
        raise ConfigurationError(
            f"--ingress alb needs {', '.join(missing)}: the name that people will type, and the range of addresses "
            "that may connect (203.0.113.0/24, say)."
        )
    if parameters.get("Ingress") == "vpc" and not parameters.get("AllowSecurityGroup", "").startswith("sg-"):
        raise ConfigurationError(
            "--ingress vpc needs --allow-security-group: that of the machines and jobs that may connect (sg-...)."
        )
    if not balancer and int(parameters.get("Instances", 1)) > 1:
        raise ConfigurationError(
            "--size ha is two hosts behind a load balancer: give --ingress alb --domain ... --allow-cidr ..., "
            "or take --size team."
        )
