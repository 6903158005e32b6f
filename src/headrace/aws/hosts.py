"""The EC2 hosts of a deployment: which there are, and commands run on them by Systems Manager."""

from __future__ import annotations

import base64
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from headrace.aws.client import DENIED, Answer, Cloud, passing_over, polling
from headrace.aws.stacks import Say, Stack
from headrace.aws.templates import script
from headrace.errors import AwsError

_ENDED = {"Success", "Failed", "Cancelled", "TimedOut", "Undeliverable", "Terminated"}
_UNDER_WAY = {"Pending", "InProgress", "Baking"}
_IMAGE_LINE = re.compile(r"^export HEADRACE_IMAGE=.*\n", re.M)
# Without HealthCheck, too, hosts would be marked unhealthy meanwhile, and replaced at the end: a mark stays, however
# well the server is (https://docs.aws.amazon.com/autoscaling/ec2/userguide/healthcheck.html).
_REPLACING = ("HealthCheck", "ReplaceUnhealthy", "AZRebalance")
_BALANCER_SECONDS = 180.0  # until it finds a host healthy whose server answers: two checks, 10 s apart, and a start
_SLOW = 600.0  # seconds after which a replacement of hosts is said to be slow
_TAIL = 1500  # characters of a command's output that an error shows


class Host(NamedTuple):
    """An instance of the Auto Scaling group. `online`: Systems Manager reaches it."""

    id: str
    state: str
    health: str
    online: bool


def find(cloud: Cloud, app: Stack) -> list[Host]:
    """The group's instances as they are."""
    instances = _group(cloud, app).get("Instances", [])
    if not instances:
        return []
    ids = [instance["InstanceId"] for instance in instances]
    asked = [{"Key": "InstanceIds", "Values": ids}]
    found = cloud.pages("ssm", "describe_instance_information", "InstanceInformationList", Filters=asked)
    online = {item["InstanceId"] for item in found if item["PingStatus"] == "Online"}
    return [
        Host(item["InstanceId"], item["LifecycleState"], item["HealthStatus"], item["InstanceId"] in online)
        for item in instances
    ]


def addresses(cloud: Cloud, app: Stack) -> list[str]:
    """The hosts' addresses in the VPC. A host that takes another's place has another."""
    return [str(one["PrivateIpAddress"]) for one in _machines(cloud, app) if "PrivateIpAddress" in one]


def systems(cloud: Cloud, app: Stack) -> dict[str, datetime]:
    """Host -> when its Amazon Linux was made; without those whose image AWS has no more."""
    of = {one["InstanceId"]: one["ImageId"] for one in _machines(cloud, app)}
    if not of:
        return {}
    asked = [{"Name": "image-id", "Values": sorted(set(of.values()))}]  # unlike ImageIds, it passes over what is gone
    # Amazon deprecates an image after 90 days, and then shows it to nobody who does not ask for such
    # (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html)
    made = {
        one["ImageId"]: datetime.fromisoformat(one["CreationDate"])
        for one in cloud.call("ec2", "describe_images", Filters=asked, IncludeDeprecated=True)["Images"]
    }
    return {host: made[image] for host, image in of.items() if image in made}


def serving(cloud: Cloud, app: Stack, say: Say) -> Host:
    """A host to speak to its server: one in service, whatever comes or goes beside it; else the first that comes.

    Raises AwsError.
    """
    ready = (host for host in find(cloud, app) if host.state == "InService" and host.online)
    return next(ready, None) or wait_online(cloud, app, say)[0]


