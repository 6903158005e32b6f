"""Stacks that fail, drift, and calls that are throttled or refused. Moto has none of these: botocore's Stubber has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidConfigError,
    NoCredentialsError,
    ProxyConnectionError,
    SSLError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.stub import ANY, Stubber
from click.testing import CliRunner

from headrace.aws import down, stacks, tunnel
from headrace.aws.client import Cloud
from headrace.aws.execute import Live
from headrace.aws.plan import MakeSecret, MakeStack
from headrace.aws.stacks import ChangeSet
from headrace.cli.aws import aws
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
    with pytest.raises(AwsError, match="continue-update-rollback --region us-east-1 --stack-name s") as caught:
        stacks.settle(cloud, "s", say)
    assert "no such launch template" in str(caught.value)


@pytest.mark.parametrize("status", ["UPDATE_ROLLBACK_FAILED", "IMPORT_ROLLBACK_FAILED"])
def test_what_could_not_go_back_is_taken_away_all_the_same(
    cloud: Cloud, answers: Stubber, say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """CloudFormation deletes a stack in that state, and `down` needs nothing of it put right before."""
    monkeypatch.setattr(stacks, "resources", lambda *_: {})
    monkeypatch.setattr("headrace.aws.journal.end", lambda *_: None)
    monkeypatch.setattr("headrace.aws.leftover.keep", lambda *_: None)
    for _ in range(2):
        answers.add_response("describe_stacks", stack(status, "Hosts: no such launch template"))
    answers.add_response("describe_stack_events", events(("1", "s", status, "")))
    answers.add_response("delete_stack", {}, {"StackName": "s"})
    answers.add_response("describe_stacks", stack("DELETE_COMPLETE"))
    answers.add_response("describe_stack_events", events(("1", "s", status, "")))
    down.down(cloud, "s", say)


@pytest.mark.parametrize("rested", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_that_an_earlier_command_failed_is_no_failure_of_this_one(
    cloud: Cloud, answers: Stubber, say: Callable[[str], None], rested: str
) -> None:
    """It was waited for: what can't be used is deleted, what went back is as it was."""
    answers.add_response("describe_stacks", stack(rested.replace("COMPLETE", "IN_PROGRESS")))
    answers.add_response("describe_stack_events", events())
    answers.add_response("describe_stacks", stack(rested))
    answers.add_response("describe_stack_events", events())
    if rested == "ROLLBACK_COMPLETE":
        answers.add_response("list_stack_resources", {"StackResourceSummaries": []})
        answers.add_response("describe_stacks", stack(rested))
        answers.add_response("describe_stack_events", events())
        answers.add_response("delete_stack", {}, {"StackName": "s"})
        answers.add_client_error("describe_stacks", "ValidationError", "Stack with id s does not exist")
        answers.add_response("describe_stack_events", events())
        assert stacks.settle(cloud, "s", say) is None
    else:
        found = stacks.settle(cloud, "s", say)
        assert found is not None
        assert found.exists


def test_every_status_that_cloudformation_has_is_one_of_ours(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, say: Callable[[str], None]
) -> None:
    """By botocore's model: waited for, deleted, told, or gone on from; none is passed over."""
    known = cloud.client("cloudformation").meta.service_model.shape_for("StackStatus").enum
    now = ""
    done: list[str] = []
    monkeypatch.setattr(stacks, "find", lambda *_: stacks.Stack("s", now, {}, {}))
    monkeypatch.setattr(stacks, "_last_event", lambda *_: "")
    monkeypatch.setattr(stacks, "_unprotect", lambda *_: None)
    monkeypatch.setattr(stacks, "_never_made", lambda *_: True)
    monkeypatch.setattr(stacks, "delete", lambda *_: done.append("deleted"))

    def watch(*_: Any) -> tuple[stacks.Stack, list[str]]:
        done.append("waited")
        return stacks.Stack("s", "UPDATE_COMPLETE", {}, {}), []

    monkeypatch.setattr(stacks, "_watch", watch)
    by_what: dict[str, set[str]] = {}
    for now in known:
        done.clear()
        try:
            stacks.settle(cloud, "s", say)
        except AwsError:
            done.append("told")
        by_what.setdefault(" ".join(done) or "gone on from", set()).add(now)
    assert by_what["deleted"] == {"CREATE_FAILED", "ROLLBACK_FAILED", "ROLLBACK_COMPLETE", "DELETE_FAILED"}
    assert by_what["told"] == {"UPDATE_ROLLBACK_FAILED", "IMPORT_ROLLBACK_FAILED"}
    assert by_what["waited"] == {one for one in known if one.endswith("_IN_PROGRESS")} - {"REVIEW_IN_PROGRESS"}
    assert {one for one in by_what["gone on from"] if not one.endswith("_COMPLETE")} == {
        "UPDATE_FAILED",
        "REVIEW_IN_PROGRESS",
    }


