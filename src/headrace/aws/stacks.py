"""CloudFormation's stacks: change sets proposed, executed with live progress, deleted; failures explained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from headrace.aws.client import POLICY, Answer, Cloud, passing_over, polling
from headrace.errors import AwsError

Say = Callable[[str], None]
_NOT_MADE = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}  # only deletion helps
_CREATION_FAILED = {
    "ROLLBACK_IN_PROGRESS",
    "ROLLBACK_COMPLETE",
    "ROLLBACK_FAILED",
    "CREATE_FAILED",
}  # UPDATE_... differ
_FAILED = ("_FAILED", "ROLLBACK_COMPLETE")
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed")
_CAPABILITIES = ["CAPABILITY_IAM"]
# what to do next, by what AWS's reason contains
_NEXT = {
    "not authorized": POLICY,
    "token included in the request is expired": "CloudFormation works with the session of who began, and that has "
    "ended: log in anew, for an hour or more.",
    "free tier": "The account's free plan keeps backups for a day: add --backup-days 1, or upgrade the plan.",
    "free plan": "The account's free plan has micro sizes only: take --size dev, or upgrade the plan.",
    "imit": "Ask for more in the Service Quotas console, or take another --size or --region.",
    "already exists": "Delete or rename what is in the way, or take another --name.",
    "apacity": "AWS has no such machine in that zone now: try again later, or take another --size.",
}


class Stack(NamedTuple):
    """A stack as it is. `reason` is AWS's, for a status that needs one."""

    name: str
    status: str
    parameters: dict[str, str]
    outputs: dict[str, str]
    reason: str = ""
    id: str = ""
    tags: tuple[tuple[str, str], ...] = ()  # but for AWS's own

    @property
    def busy(self) -> bool:
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    @property
    def exists(self) -> bool:
        """False for what a change set that was never executed leaves, and for what must be deleted before."""
        return self.status not in (*_NOT_MADE, "REVIEW_IN_PROGRESS")

    def output(self, key: str) -> str:
        """Raises AwsError for a stack that is not as our template makes it."""
        if key not in self.outputs:
            raise AwsError(
                f"The stack {self.name} ({self.status}) has no output {key}: it is not Headrace's, or not finished. "
                "`headrace aws up` finishes it; another --name makes another."
            )
        return self.outputs[key]


class Change(NamedTuple):
    """What a change set does to one resource; `replaced` means that a new one takes its place."""

    action: str
    resource: str
    type: str
    replaced: bool
    why: tuple[str, ...] = ()


class ChangeSet(NamedTuple):
    """A proposal; `arn` is empty when there is nothing to change."""

    stack: str
    arn: str
    changes: tuple[Change, ...]
    creates: bool


def find(cloud: Cloud, name: str) -> Stack | None:
    """The stack of this name (or id), or None."""
    try:
        found = cloud.call("cloudformation", "describe_stacks", StackName=name)["Stacks"]
    except AwsError as error:
        if error.code == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    stack = found[0]
    return Stack(
        stack["StackName"],
        stack["StackStatus"],
        {item["ParameterKey"]: item["ParameterValue"] for item in stack.get("Parameters", [])},
        {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])},
        stack.get("StackStatusReason", ""),
        stack.get("StackId", ""),
        tuple((one["Key"], one["Value"]) for one in stack.get("Tags", []) if not one["Key"].startswith("aws:")),
    )