def wait_online(cloud: Cloud, app: Stack, say: Say, seconds: float = 600) -> list[Host]:
    """The hosts that are in service or will be, once Systems Manager reaches each. Raises AwsError after `seconds`."""
    deadline = time.monotonic() + seconds
    said, failed = False, ""
    for _ in polling():
        hosts = [host for host in find(cloud, app) if host.state.startswith(("InService", "Pending"))]
        if hosts and all(host.online for host in hosts):
            return hosts
        if not hosts and (why := _not_launched(cloud, app)) not in ("", failed):
            say(f"the group could not launch a host, and tries again: {why}")
            failed = why
        if time.monotonic() > deadline:
            if failed and not hosts:
                raise AwsError(
                    f"EC2 launches no host for {app.name} in {cloud.region}: {failed}\nPut right what that names (a "
                    "quota: `headrace aws doctor`; no capacity: another --size, or later; a key of EBS: let the role "
                    "AWSServiceRoleForAutoScaling use it). Then run the command again: it continues."
                )
            raise AwsError(
                f"Session Manager reached no host of {app.name} in {cloud.region} within {seconds:.0f} s "
                f"({', '.join(f'{host.id} is {host.state}' for host in hosts) or 'the group has none'}).\nA host needs "
                "a way out to the Internet, or VPC endpoints for ssm, ssmmessages and ec2messages: look at the "
                "subnets' routes. Then run the command again: it continues."
            )
        if not said:
            say("waiting for the host to come up (about a minute)")
            said = True
    raise AssertionError("unreachable")


def _not_launched(cloud: Cloud, app: Stack) -> str:
    """Why the group's last try to launch a host has failed; empty where it has not, or the caller may not look."""
    activities: list[Answer] = []
    with passing_over(*DENIED):
        activities = cloud.call(
            "autoscaling", "describe_scaling_activities", AutoScalingGroupName=app.output("Hosts"), MaxRecords=10
        )["Activities"]  # the newest first
    ended = next((one for one in activities if one["StatusCode"] in ("Successful", "Failed", "Cancelled")), None)
    return str(ended.get("StatusMessage", "")) if ended and ended["StatusCode"] != "Successful" else ""


@contextmanager
def kept(cloud: Cloud, app: Stack, say: Say) -> Iterator[None]:
    """For the time of the block the group replaces no host: one whose server is stopped fails the balancer's checks.

    A command that is killed in the block leaves the group so; `status` says it, and the next one resumes it.
    """
    suspend(cloud, app)
    try:
        yield
    finally:
        resume(cloud, app, say)


def suspend(cloud: Cloud, app: Stack) -> None:
    """Let the group replace no host until `resume`."""
    group = app.output("Hosts")
    cloud.call("autoscaling", "suspend_processes", AutoScalingGroupName=group, ScalingProcesses=list(_REPLACING))


def resume(cloud: Cloud, app: Stack, say: Say) -> None:
    """Let the group replace hosts that are unhealthy; those whose server has only just begun again are none."""
    if suspended(cloud, app):
        _wait_for_balancer(cloud, app, say)
        cloud.call(
            "autoscaling",
            "resume_processes",
            AutoScalingGroupName=app.output("Hosts"),
            ScalingProcesses=list(_REPLACING),
        )
        say("the group replaces unhealthy hosts again")


def _wait_for_balancer(cloud: Cloud, app: Stack, say: Say) -> None:
    """Until the load balancer, if there is one, finds no host unhealthy, or has had time enough to."""
    deadline = time.monotonic() + _BALANCER_SECONDS
    targets = _group(cloud, app).get("TargetGroupARNs", [])
    for poll, _ in enumerate(polling()):
        unhealthy = [
            one["Target"]["Id"]
            for target in targets
            for one in cloud.call("elbv2", "describe_target_health", TargetGroupArn=target)["TargetHealthDescriptions"]
            if one["TargetHealth"]["State"] == "unhealthy"
        ]
        if not unhealthy:
            return
        if time.monotonic() > deadline:
            say(f"the load balancer does not find {', '.join(unhealthy)} healthy: the group will replace that")
            return
        if poll == 0:
            say("waiting until the load balancer finds each host healthy")


def suspended(cloud: Cloud, app: Stack) -> list[str]:
    """Which of the processes that replace hosts the group does not do."""
    found = {one["ProcessName"] for one in _group(cloud, app).get("SuspendedProcesses", [])}
    return [process for process in _REPLACING if process in found]


