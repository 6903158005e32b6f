"""The hosts: which count, and where one is reached in the VPC (`--ingress vpc`), as `up` and `status` say it."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.stub import Stubber

from headrace.aws import hosts
from headrace.aws.client import Cloud
from headrace.aws.hosts import Host
from headrace.aws.stacks import Stack
from headrace.cli.aws import Target, _how_to_use
from headrace.errors import AwsError

APP = Stack("lab-app", "CREATE_COMPLETE", {}, {"Hosts": "group"})


def described_as(groups: Stubber, **properties: Any) -> None:
    """What Auto Scaling says of the group."""
    group = {
        "AutoScalingGroupName": "group",
        "MinSize": 1,
        "MaxSize": 2,
        "DesiredCapacity": 1,
        "DefaultCooldown": 300,
        "AvailabilityZones": ["us-east-1a"],
        "HealthCheckType": "EC2",
        "CreatedTime": 0,
    }
    asked = {"AutoScalingGroupNames": ["group"]}
    groups.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": [group | properties]}, asked)


def test_the_addresses_of_the_groups_hosts(cloud: Cloud) -> None:
    instances = [
        {"InstanceId": each, "LifecycleState": "InService", "HealthStatus": "Healthy"} for each in ("i-1", "i-2")
    ]
    described = [{"Instances": [{"PrivateIpAddress": "10.71.0.5"}]}, {"Instances": [{}]}]  # one is just being ended
    with Stubber(cloud.client("autoscaling")) as groups, Stubber(cloud.client("ec2")) as ec2:
        for found in (instances, []):
            described_as(
                groups, Instances=[{**one, "AvailabilityZone": "a", "ProtectedFromScaleIn": False} for one in found]
            )
        by_id = [{"Name": "instance-id", "Values": ["i-1", "i-2"]}]  # one that has just begun is passed over
        ec2.add_response("describe_instances", {"Reservations": described}, {"Filters": by_id})
        assert hosts.addresses(cloud, APP) == ["10.71.0.5"]
        assert hosts.addresses(cloud, APP) == []


def test_a_host_whose_server_is_not_healthy_yet_is_one_of_them(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group keeps it waiting: its database's role may be made through it, and an upgrade means it, too."""
    states = ("InService", "Pending:Wait", "Pending", "Terminating:Wait", "Terminated")
    found = [Host(f"i-{number}", state, "Healthy", online=True) for number, state in enumerate(states)]
    monkeypatch.setattr(hosts, "find", lambda *_: found)
    assert [one.state for one in hosts.wait_online(cloud, APP, print)] == list(states[:3])


def test_one_in_service_is_spoken_to_while_another_comes(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    coming, leaving = Host("i-1", "Pending:Wait", "Healthy", True), Host("i-3", "Terminating", "Healthy", True)
    silent, good = Host("i-2", "InService", "Healthy", False), Host("i-4", "InService", "Healthy", True)
    monkeypatch.setattr(hosts, "find", lambda *_: [coming, silent, leaving, good])
    assert hosts.serving(cloud, APP, print) == good
    monkeypatch.setattr(hosts, "find", lambda *_: [leaving, coming])  # a first `up`
    assert hosts.serving(cloud, APP, print) == coming


@pytest.mark.parametrize(("states", "seconds"), [(("unhealthy", "initial"), 60.0), (("unhealthy",), -1.0)])
def test_the_group_goes_on_once_the_balancer_finds_the_hosts_healthy(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, said: list[str], states: tuple[str, ...], seconds: float
) -> None:
    """It would mark one whose server has only just begun again, and no host gets rid of that mark."""
    monkeypatch.setattr(hosts, "_BALANCER_SECONDS", seconds)
    done = ["HealthCheck", "ReplaceUnhealthy", "AZRebalance"]
    with Stubber(cloud.client("autoscaling")) as groups, Stubber(cloud.client("elbv2")) as balancers:
        groups.add_response("suspend_processes", {}, {"AutoScalingGroupName": "group", "ScalingProcesses": done})
        described_as(groups, SuspendedProcesses=[{"ProcessName": one} for one in done])
        described_as(groups, TargetGroupARNs=["targets"])
        for state in states:
            health = {"Target": {"Id": "i-1"}, "TargetHealth": {"State": state}}
            answer = {"TargetHealthDescriptions": [health]}
            balancers.add_response("describe_target_health", answer, {"TargetGroupArn": "targets"})
        groups.add_response("resume_processes", {}, {"AutoScalingGroupName": "group", "ScalingProcesses": done})
        with hosts.kept(cloud, APP, said.append):
            said.append("an upgrade")
        balancers.assert_no_pending_responses()
        groups.assert_no_pending_responses()
    assert said[0] == "an upgrade"
    assert said[-1] == "the group replaces unhealthy hosts again"
    assert ("the load balancer does not find i-1 healthy: the group will replace that" in said) is (seconds < 0)


def activities(*codes: str) -> list[dict[str, Any]]:
    """The newest first; each that has ended says why in its own code."""
    given = {"ActivityId": "1", "AutoScalingGroupName": "group", "Cause": "-", "StartTime": 0}
    return [given | {"StatusCode": code, "StatusMessage": f"{code}: no capacity"} for code in codes]


@pytest.mark.parametrize(
    ("codes", "why"),
    [
        (("WaitingForLaunch", "Failed"), "Failed: no capacity"),
        (("Cancelled", "Successful"), "Cancelled: no capacity"),
        (("Successful", "Failed"), ""),
        ((), ""),
    ],
)
def test_why_no_host_is_launched_is_told(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, said: list[str], codes: tuple[str, ...], why: str
) -> None:
    monkeypatch.setattr(hosts, "find", lambda *_: [])
    asked = {"AutoScalingGroupName": "group", "MaxRecords": 10}
    with Stubber(cloud.client("autoscaling")) as groups:
        groups.add_response("describe_scaling_activities", {"Activities": activities(*codes)}, asked)
        with pytest.raises(AwsError) as refused:
            hosts.wait_online(cloud, APP, said.append, seconds=-1)
    assert (f"EC2 launches no host for lab-app in us-east-1: {why}" in str(refused.value)) is bool(why)
    assert (said == [f"the group could not launch a host, and tries again: {why}"]) is bool(why)


def test_who_only_connects_need_not_see_why(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    monkeypatch.setattr(hosts, "find", lambda *_: [])
    with Stubber(cloud.client("autoscaling")) as groups:
        groups.add_client_error("describe_scaling_activities", "AccessDenied", http_status_code=403)
        with pytest.raises(AwsError, match="the group has none"):
            hosts.wait_online(cloud, APP, said.append, seconds=-1)


def test_a_replacement_that_waits_for_a_server_says_so(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(hosts, "_SLOW", -1.0)
    monkeypatch.setattr(hosts, "find", lambda *_: [Host("i-2", "Pending:Wait", "Healthy", online=True)])
    states = iter(("InProgress", "Successful"))
    monkeypatch.setattr(hosts, "_refreshes", lambda *_, **__: [{"Status": next(states)}])
    hosts._follow_refresh(cloud, APP, "refresh-1", said.append)
    assert "the server of i-2 is not healthy yet, and the old host goes on" in said[0]


def test_people_are_told_the_address() -> None:
    found: dict[str, Any] = {"url": "http://localhost:5000, while it runs", "in_vpc": ["http://10.71.0.5:5000"]}
    target = Target("lab", as_json=False, region="us-east-1")
    assert "  in the VPC: http://10.71.0.5:5000\n" in _how_to_use(target, found)
    assert "in the VPC" not in _how_to_use(target, {**found, "in_vpc": []})
