"""The two zones of a new network: such as have the types of the hosts and of the database.

Not every zone has every type: use1-az3 has no Graviton, and which of an account's letters that zone is differs between
accounts (https://docs.aws.amazon.com/ram/latest/userguide/working-with-az-ids.html). CloudFormation's own first two
(Fn::GetAZs) are taken by their letters. A network keeps its zones, so that those are preferred that have the other
sizes' types, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from headrace.aws.client import Cloud
from headrace.aws.deployment import SIZES, Size
from headrace.errors import ConfigurationError

_LOOKED_AT = 200  # of RDS's options for a class: each version of PostgreSQL has some, and all the same zones


def choose(cloud: Cloud, size: Size, architecture: str) -> tuple[str, str]:
    """Their names. Raises ConfigurationError where no two zones have what the size needs."""
    host, names = size.instance_types[architecture], available(cloud)
    offered = _offered(cloud, [one.instance_types[architecture] for one in SIZES.values()])
    orderable = {one.database: _orderable(cloud, one.database) for one in SIZES.values()}
    everywhere = {**offered, **orderable}
    fit = [name for name in names if name in offered[host] and name in orderable[size.database]]
    if len(fit) < 2:
        raise ConfigurationError(
            f"{cloud.region} has {host} and {size.database} in {' and '.join(fit) or 'no zone'}, and two zones are "
            "needed. Take --architecture x86_64, another --size or --region, or subnets of yours (--vpc-id, "
            "--app-subnet-ids)."
        )
    fit.sort(key=lambda name: sum(name not in zones for zones in everywhere.values()))
    first, second = sorted(fit[:2])
    return first, second


def available(cloud: Cloud) -> list[str]:
    """The region's zones that serve; not its local ones, which have neither RDS nor the sizes' types."""
    kinds = {"state": "available", "zone-type": "availability-zone"}
    asked = [{"Name": name, "Values": [value]} for name, value in kinds.items()]
    found = cloud.call("ec2", "describe_availability_zones", Filters=asked)["AvailabilityZones"]
    return sorted(str(one["ZoneName"]) for one in found)


def _offered(cloud: Cloud, types: list[str]) -> Mapping[str, set[str]]:
    """Type -> the zones that have it."""
    offers = cloud.pages(
        "ec2",
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": types}],
    )
    found: dict[str, set[str]] = {each: set() for each in types}
    for one in offers:
        found[one["InstanceType"]].add(str(one["Location"]))
    return found


def _orderable(cloud: Cloud, database: str) -> set[str]:
    """The zones in which RDS has the class, on the disk that the template names."""
    options = cloud.pages(
        "rds",
        "describe_orderable_db_instance_options",
        "OrderableDBInstanceOptions",
        Engine="postgres",
        DBInstanceClass=database,
        Vpc=True,
    )
    for one in islice(options, _LOOKED_AT):
        if one.get("StorageType") == "gp3":
            return {str(zone["Name"]) for zone in one["AvailabilityZones"]}
    return set()
