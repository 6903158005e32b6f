"""What of a deployment is old: Amazon Linux of the hosts, and the image. Both get security fixes by being replaced."""

from __future__ import annotations

from datetime import UTC, datetime

from headrace.aws import hosts, images
from headrace.aws.client import Cloud
from headrace.aws.stacks import Stack

DAYS = 60
"""From which on it is told. Amazon Linux 2023 has a new image every two weeks or so."""


def old(cloud: Cloud, name: str, app: Stack, now: datetime | None = None) -> list[str]:
    """A line for each part that is older than DAYS, with the command that renews it. Raises AwsError."""
    now = now or datetime.now(UTC)
    found = []
    for host, made in hosts.systems(cloud, app).items():
        if (days := (now - made).days) > DAYS:
            found.append(
                f"Amazon Linux of {host} is of {made:%Y-%m-%d}, {days} days ago: `headrace aws up` puts a host with "
                "the newest in its place"
            )
    pushed = images.pushed(cloud, name, app.parameters["Image"])
    if pushed is not None and (days := (now - pushed).days) > DAYS:
        found.append(
            f"the image was pushed {pushed:%Y-%m-%d}, {days} days ago: build one anew, whose base has had fixes since, "
            "and `headrace aws upgrade`"
        )
    return found
