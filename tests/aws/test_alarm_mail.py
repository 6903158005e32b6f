"""Who gets no alarm yet: AWS's mail is not confirmed, or `up` is at work. SNS is a fake: moto confirms at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.stub import Stubber

from headrace.aws import alarms, status
from headrace.aws.client import Cloud
from headrace.aws.stacks import Stack

TOPIC = "arn:aws:sns:us-east-1:123456789012:lab-app-AlarmTopic-1"
EMAIL = "ops@example.org"


class Subscribed(Cloud):
    def __init__(self, subscription: str) -> None:
        super().__init__("us-east-1")
        self.subscription = subscription

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        if operation == "list_stack_resources":
            yield {"LogicalResourceId": "AlarmTopic", "PhysicalResourceId": TOPIC}
        else:
            assert (operation, arguments) == ("list_subscriptions_by_topic", {"TopicArn": TOPIC})
            yield {"Endpoint": EMAIL, "SubscriptionArn": self.subscription}


def app(email: str) -> Stack:
    return Stack("lab-app", "CREATE_COMPLETE", {"AlarmEmail": email}, {})


def test_a_mail_that_nobody_has_confirmed_is_told() -> None:
    assert status._unconfirmed(Subscribed("PendingConfirmation"), app(EMAIL)) == [EMAIL]
    assert status._unconfirmed(Subscribed(f"{TOPIC}:1"), app(EMAIL)) == []
    assert status._unconfirmed(Subscribed("PendingConfirmation"), app("")) == []


@pytest.mark.parametrize(
    ("state", "untried"), [("INSUFFICIENT_DATA", True), ("OK", False), ("ALARM", False), (None, False)]
)
def test_a_stack_whose_command_was_broken_off_is_known(cloud: Cloud, state: str | None, untried: bool) -> None:
    disk = {"AlarmName": "lab-app-AlarmDisk-1A", "StateValue": "INSUFFICIENT_DATA"}
    server = [] if state is None else [{"AlarmName": "lab-app-AlarmServer-1A", "StateValue": state}]
    with Stubber(cloud.client("cloudwatch")) as watch:
        watch.add_response("describe_alarms", {"MetricAlarms": [disk, *server]}, {"AlarmNamePrefix": "lab-app-"})
        assert alarms.untried(cloud, "lab-app") is untried


def test_a_first_up_sends_no_alarm(cloud: Cloud, said: list[str]) -> None:
    """Another deployment's, lab-app, are none of its own."""
    states = (("A-1", True), ("B-1Z", False), ("app-A-1", True), ("app-B-1Z", False))
    found = [{"AlarmName": f"lab-app-{one}", "ActionsEnabled": on} for one, on in states]
    with Stubber(cloud.client("cloudwatch")) as watch:
        for operation, names in (("disable", ["lab-app-A-1", "lab-app-B-1Z"]), ("enable", ["lab-app-B-1Z"])):
            watch.add_response("describe_alarms", {"MetricAlarms": found}, {"AlarmNamePrefix": "lab-app-"})
            watch.add_response(f"{operation}_alarm_actions", {}, {"AlarmNames": names})
        alarms.quiet(cloud, "lab-app", said.append)
        alarms.loud(cloud, "lab-app", said.append)
        watch.assert_no_pending_responses()
        watch.add_response("describe_alarms", {"MetricAlarms": found[:1]}, {"AlarmNamePrefix": "lab-app-"})
        alarms.loud(cloud, "lab-app", said.append)
    assert said == ["alarms: quiet until the server is proved", "alarms: on"]
