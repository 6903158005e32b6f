"""What `down` leaves of the app stack: its parameters, in SSM, so that the next `up` makes it as it was.

Size, ingress, domain and image are nowhere else. Once the stack is made, they are dropped: from then on it has its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from headrace.aws.client import Cloud

PARAMETER = "APP"  # below /NAME


def keep(cloud: Cloud, name: str, parameters: Mapping[str, str]) -> None:
    """Keep a stack's parameters, of which the empty ones are the template's defaults."""
    text = json.dumps({key: value for key, value in parameters.items() if value})
    cloud.put_parameter(f"/{name}/{PARAMETER}", text, "Headrace: how `down` found the app stack")


def find(cloud: Cloud, name: str) -> dict[str, str]:
    """Empty where no `down` has kept any since the stack was made."""
    kept = cloud.parameter(f"/{name}/{PARAMETER}")
    return {} if kept is None else dict(json.loads(kept))


def drop(cloud: Cloud, name: str) -> None:
    """The stack is made."""
    cloud.drop_parameter(f"/{name}/{PARAMETER}")
