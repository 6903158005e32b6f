"""A first `up` that AWS breaks off at each resource in turn: it says at which, and is taken away again without a trace.

Moto's stand-in (support/moto_aws.py) makes what the failing resource does not hinder, rolls back, and keeps a protected
database as AWS does. What a network leaves is not looked at: moto can't delete one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.aws import down, execute, plan, stacks, templates
from headrace.aws.client import Cloud
from headrace.aws.deployment import Choices
from headrace.errors import AwsError
from tests.aws.conftest import Account
from tests.aws.template import Template
from tests.support import tls
from tests.support.moto_aws import FAILS_AT

NAME = "mlflow"
IMAGE = "example.org/headrace@sha256:" + 64 * "1"
DOMAIN = "ml.example.org"


def say(_: str) -> None:
    """Nobody listens."""


def choices(certificate: str) -> Choices:
    """Those that make every resource of the app stack which can be beside the others."""
    return Choices(
        ingress="alb",
        domain=DOMAIN,
        certificate_arn=certificate,
        allow_cidr="203.0.113.0/24",
        alarm_email="me@example.org",
        image=IMAGE,
    )


def take(cloud: Cloud, chosen: Choices, kind: type[Any]) -> None:
    """The steps of one kind of `up`."""
    live = execute.Live(cloud, say)
    for step in plan.up(cloud, chosen, say):
        if isinstance(step, kind):
            live.take(step)


def broken_at(cloud: Cloud, resource: str, chosen: Choices, kind: type[Any]) -> None:
    cloud.call("ssm", "put_parameter", Name=FAILS_AT, Value=resource, Type="String")
    with pytest.raises(AwsError, match=f"What failed first: {resource} .*it is made to fail"):
        take(cloud, chosen, kind)
    cloud.call("ssm", "delete_parameter", Name=FAILS_AT)


def left(cloud: Cloud) -> dict[str, Any]:
    """All that costs something, or is in the way of the next."""
    asked = {
        "stacks": cloud.call("cloudformation", "describe_stacks")["Stacks"],
        "databases": cloud.call("rds", "describe_db_instances")["DBInstances"],
        "buckets": cloud.call("s3", "list_buckets")["Buckets"],
        "repositories": cloud.call("ecr", "describe_repositories")["repositories"],
        "groups": cloud.call("autoscaling", "describe_auto_scaling_groups")["AutoScalingGroups"],
        "balancers": cloud.call("elbv2", "describe_load_balancers")["LoadBalancers"],
        "parameters": list(cloud.pages("ssm", "get_parameters_by_path", "Parameters", Path=f"/{NAME}", Recursive=True)),
    }
    return {what: found for what, found in asked.items() if found}


def gone(cloud: Cloud) -> None:
    down.down(cloud, NAME, say)
    down.delete_data(cloud, NAME, say)


def test_the_data_stack_broken_at_each_resource_is_gone_after_down(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.aws.client.time.sleep", lambda _: None)
    cloud, kept = account.cloud(), []
    for resource in Template(templates.data()).resources:
        broken_at(cloud, resource, Choices(image=IMAGE, keys="customer-managed"), plan.MakeStack)
        stack = stacks.find(cloud, f"{NAME}-data")
        assert stack is not None
        if stack.status == "ROLLBACK_FAILED":
            kept.append(resource)
        gone(cloud)
        assert left(cloud) == {}, resource
    # what fails once there may be a database, which is protected from the beginning
    assert {"KeyAlias", "Repository", "ParameterDbUser"} <= set(kept)
    assert not {"Database", "DatabaseSubnets", "Key"} & set(kept)


def test_the_app_stack_broken_at_each_resource_is_gone_after_down(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.aws.client.time.sleep", lambda _: None)
    cloud = account.cloud()
    certificate, key = (path.read_bytes() for path in tls.certificate(tmp_path, DOMAIN))
    arn = cloud.call("acm", "import_certificate", Certificate=certificate, PrivateKey=key)["CertificateArn"]
    chosen = choices(arn)
    take(cloud, chosen, plan.MakeStack)
    before = left(cloud)
    parameters = {"Ingress": "alb", "AlarmEmail": "me@example.org"}
    for resource in Template(templates.app(), **parameters).resources:
        broken_at(cloud, resource, chosen, plan.MakeApp)
        down.down(cloud, NAME, say)
        assert left(cloud).keys() == before.keys(), resource
        assert stacks.find(cloud, f"{NAME}-app") is None
    take(cloud, chosen, plan.MakeApp)  # nothing of all that is in the way of one that is made
    gone(cloud)
    assert left(cloud) == {}


def test_down_and_up_make_the_app_as_it_was(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size, ingress, domain and images: nothing but the stack that is gone had them."""
    monkeypatch.setattr("headrace.aws.client.time.sleep", lambda _: None)
    cloud = account.cloud()
    certificate, key = (path.read_bytes() for path in tls.certificate(tmp_path, DOMAIN))
    arn = cloud.call("acm", "import_certificate", Certificate=certificate, PrivateKey=key)["CertificateArn"]
    chosen = replace(choices(arn), size="ha", architecture="x86_64")
    for kind in (plan.MakeStack, plan.MakeApp):
        take(cloud, chosen, kind)
    before = stacks.find(cloud, f"{NAME}-app")
    assert before is not None
    assert before.parameters["InstanceType"] == "m7i.large"
    down.down(cloud, NAME, say)
    assert stacks.find(cloud, f"{NAME}-app") is None
    for step in plan.up(cloud, Choices(), say):
        if isinstance(step, plan.MakeApp):
            assert step.image == IMAGE, "not what `latest` is by now"
            assert step.stack.parameters.items() <= before.parameters.items()
    smaller = Choices(size="team", ingress="none", image="example.org/another:1")
    (app,) = [one for one in plan.up(cloud, smaller, say) if isinstance(one, plan.MakeApp)]
    assert (app.image, app.stack.parameters["InstanceType"]) == ("example.org/another:1", "t3.medium")
    assert app.stack.parameters["AlarmEmail"] == "me@example.org"
    take(cloud, Choices(), plan.MakeApp)
    after = stacks.find(cloud, f"{NAME}-app")
    assert after is not None
    assert after.parameters == before.parameters
    assert cloud.parameter(f"/{NAME}/APP") is None, "from here on the stack has them itself"
    gone(cloud)
    assert left(cloud) == {}
