"""The rehearsal's Auto Scaling group (rehearsal/group.py): that it ends hosts as AWS's documents say, and only then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rehearsal import group as rehearsed
from rehearsal.group import INTERVAL, Group
from rehearsal.parts import Host

from tests.support import tls

ZONES = ["us-east-1a", "us-east-1b"]
ALL = ("HealthCheck", "ReplaceUnhealthy", "AZRebalance")


class Account:
    """A group of two hosts, as Auto Scaling and the balancer describe it."""

    def __init__(self, suspended: tuple[str, ...], grace: float) -> None:
        self.suspended, self.grace = suspended, grace
        self.health = {"i-1": "Healthy", "i-2": "Healthy"}

    def describe_auto_scaling_groups(self) -> dict[str, Any]:
        instances = [
            {"InstanceId": one, "LifecycleState": "InService", "HealthStatus": health}
            for one, health in self.health.items()
        ]
        group = {
            "Instances": instances,
            "SuspendedProcesses": [{"ProcessName": one} for one in self.suspended],
            "HealthCheckGracePeriod": self.grace * 10 / INTERVAL,
            "AvailabilityZones": ZONES,
        }
        return {"AutoScalingGroups": [group]}

    def describe_target_groups(self) -> dict[str, Any]:
        counts = {"HealthyThresholdCount": 1, "UnhealthyThresholdCount": 1}
        return {"TargetGroups": [{"HealthCheckPath": "/health", "HealthCheckIntervalSeconds": 10, **counts}]}

    def set_instance_health(self, InstanceId: str, HealthStatus: str) -> None:
        self.health[InstanceId] = HealthStatus

    def terminate_instance_in_auto_scaling_group(
        self,
        InstanceId: str,
        ShouldDecrementDesiredCapacity: bool,
    ) -> None:
        assert not ShouldDecrementDesiredCapacity
        del self.health[InstanceId]
        self.health[f"{InstanceId}-next"] = "Healthy"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The ports on which no server answers; that of a host is the number in its name."""
    found: set[int] = set()
    monkeypatch.setattr(rehearsed, "_answers", lambda port, _: port not in found)
    monkeypatch.setattr(Host, "of", lambda _, instance: SimpleNamespace(port=instance.split("-")[1]))
    return found


def looks(account: Account, folder: Path, times: int, group: Group | None = None) -> Group:
    stage: Any = SimpleNamespace(hosts=folder)
    group = group or Group(stage, rehearsed.Balancer(*tls.certificate(folder)))
    for _ in range(times):
        group.look(account, account)
    group.balancer.server_close()
    return group


@pytest.mark.parametrize(
    ("suspended", "grace", "killed", "health"),
    [
        ((), 0, ["i-1"], {"i-2": "Healthy", "i-1-next": "Healthy"}),
        ((), 3600, [], {"i-1": "Healthy", "i-2": "Healthy"}),
        (("ReplaceUnhealthy",), 0, [], {"i-1": "Unhealthy", "i-2": "Healthy"}),  # and replaced, once it is resumed
        (("HealthCheck",), 0, [], {"i-1": "Healthy", "i-2": "Healthy"}),
        (ALL, 0, [], {"i-1": "Healthy", "i-2": "Healthy"}),
    ],
)
def test_a_host_whose_server_is_stopped(
    tmp_path: Path, silent: set[int], suspended: tuple[str, ...], grace: float, killed: list[str], health: Any
) -> None:
    account = Account(suspended, grace)
    group = looks(account, tmp_path, 2)
    assert group.killed == []
    silent.add(1)
    looks(account, tmp_path, 1, group)
    assert group.killed == killed
    assert account.health == health
    if suspended == ("ReplaceUnhealthy",):
        silent.clear()
        account.suspended = ()
        looks(account, tmp_path, 3, group)
        assert group.killed == ["i-1"], "the mark stays, however well the server is"


@pytest.mark.parametrize(("suspended", "killed"), [((), ["i-1"]), (("AZRebalance",), []), (ALL, [])])
def test_two_hosts_in_one_zone(tmp_path: Path, silent: set[int], suspended: tuple[str, ...], killed: list[str]) -> None:
    account = Account(suspended, 0)
    group = looks(account, tmp_path, 2)
    assert [member.zone for member in group.members.values()] == ZONES
    group.put_in(ZONES[0], ZONES[0])
    looks(account, tmp_path, 2, group)
    assert group.killed == killed
