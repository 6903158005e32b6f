"""Who gets no alarm yet, since AWS's mail is not confirmed. SNS is a fake: moto confirms at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.aws import status
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