def settle(cloud: Cloud, name: str, say: Say, to_delete: bool = False) -> Stack | None:
    """Wait for whatever an earlier command left under way, and clear a stack that was never made; the stack, if any.

    Raises AwsError for one that could not go back from an update, which can be no more than deleted as it is.
    """
    stack = find(cloud, name)
    if stack is not None and stack.busy:
        say(f"{name}: {stack.status}, left by an earlier command; waiting for it")
        # by its id, which AWS knows for a while after the stack is gone; that it failed is not this command's failure
        stack, _ = _watch(cloud, stack.id or name, say, _last_event(cloud, name))
        if stack.status == "DELETE_COMPLETE":
            return None
    if stack is not None and stack.status in _NOT_MADE:
        say(f"{name}: {stack.status}, left by an earlier try; deleting it first")
        if _never_made(cloud, stack):
            _unprotect(cloud, name)
        delete(cloud, name, say)
        return None
    stuck = stack is not None and stack.status in ("UPDATE_ROLLBACK_FAILED", "IMPORT_ROLLBACK_FAILED")
    if stack is not None and stuck and not to_delete:
        raise AwsError(
            f"The stack {name} in {cloud.region} could not go back from an update: {stack.reason}\nPut right what the "
            "reason names, then: aws cloudformation continue-update-rollback "
            f"--region {cloud.region} --stack-name {name}"
        )
    return stack


def _never_made(cloud: Cloud, stack: Stack) -> bool:
    """Whether the stack's creation failed, so that its database holds nothing.

    DELETE_FAILED alone does not tell: the stack may have lived, and the protection have kept its data from a
    deletion by hand. Only a rollback of its creation is proof; where AWS has the events no more, it counts as one that
    has lived.
    """
    if stack.status != "DELETE_FAILED":
        return True
    events = cloud.pages("cloudformation", "describe_stack_events", "StackEvents", StackName=stack.name)
    return any(
        event["ResourceType"] == "AWS::CloudFormation::Stack" and event["ResourceStatus"] in _CREATION_FAILED
        for event in events
    )


def _unprotect(cloud: Cloud, name: str) -> None:
    """Let a stack that was never finished delete its database: what protects data must not keep an empty one."""
    if database := resources(cloud, name).get("Database"):
        with passing_over("DBInstanceNotFound", "InvalidDBInstanceState"):
            unprotect(cloud, database)


def unprotect(cloud: Cloud, database: str) -> None:
    """Take the deletion protection off a database, and wait until RDS says so."""
    cloud.call(
        "rds", "modify_db_instance", DBInstanceIdentifier=database, DeletionProtection=False, ApplyImmediately=True
    )
    for _ in polling():
        found = cloud.call("rds", "describe_db_instances", DBInstanceIdentifier=database)["DBInstances"]
        if not found or not found[0].get("DeletionProtection"):
            return


def propose(
    cloud: Cloud, name: str, template: str, parameters: Mapping[str, str], tags: Mapping[str, str] | None = None
) -> ChangeSet:
    """Make a change set; nothing changes yet. `tags` are put beside those that the stack has. Raises AwsError."""
    stack = find(cloud, name)
    creates = stack is None or not stack.exists
    # its hosts get it, too: the policies go by it
    tagged = {**dict(stack.tags if stack is not None else ()), **(tags or {}), "headrace": parameters["Name"]}
    with _alone(cloud, name):
        change_set = cloud.call(
            "cloudformation",
            "create_change_set",
            StackName=name,
            ChangeSetName=f"headrace-{time.time_ns()}",
            ChangeSetType="CREATE" if creates else "UPDATE",
            TemplateBody=template,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in sorted(parameters.items())],
            Capabilities=_CAPABILITIES,
            Tags=[{"Key": key, "Value": value} for key, value in sorted(tagged.items())],
        )["Id"]
        for _ in polling():
            answer = cloud.call("cloudformation", "describe_change_set", ChangeSetName=change_set, StackName=name)
            if answer["Status"] in ("CREATE_COMPLETE", "FAILED"):
                break
    if answer["Status"] == "FAILED":
        reason = answer.get("StatusReason", "")
        nothing = any(text in reason for text in _NO_CHANGES)
        if not nothing:
            reason = "\n".join([reason, *_wrong_in(cloud, change_set)])
        discard(cloud, ChangeSet(name, change_set, (), creates))
        if nothing:
            return ChangeSet(name, "", (), creates)
        raise AwsError(f"AWS can't plan the stack {name} in {cloud.region}: {reason}\n{_next(reason)}")
    return ChangeSet(name, change_set, tuple(_changes(cloud, name, answer)), creates)


