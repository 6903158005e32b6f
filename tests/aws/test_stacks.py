"""Stacks that fail, drift, and calls that are throttled or refused. Moto has none of these: botocore's Stubber has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.stub import ANY, Stubber

from headrace.aws import stacks
from headrace.aws.client import Cloud
from headrace.aws.stacks import ChangeSet
from headrace.errors import AwsError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARN = "arn:aws:cloudformation:us-east-1:123456789012:changeSet/headrace-1/1"


@pytest.fixture
def answers(cloud: Cloud) -> Iterator[Stubber]:
    with Stubber(cloud.client("cloudformation")) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def stack(status: str, reason: str = "") -> dict[str, Any]:
    return {"Stacks": [{"StackName": "s", "StackStatus": status, "StackStatusReason": reason, "CreationTime": NOW}]}


def events(*given: tuple[str, str, str, str]) -> dict[str, Any]:
    """Of (id, resource, status, reason), the newest first, as AWS has them."""
    return {
        "StackEvents": [
            {
                "StackId": "arn:s",
                "StackName": "s",
                "EventId": event,
                "LogicalResourceId": resource,
                "ResourceType": "AWS::AutoScaling::AutoScalingGroup",
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
                "Timestamp": NOW,
            }
            for event, resource, status, reason in given
        ]
    }


def test_a_failed_stack_tells_the_first_reason(
    cloud: Cloud, answers: Stubber, say: Callable[[str], None], said: list[str]
) -> None:
    """Not the last: what AWS cancels and rolls back after it explains nothing."""
    old = ("1", "s", "REVIEW_IN_PROGRESS", "")
    under_way = ("2", "Hosts", "CREATE_IN_PROGRESS", "")
    failed = (
        "3",
        "Hosts",
        "CREATE_FAILED",
        "You have requested more vCPU capacity than your current vCPU limit allows",
    )
    cancelled = ("4", "Role", "CREATE_FAILED", "Resource creation cancelled")
    answers.add_response("describe_stack_events", events(old))
    answers.add_response("execute_change_set", {})
    answers.add_response("describe_stacks", stack("CREATE_IN_PROGRESS"))
    answers.add_response("describe_stack_events", events(under_way, old))
    answers.add_response("describe_stacks", stack("ROLLBACK_IN_PROGRESS"))
    answers.add_response("describe_stack_events", events(cancelled, failed, under_way, old))
    answers.add_response("describe_stacks", stack("ROLLBACK_COMPLETE"))
    answers.add_response("describe_stack_events", events(cancelled, failed, under_way, old))
    with pytest.raises(AwsError) as caught:
        stacks.execute(cloud, ChangeSet("s", ARN, (), creates=True), say)
    text = str(caught.value)
    assert "The stack s in us-east-1 is ROLLBACK_COMPLETE" in text
    assert "Hosts (AWS::AutoScaling::AutoScalingGroup): You have requested more vCPU capacity" in text
    assert "Service Quotas" in text
    assert "run the command again: it continues" in text
    assert said[0] == "Hosts: CREATE_IN_PROGRESS", "every event is said once, in its order"
    assert len(said) == 3


def test_an_update_that_rolled_back_is_a_failure(cloud: Cloud, answers: Stubber, say: Callable[[str], None]) -> None:
    failed = ("2", "Listener", "UPDATE_FAILED", "Certificate ARN 'arn:c' is not valid")
    answers.add_response("describe_stack_events", events())
    answers.add_response("execute_change_set", {})
    answers.add_response("describe_stacks", stack("UPDATE_ROLLBACK_COMPLETE"))
    answers.add_response("describe_stack_events", events(failed))
    with pytest.raises(AwsError, match="Certificate ARN 'arn:c' is not valid"):
        stacks.execute(cloud, ChangeSet("s", ARN, (), creates=False), say)


def test_up_continues_what_an_earlier_command_left_under_way(
    cloud: Cloud, answers: Stubber, say: Callable[[str], None], said: list[str]
) -> None:
    answers.add_response("describe_stacks", stack("CREATE_IN_PROGRESS"))
    answers.add_response("describe_stack_events", events())
    answers.add_response("describe_stacks", stack("CREATE_IN_PROGRESS"))
    answers.add_response("describe_stack_events", events())
    answers.add_response("describe_stacks", stack("CREATE_COMPLETE"))
    answers.add_response("describe_stack_events", events())
    found = stacks.settle(cloud, "s", say)
    assert found is not None
    assert found.status == "CREATE_COMPLETE"
    assert "left by an earlier command; waiting for it" in said[0]


def test_a_stack_that_was_never_made_is_deleted_first(
    cloud: Cloud, answers: Stubber, say: Callable[[str], None]
) -> None:
    made = stack("ROLLBACK_COMPLETE")
    made["Stacks"][0]["StackId"] = "arn:s"
    answers.add_response("describe_stacks", made)
    database = {"LogicalResourceId": "Database", "PhysicalResourceId": "db", "ResourceType": "AWS::RDS::DBInstance"}
    summary = database | {"ResourceStatus": "DELETE_FAILED", "LastUpdatedTimestamp": datetime(2026, 1, 1, tzinfo=UTC)}
    answers.add_response("list_stack_resources", {"StackResourceSummaries": [summary]})
    answers.add_response("describe_stacks", made)
    answers.add_response("describe_stack_events", events())
    answers.add_response("delete_stack", {}, {"StackName": "s"})
    answers.add_response("describe_stacks", stack("DELETE_COMPLETE"), {"StackName": "arn:s"})
    answers.add_response("describe_stack_events", events())
    with Stubber(cloud.client("rds")) as rds:  # its protection would keep the stack for ever
        rds.add_response("modify_db_instance", {}, {
            "DBInstanceIdentifier": "db", "DeletionProtection": False, "ApplyImmediately": True,
        })  # fmt: skip
        rds.add_response("describe_db_instances", {"DBInstances": [{"DeletionProtection": False}]})
        assert stacks.settle(cloud, "s", say) is None
        rds.assert_no_pending_responses()


@pytest.mark.parametrize(("history", "lifted"), [("ROLLBACK_FAILED", True), ("CREATE_COMPLETE", False), (None, False)])
def test_a_deletion_that_failed_loses_its_protection_only_if_the_stack_never_lived(
    cloud: Cloud, answers: Stubber, say: Callable[[str], None], history: str | None, lifted: bool
) -> None:
    """What protected a live database from a deletion in the console must not be taken off by `plan`."""
    found = stack("DELETE_FAILED")
    found["Stacks"][0]["StackId"] = "arn:s"
    past = events(*([("1", "s", history, "")] if history else []))
    for event in past["StackEvents"]:
        event["ResourceType"] = "AWS::CloudFormation::Stack"
    answers.add_response("describe_stacks", found)
    answers.add_response("describe_stack_events", past)
    if lifted:
        answers.add_response("list_stack_resources", {"StackResourceSummaries": [{
            "LogicalResourceId": "Database", "PhysicalResourceId": "db", "ResourceType": "AWS::RDS::DBInstance",
            "ResourceStatus": "DELETE_FAILED", "LastUpdatedTimestamp": NOW,
        }]})  # fmt: skip
    answers.add_response("describe_stacks", found)
    answers.add_response("describe_stack_events", past)
    answers.add_response("delete_stack", {}, {"StackName": "s"})
    answers.add_response("describe_stacks", stack("DELETE_COMPLETE" if lifted else "DELETE_FAILED", "protected"))
    answers.add_response("describe_stack_events", past)
    with Stubber(cloud.client("rds")) as rds:  # where it is not lifted, any call of RDS is an error
        if lifted:
            rds.add_response("modify_db_instance", {}, {
                "DBInstanceIdentifier": "db", "DeletionProtection": False, "ApplyImmediately": True,
            })  # fmt: skip
            rds.add_response("describe_db_instances", {"DBInstances": [{"DeletionProtection": False}]})
            assert stacks.settle(cloud, "s", say) is None
        else:
            with pytest.raises(AwsError, match="DELETE_FAILED"):
                stacks.settle(cloud, "s", say)
        rds.assert_no_pending_responses()


def test_an_update_that_could_not_go_back_says_how_to_go_on(
    cloud: Cloud, answers: Stubber, say: Callable[[str], None]
) -> None:
    answers.add_response("describe_stacks", stack("UPDATE_ROLLBACK_FAILED", "Hosts: no such launch template"))
    with pytest.raises(AwsError, match="continue-update-rollback --stack-name s") as caught:
        stacks.settle(cloud, "s", say)
    assert "no such launch template" in str(caught.value)


def test_replacements_are_marked_over_every_page(cloud: Cloud, answers: Stubber) -> None:
    def change(name: str, replacement: str, *why: str) -> dict[str, Any]:
        details = [{"Target": {"Attribute": "Properties", "Name": one}} for one in why]
        resource = {"Action": "Modify", "LogicalResourceId": name, "ResourceType": "AWS::RDS::DBInstance"}
        return {"Type": "Resource", "ResourceChange": {**resource, "Replacement": replacement, "Details": details}}

    common = {"ChangeSetId": ARN, "Status": "CREATE_COMPLETE"}
    answers.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    answers.add_response("create_change_set", {"Id": ARN})
    answers.add_response("describe_change_set", {**common, "Status": "CREATE_IN_PROGRESS"})
    first = {**common, "NextToken": "more", "Changes": [change("Database", "True", "Engine", "Engine")]}
    answers.add_response("describe_change_set", first)
    answers.add_response("describe_change_set", {**common, "Changes": [change("Other", "False")]})
    proposal = stacks.propose(cloud, "s", "{}", {"Name": "s"})
    assert [(one.resource, one.replaced, one.why) for one in proposal.changes] == [
        ("Database", True, ("Engine",)),
        ("Other", False, ()),
    ]


def test_nothing_to_change_is_no_failure(cloud: Cloud, answers: Stubber) -> None:
    answers.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    answers.add_response("create_change_set", {"Id": ARN})
    reason = "The submitted information didn't contain changes. Submit different information to create a change set."
    answers.add_response("describe_change_set", {"ChangeSetId": ARN, "Status": "FAILED", "StatusReason": reason})
    answers.add_response("delete_change_set", {})
    assert stacks.propose(cloud, "s", "{}", {"Name": "s"}) == ChangeSet("s", "", (), creates=False)


def test_drift_says_what_differs(cloud: Cloud, answers: Stubber) -> None:
    answers.add_response("detect_stack_drift", {"StackDriftDetectionId": "d"})
    common = {"StackId": "s", "StackDriftDetectionId": "d", "Timestamp": NOW}
    answers.add_response(
        "describe_stack_drift_detection_status", {**common, "DetectionStatus": "DETECTION_IN_PROGRESS"}
    )
    answers.add_response("describe_stack_drift_detection_status", {**common, "DetectionStatus": "DETECTION_COMPLETE"})
    drifted = {
        "StackId": "s",
        "LogicalResourceId": "HostSecurityGroup",
        "ResourceType": "AWS::EC2::SecurityGroup",
        "StackResourceDriftStatus": "MODIFIED",
        "Timestamp": NOW,
        "PropertyDifferences": [
            {
                "PropertyPath": "/SecurityGroupIngress",
                "ExpectedValue": "[]",
                "ActualValue": "0.0.0.0/0",
                "DifferenceType": "NOT_EQUAL",
            }
        ],
    }
    answers.add_response("describe_stack_resource_drifts", {"StackResourceDrifts": [drifted]})
    assert stacks.drift(cloud, "s") == [
        "HostSecurityGroup (AWS::EC2::SecurityGroup): MODIFIED; /SecurityGroupIngress is 0.0.0.0/0, should be []"
    ]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AccessDenied", "Ask for the permission cloudformation:DescribeStacks"),
        ("ExpiredToken", "Log in again"),
        ("Throttling", "run the command again: it continues"),
        ("OptInRequired", "Switch the region on"),
    ],
)
def test_what_aws_refuses_comes_with_what_to_do(cloud: Cloud, answers: Stubber, code: str, advice: str) -> None:
    answers.add_client_error("describe_stacks", code, "AWS's own words")
    with pytest.raises(AwsError) as caught:
        stacks.find(cloud, "s")
    assert caught.value.code == code
    assert f"AWS refused cloudformation:DescribeStacks in us-east-1 ({code}): AWS's own words" in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (NoCredentialsError(), "aws configure"),
        (EndpointConnectionError(endpoint_url="https://x"), "Look at the network"),
    ],
)
def test_what_never_reached_aws_comes_with_what_to_do(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, error: Exception, advice: str
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cloud.client("sts"), "get_caller_identity", fail)
    with pytest.raises(AwsError, match=advice):
        cloud.account()


def test_throttled_calls_are_tried_again(cloud: Cloud) -> None:
    retries = cloud.client("cloudformation").meta.config.retries
    assert retries["total_max_attempts"] == 9


def test_no_region_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(AwsError, match="Give --region"):
        Cloud()
    with pytest.raises(AwsError, match="list-profiles"):
        Cloud("us-east-1", profile="nobody")


def test_tags_are_put_beside_those_that_the_stack_has(cloud: Cloud, answers: Stubber) -> None:
    """Other commands name none, and take none away."""
    there = stack("UPDATE_COMPLETE")
    there["Stacks"][0]["Tags"] = [
        {"Key": "team", "Value": "ml"},
        {"Key": "headrace", "Value": "lab"},
        {"Key": "aws:servicecatalog:id", "Value": "1"},
    ]
    for given, expected in (
        ({"cost": "7"}, {"cost": "7", "headrace": "lab", "team": "ml"}),
        (None, {"headrace": "lab", "team": "ml"}),
    ):
        answers.add_response("describe_stacks", there, {"StackName": "s"})
        answers.add_response(
            "create_change_set",
            {"Id": ARN},
            {
                "StackName": "s",
                "ChangeSetName": ANY,
                "ChangeSetType": "UPDATE",
                "TemplateBody": "template",
                "Parameters": [{"ParameterKey": "Name", "ParameterValue": "lab"}],
                "Capabilities": ["CAPABILITY_IAM"],
                "Tags": [{"Key": key, "Value": value} for key, value in expected.items()],
            },
        )
        answers.add_response("describe_change_set", {"Status": "CREATE_COMPLETE", "Changes": []})
        assert stacks.propose(cloud, "s", "template", {"Name": "lab"}, given).arn == ARN
