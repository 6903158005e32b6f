"""What a deployment costs a month. Pure; the table is dated, since AWS changes its prices without asking.

AWS's own pages (https://aws.amazon.com/ec2/pricing/on-demand/, /rds/postgresql/pricing/, /ebs/pricing/,
/cloudwatch/pricing/, ...) fill their tables by script, and their copies have no numbers, but for KMS's
(https://aws.amazon.com/kms/pricing/). So each number was read where somebody else had taken it from there, in 2026
where it is in READ; the others stand in no dated source that was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from headrace.aws.deployment import OWN_KEY, keys_of

DATE = "2026-06"
REGION = "us-east-1"
HOURS = 730  # of a month
# USD an hour, on demand, us-east-1
HOSTS = {
    "t4g.micro": 0.0084,
    "t3.micro": 0.0104,
    "t4g.medium": 0.0336,
    "t3.medium": 0.0416,
    "m7g.large": 0.0816,
    "m7i.large": 0.1008,
}
DATABASES = {"db.t4g.micro": 0.016, "db.t4g.medium": 0.065, "db.m7g.large": 0.168}  # one zone
# USD
BALANCER_HOUR = 0.0225 + 0.008  # and one capacity unit
ADDRESS_HOUR = 0.005
DISK_GB = 0.08
HOST_GB = 8  # of a host: Amazon Linux and Docker 2.5, three images of an upgrade 1.5
DATABASE_GB = 0.115  # one zone
KEY = 1.0  # one of the deployment's own; as much again for each of its first two rotations, which are a year apart
SECRET = 0.40
ALARM = 0.10
ALARMS = 8  # behind a balancer, as without
METRIC = 0.30  # a custom one
METRICS = 3  # errors among them, which a balancer counts by itself
DASHBOARD = 3.0
REQUEST = 0.01 / 1000  # of PutMetricData
REQUESTS = 60 * HOURS  # a host's, one a minute
# for which CloudWatch asks nothing of an account in a month, in all its regions but GovCloud's
ALLOWANCE = "10 alarms, 10 metrics, 3 dashboards and 1,000,000 requests"
NOT_COUNTED = (
    "artifacts (S3: 0.023 a GB), images (ECR: 0.10 a GB), logs (0.50 a GB, kept for 30 days), traffic out (0.09 a GB) "
    "and between zones (0.01 a GB each way), backups and upgrades' snapshots beyond the database's size (0.095 a GB; "
    "snapshots go after 90 days, but for the newest three), CPU credits of a t4g or t3 host, or a db.t4g database, "
    "that is busy for hours (0.04, 0.05 and 0.075 a vCPU-hour), the rotation of a KMS key (1.00 a month more after a "
    "year, and 1.00 more after two), alarm mails beyond 1,000 a month (2.00 for 100,000)"
)
# what -> where the number was read, with its date
READ = {
    "t3.micro": "wring.co, blog/aws-ec2-pricing-guide, 2026-03",
    "t3.medium": "hacecuentas.com, costo-servidor-cloud-aws-ec2-mensual, 2026-04",
    "m7i.large": "c3x.dev, m5-vs-m6i-vs-m7i-cost-performance, 2026: half of m7i.xlarge",
    "m7g.large": "factualminds.com, amazon-ec2-on-demand-pricing-instance-families-2026, 2026-06",
    "db.t4g.micro, db.t4g.medium": "infratally.com, aws-rds-pricing-explained-2026",
    "RDS storage": "usage.ai, rds/pricing-calculator, 2026-06",
    "public IPv4 address": "doit.com, aws-public-ipv4-price-increase-the-complete-guide, since 2024-02",
    "load balancer": "awsnegotiations.com, elastic-load-balancer-cost, 2026-05",
    "KMS key": "cloudburn.io, aws-kms-pricing, 2026-03",
    "ECR, traffic": "wring.co, aws-ecr-pricing-guide, 2026-03",
    "custom metrics": "signoz.io, guides/cloudwatch-pricing, 2026-02",
    "logs, dashboards": "factualminds.com, amazon-cloudwatch-pricing-metrics-logs-alarms-dashboards, 2026-06",
}
# in undated tables of public programs, all of which agree, in one undated page, or from memory
UNDATED = (
    "t4g.micro, t4g.medium and db.m7g.large (the same in several programs' price tables); database's master secret, "
    "alarms, CPU credits (one page each); disks, S3, requests, mails (from memory)"
)


class Item(NamedTuple):
    """A line of the bill, USD a month. `free`: where the account uses nothing else of CloudWatch's allowance."""

    what: str
    price: float | None
    free: bool = False


