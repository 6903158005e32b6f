"""What an upgrade has to remember while it is under way, so that the next command can continue it, or go back.

It is the parameter /NAME/UPGRADE in SSM, there from the upgrade's first step until its last.
"""

from __future__ import annotations

import json
import time
from typing import NamedTuple

from headrace.aws.client import Cloud

_FRESH_SECONDS = 3600  # for so long an upgrade that was broken off needs no new snapshot


class Journal(NamedTuple):
    """An upgrade under way from the image `source` to `target`.

    `began` is in seconds since 1970; `snapshot` has the database as it was then; `migrating`: its schema may have
    changed since, and no server has written to it.
    """

    source: str
    target: str
    snapshot: str
    began: int
    migrating: bool = False


def read(cloud: Cloud, name: str) -> Journal | None:
    """The upgrade that is under way, if any."""
    kept = cloud.parameter(_parameter(name))
    return None if kept is None else Journal(**json.loads(kept))


def write(cloud: Cloud, name: str, journal: Journal) -> Journal:
    """Keep it, in the place of what was kept before."""
    cloud.put_parameter(_parameter(name), json.dumps(journal._asdict()), "Headrace: the upgrade that is under way")
    return journal


def begin(cloud: Cloud, name: str, source: str, target: str) -> Journal:
    """An upgrade's journal: a new one, or that of one which was broken off a short while ago.

    Where that one has begun to migrate, its snapshot is the last of the database as `source` knows it, whatever the
    target.
    """
    before, now = read(cloud, name), int(time.time())
    if before is not None and before.source == source:
        again = before.target == target and now - before.began < _FRESH_SECONDS
        if before.migrating or again:
            return before if before.target == target else write(cloud, name, before._replace(target=target))
    stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime(now))
    return write(cloud, name, Journal(source, target, f"headrace-{name}-{stamp}", now))


def end(cloud: Cloud, name: str) -> None:
    """The upgrade has ended, or was taken back: hosts start with the image of the stack."""
    want(cloud, name, None)
    cloud.drop_parameter(_parameter(name))


def want(cloud: Cloud, name: str, image: str | None) -> None:
    """What a host that boots, or tries again, runs in the place of its launch template's image (run_container.sh)."""
    parameter = f"/{name}/IMAGE"
    if image is None:
        cloud.drop_parameter(parameter)
    else:
        why = "Headrace: the image that the database's schema needs, while an upgrade is under way"
        cloud.put_parameter(parameter, image, why)


def _parameter(name: str) -> str:
    return f"/{name}/UPGRADE"