def discard(cloud: Cloud, proposal: ChangeSet) -> None:
    """Drop a change set, and the empty stack that one which creates has left."""
    if not proposal.arn:
        return
    with passing_over("ChangeSetNotFound", "InvalidChangeSetStatus"):  # gone with what another command has executed
        cloud.call("cloudformation", "delete_change_set", ChangeSetName=proposal.arn, StackName=proposal.stack)
    if proposal.creates:
        stack = find(cloud, proposal.stack)
        if stack is not None and stack.status == "REVIEW_IN_PROGRESS":
            cloud.call("cloudformation", "delete_stack", StackName=proposal.stack)


def execute(cloud: Cloud, proposal: ChangeSet, say: Say) -> Stack:
    """Do what was proposed, and wait. Raises AwsError with AWS's first reason when it fails."""
    if proposal.arn:
        last = _last_event(cloud, proposal.stack)
        with _alone(cloud, proposal.stack):
            cloud.call("cloudformation", "execute_change_set", ChangeSetName=proposal.arn, StackName=proposal.stack)
        return follow(cloud, proposal.stack, say, last)
    stack = find(cloud, proposal.stack)
    assert stack is not None
    return stack


def delete(cloud: Cloud, name: str, say: Say) -> None:
    """Delete a stack, and wait. Its protected resources stay."""
    stack = find(cloud, name)
    if stack is None:
        return
    last = _last_event(cloud, name)
    cloud.call("cloudformation", "delete_stack", StackName=name)
    follow(cloud, stack.id or name, say, last)


def follow(cloud: Cloud, name: str, say: Say, last: str) -> Stack:
    """Say the events after `last` until the stack rests. Raises AwsError when it rests in failure."""
    stack, failures = _watch(cloud, name, say, last)
    if stack.status.endswith(_FAILED):
        reason = failures[0] if failures else stack.reason
        raise AwsError(
            f"The stack {stack.name} in {cloud.region} is {stack.status}.\nWhat failed first: {reason}\n{_next(reason)}"
        )
    return stack


def _watch(cloud: Cloud, name: str, say: Say, last: str) -> tuple[Stack, list[str]]:
    """Say the events after `last` until the stack rests; what failed on the way, in its order."""
    failures: list[str] = []
    stack = None
    for _ in polling():
        stack = find(cloud, name)
        for event in _events_after(cloud, name, last):
            last = event["EventId"]
            line = f"{event['LogicalResourceId']}: {event['ResourceStatus']}"
            reason = event.get("ResourceStatusReason", "")
            if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason:
                failures.append(f"{event['LogicalResourceId']} ({event['ResourceType']}): {reason}")
                line += f": {reason}"
            say(line)
        if stack is None:
            return Stack(name, "DELETE_COMPLETE", {}, {}), failures
        if not stack.busy:
            break
    assert stack is not None
    return stack, failures


def resources(cloud: Cloud, name: str) -> dict[str, str]:
    """Logical name -> physical id of what the stack has made."""
    found = cloud.pages("cloudformation", "list_stack_resources", "StackResourceSummaries", StackName=name)
    return {item["LogicalResourceId"]: item.get("PhysicalResourceId", "") for item in found}