def estimate(data: Mapping[str, str], app: Mapping[str, str]) -> list[Item]:
    """The bill for the stacks' parameters; a price is None for a machine that the table does not have."""
    hosts, zones = int(app["Instances"]), 2 if data["MultiAZ"] == "true" else 1
    balanced = app.get("Ingress") == "alb"
    addresses = (hosts if not data.get("VpcId") else 0) + (2 if balanced else 0)
    storage = int(data["DatabaseStorage"])
    database = [
        Item(
            f"RDS PostgreSQL {data['DatabaseClass']}" + (", with a standby" if zones == 2 else ""),
            _monthly(DATABASES.get(data["DatabaseClass"]), zones),
        ),
        Item(f"RDS storage {storage} GB", storage * zones * DATABASE_GB),
        Item("the database's master secret", SECRET),
    ]
    items = [
        Item(f"{hosts} x EC2 {app['InstanceType']}", _monthly(HOSTS.get(app["InstanceType"]), hosts)),
        Item(f"{hosts} x disk of {HOST_GB} GB", hosts * HOST_GB * DISK_GB),
        *([] if data.get("ExistingDatabase") else database),
        Item(f"{addresses} x public IPv4 address", _monthly(ADDRESS_HOUR, addresses)),
        *([Item("KMS key", KEY)] if keys_of(data) == OWN_KEY else []),
        Item(f"{ALARMS} alarms", ALARMS * ALARM, free=True),
        Item(f"{_metrics(balanced)} metrics of its own", _metrics(balanced) * METRIC, free=True),
        Item("their requests", hosts * REQUESTS * REQUEST, free=True),
        Item("dashboard", DASHBOARD, free=True),
    ]
    if balanced:
        items.append(Item("load balancer", _monthly(BALANCER_HOUR, 1)))
    return items


def billed(items: list[Item]) -> float:
    """USD a month, as AWS bills it where the account uses nothing else of CloudWatch's allowance."""
    return sum(item.price or 0.0 for item in items if not item.free)


def without_allowance(items: list[Item]) -> float:
    """The same where others use all of it."""
    return sum(item.price or 0.0 for item in items)


def _metrics(balanced: bool) -> int:
    return METRICS - 1 if balanced else METRICS


def table(items: list[Item], region: str) -> str:
    """The bill as text."""
    lines = [
        f"  {item.what:<46}{'?' if item.price is None else f'{item.price:9.2f}'}{'  *' if item.free else ''}"
        for item in items
    ]
    other = "" if region == REGION else f" {region} differs, usually by less than a third."
    return "\n".join(
        [
            f"USD a month (list prices of {REGION}, {DATE}, on demand):{other}",
            *lines,
            f"  {'together, without *':<46}{billed(items):9.2f}",
            f"  {'together':<46}{without_allowance(items):9.2f}",
            f"  * free where nothing else uses what CloudWatch gives each account: {ALLOWANCE}; not in GovCloud",
            f"  not counted: {NOT_COUNTED}",
            f"  not read in a dated source: {UNDATED}",
            "  https://calculator.aws has today's prices",
        ]
    )


def _monthly(an_hour: float | None, count: int) -> float | None:
    return None if an_hour is None else an_hour * HOURS * count
