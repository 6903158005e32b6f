"""What `status` and `up` say of hosts and images that have missed their fixes: EC2's and ECR's answers by Stubber."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.stub import Stubber

from headrace.aws import hosts, patches
from headrace.aws.client import Cloud
from headrace.aws.stacks import Stack
from tests.aws.conftest import Account

NOW = datetime(2026, 11, 28, tzinfo=UTC)
DIGEST = f"sha256:{64 * '1'}"
OURS = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/lab@{DIGEST}"


def app(image: str = OURS) -> Stack:
    return Stack("lab-app", "CREATE_COMPLETE", {"Image": image}, {"Hosts": "group"})


def lines(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, linux: int, image: int | None) -> list[str]:
    """With an Amazon Linux and an image of so many days ago; None: ECR has it no more."""
    monkeypatch.setattr(hosts, "_group", lambda *_: {"Instances": [{"InstanceId": "i-1"}]})
    monkeypatch.setattr(Cloud, "account", lambda _: "123456789012")
    made = (NOW - timedelta(days=linux)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    here: dict[str, Any] = {"repositoryName": "lab", "imageIds": [{"imageDigest": DIGEST}]}
    with Stubber(cloud.client("ec2")) as ec2, Stubber(cloud.client("ecr")) as ecr:
        ec2.add_response(
            "describe_instances", {"Reservations": [{"Instances": [{"InstanceId": "i-1", "ImageId": "ami-1"}]}]}
        )
        ec2.add_response(
            "describe_images",
            {"Images": [{"ImageId": "ami-1", "CreationDate": made}]},
            {"Filters": [{"Name": "image-id", "Values": ["ami-1"]}], "IncludeDeprecated": True},
        )
        if image is None:
            ecr.add_client_error("describe_images", "ImageNotFoundException", expected_params=here)
        else:
            details = [{"imageDigest": DIGEST, "imagePushedAt": NOW - timedelta(days=image)}]
            ecr.add_response("describe_images", {"imageDetails": details}, here)
        return patches.old(cloud, "lab", app(), NOW)


def test_what_is_new_is_not_told(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(cloud, monkeypatch, linux=patches.DAYS, image=patches.DAYS) == []


def test_what_is_old_is_told_with_what_to_run(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    linux, image = lines(cloud, monkeypatch, linux=61, image=100)
    assert linux.startswith("Amazon Linux of i-1 is of 2026-09-28, 61 days ago: `headrace aws up`")
    assert image.startswith("the image was pushed 2026-08-20, 100 days ago")
    assert "`headrace aws upgrade`" in image


def test_an_image_that_is_gone_has_no_age(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(cloud, monkeypatch, linux=1, image=None) == []


def test_another_registrys_image_and_no_host_are_passed_over(account: Account) -> None:
    cloud = account.cloud()
    assert patches.old(cloud, "lab", app(f"example.org/headrace@{DIGEST}")) == []