def outdated(cloud: Cloud, app: Stack) -> list[str]:
    """Ids of the hosts that were made from another launch template than the group's, but for the image.

    `upgrade` changes the image of hosts that run; another size, Linux or first boot needs new ones.
    """
    group = _group(cloud, app)
    wanted = group.get("LaunchTemplate", {})
    return [
        instance["InstanceId"]
        for instance in group.get("Instances", [])
        if (template := instance.get("LaunchTemplate", {})) != wanted
        and (not template or _recipe(cloud, template) != _recipe(cloud, wanted))
    ]


def renew(cloud: Cloud, app: Stack, say: Say) -> None:
    """Put new hosts in the place of outdated ones, one by one, each started before an old one goes.

    Raises AwsError. A replacement that an earlier command has started is waited for.
    """
    group = app.output("Hosts")
    resume(cloud, app, say)  # which an upgrade that was killed has left
    if under_way := [one for one in _refreshes(cloud, group) if one["Status"] in _UNDER_WAY]:
        say("new hosts for old ones: under way since an earlier command; waiting for it")
        _follow_refresh(cloud, app, under_way[0]["InstanceRefreshId"], say)
    if not (old := outdated(cloud, app)):
        return
    preferences = {"MinHealthyPercentage": 100, "MaxHealthyPercentage": 200, "InstanceWarmup": 30}
    try:
        started = cloud.call(
            "autoscaling", "start_instance_refresh", AutoScalingGroupName=group, Preferences=preferences
        )["InstanceRefreshId"]
    except AwsError as error:
        if error.code != "InstanceRefreshInProgress":
            raise
        renew(cloud, app, say)  # another command was a moment earlier
        return
    say(f"new hosts for {', '.join(old)}, one by one; it takes minutes")
    _follow_refresh(cloud, app, started, say)


def _follow_refresh(cloud: Cloud, app: Stack, refresh: str, say: Say) -> None:
    """A new host counts once its server is healthy (the template's hook); one that is not within an hour goes again."""
    told = time.monotonic() + _SLOW
    for _ in polling(longest=15):
        if time.monotonic() > told:
            told += _SLOW
            waiting = [host.id for host in find(cloud, app) if host.state == "Pending:Wait"]
            say(
                f"the server of {', '.join(waiting)} is not healthy yet, and the old host goes on: `headrace aws logs` "
                f"has why, or aws ssm start-session --region {cloud.region} --target {waiting[0]} and "
                "/var/log/cloud-init-output.log there"
                if waiting
                else "still at it"
            )
        (answer,) = _refreshes(cloud, app.output("Hosts"), InstanceRefreshIds=[refresh])
        if answer["Status"] == "Successful":
            return
        if answer["Status"] not in _UNDER_WAY:
            raise AwsError(
                f"The hosts of {app.name} in {cloud.region} were not replaced: {answer['Status']}, "
                f"{answer.get('StatusReason', '')}\nThe old ones run on. `headrace aws status` shows them, "
                "`headrace aws up` tries again."
            )


def _refreshes(cloud: Cloud, group: str, **which: list[str]) -> list[Answer]:
    """The group's instance refreshes, the newest first."""
    answer = cloud.call("autoscaling", "describe_instance_refreshes", AutoScalingGroupName=group, **which)
    found: list[Answer] = answer["InstanceRefreshes"]
    return found


def _machines(cloud: Cloud, app: Stack) -> list[Answer]:
    """What EC2 says of the hosts. Of one that has just begun it may not know yet, and would refuse its id."""
    ids = [one["InstanceId"] for one in _group(cloud, app).get("Instances", [])]
    if not ids:
        return []
    found = cloud.pages("ec2", "describe_instances", "Reservations", Filters=[{"Name": "instance-id", "Values": ids}])
    return [one for each in found for one in each["Instances"]]


