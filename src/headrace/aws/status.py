"""What a deployment is like now, and its log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from headrace.aws import adopt, alarms, database, hosts, journal, patches, restore, server_settings, stacks
from headrace.aws.client import Cloud, polling
from headrace.aws.deployment import PORT, keys_of
from headrace.aws.stacks import Stack
from headrace.errors import AwsError


def status(cloud: Cloud, name: str, drift: bool) -> dict[str, Any]:
    """Stacks, hosts, database and alarms, for JSON. Raises AwsError."""
    found: dict[str, Any] = {"name": name, "region": cloud.region}
    for part in ("data", "app"):
        stack = stacks.find(cloud, f"{name}-{part}")
        found[part] = None if stack is None else {"stack": stack.name, "status": stack.status, "reason": stack.reason}
        if stack is None or not stack.exists:
            continue
        if drift:
            found[part]["drift"] = stacks.drift(cloud, stack.name)
        if part == "data":
            instance = database.instance(cloud, stack)
            found["database"] = {
                key: instance.get(key)
                for key in ("DBInstanceIdentifier", "DBInstanceStatus", "DBInstanceClass", "EngineVersion", "MultiAZ")
            }
            found["in_place"] = adopt.adopted(stack.parameters)
            found["put_aside"] = restore.put_aside(cloud, stack)
            found["bucket"] = stack.output("Bucket")
            found["keys"] = keys_of(stack.parameters)
        else:
            found["image"] = stack.parameters["Image"]
            found["url"] = (
                f"https://{stack.parameters['Domain']}"
                if stack.parameters.get("Ingress") == "alb"
                else "http://localhost:5000, while `headrace aws connect` runs"
            )
            found["hosts"] = [host._asdict() for host in hosts.find(cloud, stack)]
            in_vpc = stack.parameters.get("Ingress") == "vpc"
            found["in_vpc"] = [f"http://{each}:{PORT}" for each in hosts.addresses(cloud, stack)] if in_vpc else []
            found["old"] = patches.old(cloud, name, stack)
            found["suspended"] = hosts.suspended(cloud, stack)
            found["alarms"] = _alarms(cloud, stack.name)
            found["silenced"] = bool(alarms.silenced(cloud, stack.name))
            found["unconfirmed"] = _unconfirmed(cloud, stack)
            found["settings"] = server_settings.find(cloud, name)
            record = journal.read(cloud, name)
            found["upgrade"] = None if record is None else record._asdict()
    return found


def _unconfirmed(cloud: Cloud, app: Stack) -> list[str]:
    """Addresses that have not followed the link of SNS's mail yet: no alarm reaches them."""
    if not app.parameters.get("AlarmEmail"):
        return []
    if not (topic := stacks.resources(cloud, app.name).get("AlarmTopic")):
        return []
    subscriptions = cloud.pages("sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=topic)
    return [one["Endpoint"] for one in subscriptions if one["SubscriptionArn"] == "PendingConfirmation"]


def log(cloud: Cloud, name: str, follow: bool, since: float) -> Iterator[str]:
    """Lines of the servers' logs of the last `since` seconds; with `follow`, on and on."""
    group = f"/headrace/{name}"
    start = int((time.time() - since) * 1000)
    seen: set[str] = set()
    for _ in polling(first=1.0):
        try:
            events = list(cloud.pages("logs", "filter_log_events", "events", logGroupName=group, startTime=start))
        except AwsError as error:
            if error.code == "ResourceNotFoundException":
                raise AwsError(
                    f"There is no log group {group} in {cloud.region}. Is it another --name or --region? `headrace aws "
                    "up` makes it."
                ) from None
            raise
        for event in events:
            if event["eventId"] not in seen:
                yield event["message"].rstrip("\n")
        if not follow:
            return
        if events:  # AWS may deliver late: look again at what came within the last seconds
            start = max(start, events[-1]["timestamp"] - 10_000)
            seen = {event["eventId"] for event in events if event["timestamp"] >= start}


def _alarms(cloud: Cloud, stack: str) -> dict[str, str]:
    return {item["AlarmDescription"].partition(": ")[2]: item["StateValue"] for item in alarms.find(cloud, stack)}