UPDATING = "Stack:arn:aws:cloudformation:us-east-1:1:stack/s/1 is in UPDATE_IN_PROGRESS state and can not be updated."
MADE = "Stack [s] already exists and cannot be created again with the changeSet [headrace-1]."
OBSOLETE = f"ChangeSet [{ARN}] cannot be executed in its current execution status of [OBSOLETE]"


@pytest.mark.parametrize(
    ("operation", "code", "message"),
    [
        ("create_change_set", "ValidationError", UPDATING),
        ("create_change_set", "ValidationError", MADE),
        ("describe_change_set", "ChangeSetNotFound", "ChangeSet [headrace-1] does not exist"),
        ("execute_change_set", "InvalidChangeSetStatus", OBSOLETE),
        ("execute_change_set", "ChangeSetNotFound", "ChangeSet [headrace-1] does not exist"),
    ],
)
def test_of_two_commands_at_once_one_is_told_to_come_again(
    cloud: Cloud, answers: Stubber, say: Callable[[str], None], operation: str, code: str, message: str
) -> None:
    answers.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    for each, response in (
        ("create_change_set", {"Id": ARN}),
        ("describe_change_set", {"ChangeSetId": ARN, "Status": "CREATE_COMPLETE", "Changes": []}),
        ("describe_stack_events", events()),
        ("execute_change_set", {}),
    ):
        if each == operation:
            answers.add_client_error(each, code, message)
            break
        answers.add_response(each, response)
    with pytest.raises(AwsError, match=r"Another command is changing the stack s(.|\n)*Run it again") as caught:
        stacks.execute(cloud, stacks.propose(cloud, "s", "{}", {"Name": "s"}), say)
    assert caught.value.code == code


def test_what_another_command_has_changed_is_not_taken_back(cloud: Cloud, say: Callable[[str], None]) -> None:
    """Two `up` at once, with other options: each planned for the stack as it was."""
    before, since = {"Name": "s", "AlarmEmail": ""}, {"Name": "s", "AlarmEmail": "a@example.org"}
    found = stack("UPDATE_COMPLETE")
    found["Stacks"][0]["Parameters"] = [{"ParameterKey": k, "ParameterValue": v} for k, v in since.items()]
    with Stubber(cloud.client("cloudformation")) as stubber:
        stubber.add_response("describe_stacks", found)
        with pytest.raises(AwsError, match=r"has changed s \(AlarmEmail\) since"):
            Live(cloud, say).take(MakeStack("s", "{}", {**before, "Size": "2"}, seen=before))
        stubber.assert_no_pending_responses()


def test_a_secret_that_another_command_has_just_made_is_taken(
    cloud: Cloud, say: Callable[[str], None], said: list[str]
) -> None:
    data = stack("CREATE_COMPLETE")
    data["Stacks"][0]["Outputs"] = [{"OutputKey": "KeyArn", "OutputValue": "arn:k"}]
    with Stubber(cloud.client("ssm")) as ssm, Stubber(cloud.client("cloudformation")) as cloudformation:
        ssm.add_client_error("get_parameter", "ParameterNotFound")
        cloudformation.add_response("describe_stacks", data)
        ssm.add_client_error("put_parameter", "ParameterAlreadyExists", "The parameter already exists.")
        Live(cloud, say).take(MakeSecret("/s/ADMIN_TOKEN", "s-data", "the token"))
    assert not said