def _group(cloud: Cloud, app: Stack) -> Answer:
    """The Auto Scaling group; empty where somebody has deleted it."""
    groups = cloud.call("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[app.output("Hosts")])
    return next(iter(groups["AutoScalingGroups"]), {})


def _recipe(cloud: Cloud, template: Answer) -> Answer:
    """What a version of a launch template makes a host from, but for the image; empty where it is gone."""
    recipe: Answer = {}
    with passing_over("InvalidLaunchTemplateId.VersionNotFound", "InvalidLaunchTemplateId.NotFound"):
        found = cloud.call(
            "ec2",
            "describe_launch_template_versions",
            LaunchTemplateId=template["LaunchTemplateId"],
            Versions=[template["Version"]],
        )["LaunchTemplateVersions"]
        recipe = found[0]["LaunchTemplateData"]
        recipe["UserData"] = _IMAGE_LINE.sub("", base64.b64decode(recipe["UserData"]).decode())
    return recipe


def run(cloud: Cloud, host: str, commands: str, what: str, say: Say, seconds: int = 1200) -> str:
    """Run a shell script as root on a host; its output. Raises AwsError with the end of the output if it fails."""
    command = cloud.call(
        "ssm",
        "send_command",
        InstanceIds=[host],
        DocumentName="AWS-RunShellScript",
        Comment=what[:100],
        Parameters={"commands": [commands], "executionTimeout": [str(seconds)]},
        TimeoutSeconds=120,
    )["Command"]["CommandId"]
    say(f"{what} on {host}")
    for _ in polling():
        try:
            answer = cloud.call("ssm", "get_command_invocation", CommandId=command, InstanceId=host)
        except AwsError as error:
            if error.code == "InvocationDoesNotExist":  # not yet
                continue
            raise
        if answer["Status"] in _ENDED:
            break
    output = f"{answer.get('StandardOutputContent', '')}{answer.get('StandardErrorContent', '')}".strip()
    if answer["Status"] != "Success":
        raise AwsError(
            f"{what} on {host} in {cloud.region}: {answer['Status']} (exit code {answer.get('ResponseCode')}).\n"
            f"{output[-_TAIL:]}\nThe whole output: aws ssm get-command-invocation --region {cloud.region} "
            f"--command-id {command} --instance-id {host}"
        )
    return output


def stop_servers(cloud: Cloud, which: list[Host], say: Say) -> None:
    """Raises AwsError. A host that boots, and has no server yet, has none to stop."""
    for host in which:
        run(cloud, host.id, _of_server("docker stop mlflow-server"), "stop the server", say)


def start_servers(cloud: Cloud, which: list[Host], say: Say) -> None:
    """Those that were stopped; what keeps one from starting is said."""
    for host in which:
        try:
            run(cloud, host.id, _of_server("docker start mlflow-server"), "start the server again", say)
        except AwsError as error:
            say(f"The server on {host.id} could not be started: {error}")


def _of_server(command: str) -> str:
    """Not in the midst of run_container.sh, which a host that boots may be at, and only where there is a server."""
    return (
        "exec 9>/var/lock/run_container.lock\n"
        "flock --timeout 600 9 || { echo 'run_container.sh has been at work for 10 minutes'; exit 1; }\n"
        f"if docker container inspect mlflow-server >/dev/null 2>&1; then {command}; fi\n"
    )


def run_container(name: str, region: str, image: str) -> str:
    """The script that puts `image` into service on a host, and the old one back if it does not become healthy."""
    settings = {
        "HEADRACE_IMAGE": image,
        "HEADRACE_REGION": region,
        "HEADRACE_SSM_PREFIX": f"/{name}",
        "HEADRACE_PORT": "5000",
        "HEADRACE_LOG_GROUP": f"/headrace/{name}",
    }
    exports = "\n".join(f"export {key}={shlex.quote(value)}" for key, value in settings.items())
    encoded = base64.b64encode(script("run_container.sh").encode()).decode()  # Run Command reads {{...}} as its own
    target = "/usr/local/bin/run_container.sh"
    # a file of its own: a boot that reads the one before goes on with that
    return f"{exports}\necho {encoded} | base64 --decode > {target}.new && mv {target}.new {target} && bash {target}\n"
