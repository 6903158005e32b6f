"""A domain's certificate and records: the calls of ACM and Route 53 by botocore's Stubber, which checks them as AWS.

What the world's name servers say is a stand-in: `addresses`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from headrace.aws import domain, execute
from headrace.aws.client import Cloud
from headrace.aws.deployment import Choices
from headrace.aws.plan import MakeApp, MakeStack
from headrace.aws.stacks import Stack
from headrace.errors import AwsError

Say = Callable[[str], None]
NAME = "mlflow.example.com"
ARN = "arn:aws:acm:us-east-1:123456789012:certificate/1"
BALANCER = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/lab/1"
TARGET = "Lab-1.us-east-1.elb.amazonaws.com"
PROOF = {"Name": f"_a.{NAME}.", "Type": "CNAME", "Value": "_b.acm-validations.aws."}
ZONES: list[dict[str, Any]] = [
    {"Id": "/hostedzone/Z0", "Name": "com.", "CallerReference": "0"},
    {"Id": "/hostedzone/Z1", "Name": "example.com.", "CallerReference": "1"},
    {"Id": "/hostedzone/Z2", "Name": f"{NAME}.", "CallerReference": "2", "Config": {"PrivateZone": True}},
    {"Id": "/hostedzone/Z3", "Name": "ample.com.", "CallerReference": "3"},
]
ALIAS = {"HostedZoneId": "ZELB", "DNSName": TARGET, "EvaluateTargetHealth": False}


@pytest.fixture
def acm(cloud: Cloud) -> Iterator[Stubber]:
    with Stubber(cloud.client("acm")) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def route53(cloud: Cloud) -> Iterator[Stubber]:
    with Stubber(cloud.client("route53")) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def elb(cloud: Cloud) -> Iterator[Stubber]:
    with Stubber(cloud.client("elbv2")) as stubber:
        found = {"DNSName": TARGET, "CanonicalHostedZoneId": "ZELB"}
        stubber.add_response("describe_load_balancers", {"LoadBalancers": [found]}, {"LoadBalancerArns": [BALANCER]})
        yield stubber


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[set[str]]]:
    """Name -> what the resolver finds, look after look; the last for ever."""
    found: dict[str, list[set[str]]] = {TARGET: [{"192.0.2.1", "192.0.2.2"}]}

    def look(name: str) -> set[str]:
        answers = found.get(name, [set()])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(domain, "_addresses", look)
    return found


def has(acm: Stubber, status: str, *names: str) -> None:
    found = [{"CertificateArn": ARN, "DomainName": name} for name in names]
    kinds = ["RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1"]  # unasked ACM lists RSA_2048 alone
    asked = {"CertificateStatuses": [status], "Includes": {"keyTypes": kinds}}
    acm.add_response("list_certificates", {"CertificateSummaryList": found}, asked)


def is_now(acm: Stubber, status: str, record: bool = True) -> None:
    option = {"DomainName": NAME} | ({"ResourceRecord": PROOF} if record else {})
    found = {"Status": status, "DomainValidationOptions": [option], "FailureReason": "CAA_ERROR"}
    acm.add_response("describe_certificate", {"Certificate": found}, {"CertificateArn": ARN})


def zones(route53: Stubber, *found: dict[str, Any]) -> None:
    listed = {"HostedZones": list(found), "Marker": "", "IsTruncated": False, "MaxItems": "100"}
    route53.add_response("list_hosted_zones", listed, {})


def changes(route53: Stubber, action: str, record: dict[str, Any]) -> None:
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
    done = {"ChangeInfo": {"Id": "C1", "Status": "PENDING", "SubmittedAt": 0}}
    route53.add_response("change_resource_record_sets", done, {"HostedZoneId": "Z1", "ChangeBatch": batch})


def records(route53: Stubber, *found: dict[str, Any]) -> None:
    listed = {"ResourceRecordSets": list(found), "IsTruncated": False, "MaxItems": "10"}
    asked = {"HostedZoneId": "Z1", "StartRecordName": NAME, "MaxItems": "10"}
    route53.add_response("list_resource_record_sets", listed, asked)


def test_in_a_zone_of_route_53_all_is_done(
    cloud: Cloud, acm: Stubber, route53: Stubber, elb: Stubber, addresses: Any, say: Say, said: list[str]
) -> None:
    has(acm, "ISSUED", "other.example.com")
    has(acm, "PENDING_VALIDATION")
    asked = {"DomainName": NAME, "ValidationMethod": "DNS", "IdempotencyToken": ANY}
    acm.add_response(
        "request_certificate", {"CertificateArn": ARN}, asked | {"Tags": [{"Key": "headrace", "Value": "lab"}]}
    )
    zones(route53, *ZONES)
    is_now(acm, "PENDING_VALIDATION", record=False)  # ACM takes its time before it says which record
    is_now(acm, "PENDING_VALIDATION")
    proof = {"Name": PROOF["Name"], "Type": "CNAME", "TTL": 300, "ResourceRecords": [{"Value": PROOF["Value"]}]}
    changes(route53, "UPSERT", proof)
    is_now(acm, "PENDING_VALIDATION")
    is_now(acm, "ISSUED")
    domain.certify(cloud, "lab", NAME, say)

    addresses[NAME] = [set(), set(), set(), {"192.0.2.2"}]
    zones(route53, *ZONES)
    records(route53, {"Name": f"{NAME}.", "Type": "TXT"}, {"Name": "z.example.com.", "Type": "A"})
    changes(route53, "UPSERT", {"Name": NAME, "Type": "A", "AliasTarget": ALIAS})
    domain.lead(cloud, NAME, BALANCER, say)
    assert len([line for line in said if line.startswith("waiting")]) == 2, "once a minute each"


def test_without_a_zone_the_records_are_told_and_waited_for(
    cloud: Cloud, acm: Stubber, route53: Stubber, elb: Stubber, addresses: Any, say: Say, said: list[str]
) -> None:
    has(acm, "ISSUED")
    has(acm, "PENDING_VALIDATION", NAME)  # since a command that was broken off
    zones(route53, ZONES[2])
    for status in ("PENDING_VALIDATION", "PENDING_VALIDATION", "ISSUED"):
        is_now(acm, status)
    domain.certify(cloud, "lab", NAME, say)
    addresses[NAME] = [{"203.0.113.9"}, {"203.0.113.9"}, {"192.0.2.1"}]
    zones(route53)
    domain.lead(cloud, NAME, BALANCER, say)
    text = "\n".join(said)
    assert f"  _a.{NAME}.  CNAME  _b.acm-validations.aws." in text
    assert f"  {NAME}  CNAME  {TARGET}" in text
    assert text.count("Make this record") == 2


def test_what_is_there_is_not_made_again(
    cloud: Cloud, acm: Stubber, elb: Stubber, addresses: Any, say: Say, said: list[str]
) -> None:
    has(acm, "ISSUED", NAME)
    domain.certify(cloud, "lab", NAME, say)
    addresses[NAME] = [{"192.0.2.1"}]
    domain.lead(cloud, NAME, BALANCER, say)
    assert said == []


def test_a_certificate_that_never_comes(cloud: Cloud, acm: Stubber, route53: Stubber, say: Say) -> None:
    has(acm, "ISSUED")
    has(acm, "PENDING_VALIDATION", NAME)
    zones(route53)
    is_now(acm, "FAILED")
    with pytest.raises(AwsError, match=r"FAILED CAA_ERROR\n.*amazon.com.*delete-certificate"):
        domain.certify(cloud, "lab", NAME, say)


@pytest.mark.parametrize(
    ("record", "other"),
    [
        ({"Type": "CNAME", "ResourceRecords": [{"Value": "host.example.net"}], "TTL": 1}, "host.example.net"),
        ({"Type": "A", "ResourceRecords": [{"Value": "198.51.100.1"}], "TTL": 1}, "198.51.100.1"),
        (
            {"Type": "A", "AliasTarget": {**ALIAS, "DNSName": "dualstack.other.elb.amazonaws.com."}},
            "other.elb.amazonaws.com",
        ),
    ],
)
def test_somebodys_record_stays(
    cloud: Cloud, route53: Stubber, elb: Stubber, addresses: Any, say: Say, record: dict[str, Any], other: str
) -> None:
    addresses[other] = [{"198.51.100.1"}]
    zones(route53, *ZONES)
    records(route53, {"Name": f"{NAME}.", **record})
    with pytest.raises(AwsError, match=f"{NAME} leads to {other} already"):
        domain.lead(cloud, NAME, BALANCER, say)


def test_the_record_of_a_balancer_that_is_gone_is_replaced(
    cloud: Cloud, route53: Stubber, elb: Stubber, addresses: Any, say: Say
) -> None:
    zones(route53, *ZONES)
    gone = {"Name": f"{NAME}.", "Type": "A", "AliasTarget": {**ALIAS, "DNSName": "gone.elb.amazonaws.com."}}
    records(route53, gone)
    changes(route53, "UPSERT", {"Name": NAME, "Type": "A", "AliasTarget": ALIAS})
    addresses[NAME] = [set(), {"192.0.2.1"}]
    domain.lead(cloud, NAME, BALANCER, say)


@pytest.mark.parametrize(("target", "goes"), [(f"{TARGET.lower()}.", True), ("other.elb.amazonaws.com.", False)])
def test_down_takes_its_own_record_away(
    cloud: Cloud, route53: Stubber, elb: Stubber, say: Say, target: str, goes: bool
) -> None:
    zones(route53, *ZONES)
    record = {"Name": f"{NAME}.", "Type": "A", "AliasTarget": {**ALIAS, "DNSName": target}}
    records(route53, record)
    if goes:
        changes(route53, "DELETE", record)
    domain.unlead(cloud, NAME, BALANCER, say)


def test_two_zones_of_one_name(cloud: Cloud, route53: Stubber) -> None:
    zones(route53, ZONES[1], {**ZONES[1], "Id": "/hostedzone/Z9"})
    with pytest.raises(AwsError, match="2 public zones"):
        domain.find_zone(cloud, NAME)


def test_the_stack_gets_the_certificate_that_was_made(
    cloud: Cloud, acm: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Choices(ingress="alb", domain=NAME, allow_cidr="203.0.113.0/24").app_parameters({})
    assert given["CertificateArn"] == ""
    monkeypatch.setattr(execute, "required", lambda *_: Stack("lab-data", "", {}, {}))
    monkeypatch.setattr("headrace.aws.images.pinned", lambda *_: None)
    has(acm, "ISSUED", NAME)
    step = MakeApp(MakeStack("lab-app", "", given), "example.org/image:1")
    assert execute._with_image(cloud, step).parameters["CertificateArn"] == ARN


def test_another_domain_has_another_certificate() -> None:
    deployed = Choices(ingress="alb", domain=NAME, allow_cidr="203.0.113.0/24", certificate_arn=ARN).app_parameters({})
    assert Choices(alarm_email="a@b").app_parameters(deployed)["CertificateArn"] == ARN
    assert Choices(domain=NAME).app_parameters(deployed)["CertificateArn"] == ARN
    assert Choices(domain="other.example.com").app_parameters(deployed)["CertificateArn"] == ""
