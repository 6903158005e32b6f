"""A load balancer in front of hosts, and an Auto Scaling group that ends those which the balancer finds unhealthy.

Both do what AWS's documents say of them (health-check-grace-period.html and as-suspend-resume-processes.html, below
https://docs.aws.amazon.com/autoscaling/ec2/userguide/), by what the account (moto) has of the target group, of the
group's period of grace and of its suspended processes. AWS's 10 s between two checks are `INTERVAL` here, and the
period of grace is shorter by as much.
"""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rehearsal.conftest import Stage
from rehearsal.parts import Host

INTERVAL = 0.5  # seconds between two checks of a target
_CHECK_SECONDS = 5  # a target that does not answer for so long has failed a check: the default of a target group
_HOPS = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class Target:
    port: int
    state: str = "initial"
    streak: int = 0  # of checks that have all ended the other way than `state` says


class Balancer(ThreadingHTTPServer):
    """As an Application Load Balancer: healthy targets in turn, all where none is, 502 for one that breaks off.

    It takes TLS alone, and tells a target who has asked, and how.
    """

    daemon_threads = True

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # each connection's own thread shakes hands
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.targets: dict[str, Target] = {}  # by the instance's id
        self.refused: list[int] = []  # the statuses that are its own
        self._turns = itertools.count()
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def choose(self) -> Target | None:
        targets = list(self.targets.values())
        targets = [one for one in targets if one.state == "healthy"] or targets
        return targets[next(self._turns) % len(targets)] if targets else None

    def check(self, path: str, healthy: int, unhealthy: int) -> None:
        """Look at each target once; so many checks in a row change what is thought of it."""
        for target in list(self.targets.values()):
            good = _answers(target.port, path)
            if good == (target.state == "healthy"):
                target.streak = 0
                continue
            target.streak += 1
            if target.streak >= (healthy if good else unhealthy):
                target.state, target.streak = "healthy" if good else "unhealthy", 0


def _answers(port: int, path: str) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_CHECK_SECONDS)
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Balancer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client is gone
            self.close_connection = True

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if (target := self.server.choose()) is None:
            self._refuse(503)
            return
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
        try:
            told = {"X-Forwarded-For": self.client_address[0], "X-Forwarded-Proto": "https"}
            connection.request(self.command, self.path, body, dict(self.headers) | told)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._refuse(502)
            return
        finally:
            connection.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOPS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _refuse(self, status: int) -> None:
        self.server.refused.append(status)
        self.send_response_only(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class Member:
    """A host in service, `since` when (monotonic)."""

    zone: str
    since: float


@dataclass
class Group(threading.Thread):
    """The stack's Auto Scaling group, with its balancer. `killed` are the instances that it has ended.

    A host that the balancer finds unhealthy after its period of grace is marked so, unless HealthCheck is suspended,
    and never gets rid of that; one that is marked is ended and another is launched, unless ReplaceUnhealthy is
    suspended. Where a zone has two hosts more than another, one is moved, unless AZRebalance is suspended (AWS launches
    the new one first, here the old one ends first).
    """

    stage: Stage
    balancer: Balancer
    killed: list[str] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)
    looks: int = 0
    grace: float = 0.0  # seconds

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def start(self) -> None:
        self.balancer.start()
        super().start()

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self.balancer.stop()

    def run(self) -> None:
        auto_scaling, balancers = self.stage.client("autoscaling"), self.stage.client("elbv2")
        while not self._ended.wait(INTERVAL):
            self.look(auto_scaling, balancers)

    def look(self, auto_scaling: Any, balancers: Any) -> None:
        groups = auto_scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        if not groups:
            return
        (group,) = groups
        (checks,) = balancers.describe_target_groups()["TargetGroups"]
        self.grace = group["HealthCheckGracePeriod"] * INTERVAL / checks["HealthCheckIntervalSeconds"]
        self._register(group)
        self.balancer.check(
            checks["HealthCheckPath"], checks["HealthyThresholdCount"], checks["UnhealthyThresholdCount"]
        )
        self._tell()
        suspended = {one["ProcessName"] for one in group["SuspendedProcesses"]}
        self._heal(auto_scaling, group, suspended)
        if "AZRebalance" not in suspended:
            self._rebalance(auto_scaling, group["AvailabilityZones"])
        self.looks += 1

    def _register(self, group: dict[str, Any]) -> None:
        serving = {one["InstanceId"] for one in group["Instances"] if one["LifecycleState"] == "InService"}
        for instance in self.members.keys() - serving:
            del self.members[instance]
            self.balancer.targets.pop(instance, None)
        for instance in sorted(serving - self.members.keys()):
            used = [one.zone for one in self.members.values()]
            self.members[instance] = Member(min(group["AvailabilityZones"], key=used.count), time.monotonic())
            self.balancer.targets[instance] = Target(int(Host.of(self.stage.hosts, instance).port))

    def _tell(self) -> None:
        """What the account answers for describe-target-health."""
        states = {instance: target.state for instance, target in self.balancer.targets.items()}
        (self.stage.hosts / ".health-next").write_text(json.dumps(states))
        (self.stage.hosts / ".health-next").rename(self.stage.hosts / ".health")

    def _heal(self, auto_scaling: Any, group: dict[str, Any], suspended: set[str]) -> None:
        for one in group["Instances"]:
            instance, marked = one["InstanceId"], one["HealthStatus"] != "Healthy"
            if instance in self.found_unhealthy() and "HealthCheck" not in suspended:
                auto_scaling.set_instance_health(InstanceId=instance, HealthStatus="Unhealthy")
                marked = True
            if marked and "ReplaceUnhealthy" not in suspended:
                self._replace(auto_scaling, instance)

    def _rebalance(self, auto_scaling: Any, zones: list[str]) -> None:
        used = [one.zone for one in self.members.values()]
        most = max(zones, key=used.count)
        if used.count(most) - min(used.count(zone) for zone in zones) > 1:
            self._replace(auto_scaling, next(one for one, member in self.members.items() if member.zone == most))

    def _replace(self, auto_scaling: Any, instance: str) -> None:
        self.killed.append(instance)
        self.members.pop(instance, None)
        self.balancer.targets.pop(instance, None)
        auto_scaling.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=False)

    def found_unhealthy(self) -> list[str]:
        """The hosts that the balancer's checks make the group mark, once their period of grace is over."""
        over = time.monotonic() - self.grace
        of_age = [instance for instance, member in list(self.members.items()) if member.since <= over]
        targets = dict(self.balancer.targets)
        return [instance for instance in of_age if instance in targets and targets[instance].state == "unhealthy"]

    def put_in(self, *zones: str) -> list[str]:
        """Say where the hosts are, in their order; where they have been."""
        before = [member.zone for member in self.members.values()]
        for member, zone in zip(self.members.values(), zones, strict=True):
            member.zone = zone
        return before

    def states(self) -> list[str]:
        return [target.state for target in list(self.balancer.targets.values())]

    def has_looked(self, times: int = 4) -> Callable[[], bool]:
        """Whether it has looked so often since now."""
        enough = self.looks + times
        return lambda: self.looks >= enough