def drift(cloud: Cloud, name: str) -> list[str]:
    """The resources that somebody has changed by hand, each with what is different."""
    started = cloud.call("cloudformation", "detect_stack_drift", StackName=name)["StackDriftDetectionId"]
    for _ in polling():
        answer = cloud.call("cloudformation", "describe_stack_drift_detection_status", StackDriftDetectionId=started)
        if answer["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
    if answer["DetectionStatus"] == "DETECTION_FAILED":
        raise AwsError(f"AWS could not compare {name} with its template: {answer.get('DetectionStatusReason', '')}")
    asked = {"StackName": name, "StackResourceDriftStatusFilters": ["MODIFIED", "DELETED"]}
    found: list[Answer] = []
    while True:  # botocore has no paginator for it
        answer = cloud.call("cloudformation", "describe_stack_resource_drifts", **asked)
        found += answer["StackResourceDrifts"]
        if not (token := answer.get("NextToken")):
            break
        asked["NextToken"] = token
    return [
        f"{item['LogicalResourceId']} ({item['ResourceType']}): {item['StackResourceDriftStatus']}"
        + "".join(
            f"; {part['PropertyPath']} is {part['ActualValue']}, should be {part['ExpectedValue']}"
            for part in item.get("PropertyDifferences", [])
        )
        for item in found
    ]


@contextmanager
def _alone(cloud: Cloud, name: str) -> Iterator[None]:
    """Raises AwsError where another command is at work on the stack: one of two that run at once comes second.

    Its change set is obsolete or gone then, or the stack is in an operation.
    """
    try:
        yield
    except AwsError as error:
        busy = error.code == "ValidationError" and "_IN_PROGRESS state" in str(error)
        made = error.code == "ValidationError" and "already exists and cannot be created" in str(error)
        if not (busy or made or error.code in ("InvalidChangeSetStatus", "ChangeSetNotFound")):
            raise
        raise AwsError(
            f"Another command is changing the stack {name} in {cloud.region}; nothing of this one was done to it. Run "
            f"it again: it waits for the other, and looks anew.\n{error}",
            error.code,
        ) from None


def _wrong_in(cloud: Cloud, change_set: str) -> list[str]:
    """What CloudFormation found wrong before it would make a change, name by name.

    Of its validations (since 2025-11) a change set tells only which has failed: "The following hook(s)/validation
    failed: [AWS::EarlyValidation::ResourceExistenceCheck]"
    (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/validate-stack-deployments.html).
    """
    try:
        events = list(
            cloud.pages(
                "cloudformation",
                "describe_events",
                "OperationEvents",
                ChangeSetName=change_set,
                Filters={"FailedEvents": True},
            )
        )
    except AwsError:  # it only explains
        return []
    reasons = ("ValidationStatusReason", "HookStatusReason", "ResourceStatusReason")
    found = [(one, next((one[key] for key in reasons if one.get(key)), "")) for one in events]
    return [f"{one.get('LogicalResourceId', change_set)}: {reason}" for one, reason in found if reason]


def _changes(cloud: Cloud, name: str, answer: Answer) -> list[Change]:
    items = list(answer.get("Changes", []))
    while token := answer.get("NextToken"):
        answer = cloud.call(
            "cloudformation",
            "describe_change_set",
            ChangeSetName=answer["ChangeSetId"],
            StackName=name,
            NextToken=token,
        )
        items += answer.get("Changes", [])
    changes = []
    for item in items:
        one = item["ResourceChange"]
        targets = [detail.get("Target", {}) for detail in one.get("Details", [])]
        why = tuple(dict.fromkeys(target["Name"] for target in targets if target.get("Name")))
        replaced = one.get("Replacement") in ("True", "Conditional") or one.get("PolicyAction") == "ReplaceAndDelete"
        changes.append(Change(one["Action"], one["LogicalResourceId"], one["ResourceType"], replaced, why))
    return changes


def _events_after(cloud: Cloud, name: str, last: str) -> list[Answer]:
    """Oldest first."""
    events: list[Answer] = []
    with passing_over("ValidationError"):  # the stack is gone
        for event in cloud.pages("cloudformation", "describe_stack_events", "StackEvents", StackName=name):
            if event["EventId"] == last:
                break
            events.append(event)
    return events[::-1]


def _last_event(cloud: Cloud, name: str) -> str:
    events: list[Answer] = []
    with passing_over("ValidationError"):  # it is gone since it was looked for
        events = cloud.call("cloudformation", "describe_stack_events", StackName=name)["StackEvents"]
    return str(events[0]["EventId"]) if events else ""


def _next(reason: str) -> str:
    known = next((instead for text, instead in _NEXT.items() if text in reason), "")
    return f"{known} Then run the command again: it continues.".strip()