def test_what_cloudformation_finds_wrong_beforehand_is_told_by_name(cloud: Cloud, answers: Stubber) -> None:
    """Since 2025-11 a change set tells only which of its validations has failed."""
    answers.add_response("describe_stacks", stack("UPDATE_COMPLETE"))
    answers.add_response("create_change_set", {"Id": ARN})
    reason = (
        "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot "
        "Early Validation errors, use the DescribeEvents API for detailed failure information."
    )
    answers.add_response("describe_change_set", {"ChangeSetId": ARN, "Status": "FAILED", "StatusReason": reason})
    found = {
        "EventId": "1",
        "EventType": "VALIDATION_ERROR",
        "LogicalResourceId": "LogGroup",
        "ResourceType": "AWS::Logs::LogGroup",
        "ValidationName": "NAME_CONFLICT_VALIDATION",
        "ValidationStatus": "FAILED",
        "ValidationStatusReason": "Resource of type 'AWS::Logs::LogGroup' with identifier '/headrace/s' already exists",
    }
    asked = {"ChangeSetName": ARN, "Filters": {"FailedEvents": True}}
    answers.add_response("describe_events", {"OperationEvents": [found, {"EventId": "2"}]}, asked)
    answers.add_response("delete_change_set", {})
    with pytest.raises(AwsError) as caught:
        stacks.propose(cloud, "s", "{}", {"Name": "s"})
    assert "LogGroup: Resource of type 'AWS::Logs::LogGroup' with identifier '/headrace/s' already" in str(caught.value)
    assert "Delete or rename what is in the way" in str(caught.value)


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
    other = {**drifted, "LogicalResourceId": "Role", "PropertyDifferences": []}
    asked = {"StackName": "s", "StackResourceDriftStatusFilters": ["MODIFIED", "DELETED"]}
    answers.add_response(
        "describe_stack_resource_drifts", {"StackResourceDrifts": [drifted], "NextToken": "more"}, asked
    )
    answers.add_response(
        "describe_stack_resource_drifts", {"StackResourceDrifts": [other]}, {**asked, "NextToken": "more"}
    )
    assert stacks.drift(cloud, "s") == [
        "HostSecurityGroup (AWS::EC2::SecurityGroup): MODIFIED; /SecurityGroupIngress is 0.0.0.0/0, should be []",
        "Role (AWS::EC2::SecurityGroup): MODIFIED",
    ]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AccessDenied", "Ask for the permission cloudformation:DescribeStacks"),
        ("ExpiredToken", "Log in again"),
        ("ExpiredTokenException", "Log in again"),
        ("RequestExpired", "Log in again"),  # EC2's word for it
        ("AuthFailure", "not switched on for the account"),  # EC2's for a region that is off
        ("UnrecognizedClientException", "not switched on for the account"),
        ("InvalidSignatureException", "The secret key does not belong"),
        ("Throttling", "run the command again: it continues"),
        ("TooManyRequestsException", "run the command again: it continues"),
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
    ("service", "code", "status"), [("ec2", "AuthFailure", 401), ("sts", "SignatureDoesNotMatch", 403)]
)
@pytest.mark.parametrize(("seconds", "says"), [(-3600, "is 3600 s ahead of"), (3600, "is 3600 s behind"), (0, None)])
def test_a_wrong_clock_is_told_whatever_the_service_calls_it(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, service: str, code: str, status: int, seconds: int, says: str | None
) -> None:
    """The answer's own date tells; `Request has expired` and wrong keys do not."""
    monkeypatch.setattr("headrace.aws.client.time.time", lambda: 1_800_000_000)
    date = formatdate(1_800_000_000 + seconds, usegmt=True)
    answered = {"HTTPStatusCode": status, "HTTPHeaders": {"date": date}}
    error = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": answered}

    def refuse(**_: Any) -> None:
        raise ClientError(error, "Any")

    monkeypatch.setattr(cloud.client(service), "describe_vpcs" if service == "ec2" else "get_caller_identity", refuse)
    with pytest.raises(AwsError) as caught:
        cloud.call(service, "describe_vpcs" if service == "ec2" else "get_caller_identity")
    assert (says or "switched on" if service == "ec2" else says or "The secret key") in str(caught.value)
    assert ("clock" in str(caught.value)) is (says is not None)


