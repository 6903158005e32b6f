"""The alarms of a deployment: they send no mail about a server that a first `up` is still making."""

from __future__ import annotations

import re

from headrace.aws.client import Answer, Cloud
from headrace.aws.stacks import Say

_OF_A_STACK = re.compile("[A-Za-z0-9]+-[A-Za-z0-9]+")  # after its stack's name: the logical id, and what is random


def find(cloud: Cloud, app_stack: str) -> list[Answer]:
    """As CloudWatch has them; not those of another stack whose name begins so (x-app, and x-app-app)."""
    begin = f"{app_stack}-"
    found = cloud.pages("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=begin)
    return [one for one in found if _OF_A_STACK.fullmatch(one["AlarmName"].removeprefix(begin))]


def untried(cloud: Cloud, app_stack: str) -> bool:
    """Whether CloudWatch has heard of no server and alarmed of none: the stack is minutes old."""
    begin = f"{app_stack}-AlarmServer-"
    states = [one["StateValue"] for one in find(cloud, app_stack) if one["AlarmName"].startswith(begin)]
    return states == ["INSUFFICIENT_DATA"]


def quiet(cloud: Cloud, app_stack: str, say: Say) -> None:
    """Send nothing, until `loud`. One that is killed before leaves them so; `status` says it, and `up` ends it."""
    if names := [one["AlarmName"] for one in find(cloud, app_stack)]:
        cloud.call("cloudwatch", "disable_alarm_actions", AlarmNames=names)
        say("alarms: quiet until the server is proved")


def loud(cloud: Cloud, app_stack: str, say: Say) -> None:
    """Send mails from now on."""
    if names := silenced(cloud, app_stack):
        cloud.call("cloudwatch", "enable_alarm_actions", AlarmNames=names)
        say("alarms: on")


def silenced(cloud: Cloud, app_stack: str) -> list[str]:
    """The names of those that send nothing."""
    return [one["AlarmName"] for one in find(cloud, app_stack) if not one.get("ActionsEnabled", True)]