@pytest.mark.parametrize(
    ("operation", "code", "asked"),
    [
        ("AssumeRole", "AccessDenied", "sts:AssumeRole"),
        ("GetRoleCredentials", "ForbiddenException", "sso:GetRoleCredentials"),
    ],
)
def test_a_profile_whose_role_may_not_be_taken(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, operation: str, code: str, asked: str
) -> None:
    """It is not the service that was called which refuses, and the deployer's policies do not help."""

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "not authorized to perform"}}, operation)

    monkeypatch.setattr(cloud.client("rds"), "describe_db_instances", refuse)
    with pytest.raises(AwsError) as caught:
        cloud.call("rds", "describe_db_instances")
    assert f"AWS refused {asked} in us-east-1 ({code})" in str(caught.value)
    assert "trust policy" in str(caught.value)
    assert "deployer-policy" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (NoCredentialsError(), "aws configure"),
        (EndpointConnectionError(endpoint_url="https://x"), "Look at the network"),
        (ProxyConnectionError(proxy_url="http://p"), "Look at the network"),
        (SSLError(endpoint_url="https://x", error="self-signed certificate"), "AWS_CA_BUNDLE"),
        (UnauthorizedSSOTokenError(), "aws sso login"),
        (SSOTokenLoadError(error_msg="no token"), "aws sso login"),
        (TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"), "aws sso login"),
        (CredentialRetrievalError(provider="custom-process", error_msg="exit 1"), "Log in again"),
        (InvalidConfigError(error_msg="The profile p is configured to use SSO but lacks sso_region"), "~/.aws/config"),
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


def test_a_session_that_ends_while_cloudformation_works_with_it_is_told() -> None:
    said = "Resource handler returned message: The security token included in the request is expired (Service: Rds)"
    assert "log in anew, for an hour or more. Then run the command again" in stacks._next(said)


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


@pytest.mark.parametrize(
    ("region", "says"),
    [
        ("cn-north-1", "is in the partition aws-cn"),
        ("us-iso-east-1", "is in the partition aws-iso"),
        ("eusc-de-east-1", "is in the partition aws-eusc"),
        ("moon-1", "is no region of AWS"),
        ("us-east-1a", "is no region of AWS"),  # a zone
    ],
)
def test_each_command_refuses_a_region_whose_services_have_other_names(region: str, says: str) -> None:
    """But for `export` of a template, which says nothing of a region."""
    more = {
        "exec": ["true"],
        "export": ["connect-policy", "--account", "123456789012"],
        "restore": ["--snapshot", "s"],
        "upgrade": ["latest"],
        "user": ["list"],
    }
    asking = {"down", "restore", "rollback", "rotate", "up", "upgrade"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tunnel, "check_plugin", lambda: None)
        for name in aws.commands:
            yes = ["--yes"] if name in asking else []
            done = CliRunner().invoke(aws, [name, "--region", region, *yes, *more.get(name, [])])
            assert isinstance(done.exception, AwsError), (name, done.output)
            assert says in str(done.exception), name


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-2", "ap-southeast-7", "us-gov-east-1"])
def test_a_region_that_is_taken(region: str) -> None:
    assert Cloud(region).partition == ("aws-us-gov" if "gov" in region else "aws")


def test_aws_own_tools_mean_the_same_account_and_region(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By AWS's own library, as the AWS CLI finds them: keys in variables would win there, and another AWS_REGION."""
    (tmp_path / "config").write_text("[profile work]\naws_access_key_id = of-the-profile\naws_secret_access_key = s\n")
    for name, value in {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_ACCESS_KEY_ID": "of-the-variables",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "t",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    for profile, expected in (("work", "of-the-profile us-west-2"), (None, "of-the-variables us-west-2")):
        script = (
            "import os, botocore.session as b; s = b.Session(); "
            "print(s.get_credentials().access_key, os.environ['AWS_REGION'])"
        )
        environment = Cloud("us-west-2", profile=profile).environment()
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr


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
