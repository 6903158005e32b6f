"""A name for the balancer: its certificate, the record that proves whose the name is, the record that leads to it.

In a public zone of Route 53 in this account both records are made. Without one they are told, and waited for: ACM looks
for its record for 72 hours (https://docs.aws.amazon.com/acm/latest/userguide/dns-validation.html). Both are looked for
first, so that the command, run again, continues.
"""

from __future__ import annotations

import hashlib
import socket
import time
from typing import NamedTuple

from headrace.aws.client import Answer, Cloud, polling
from headrace.aws.stacks import Say
from headrace.errors import AwsError

_SAY_EVERY = 60.0  # seconds of waiting between two lines about it
_LOST = ("FAILED", "EXPIRED", "REVOKED", "VALIDATION_TIMED_OUT")
_TTL = 300  # seconds
_KEYS = ("RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1")
"""Which a balancer takes; ACM lists certificates with RSA_2048 alone where it is not asked for others."""


class Zone(NamedTuple):
    """A public hosted zone of Route 53."""

    id: str
    name: str


def find_zone(cloud: Cloud, domain: str) -> Zone | None:
    """The zone that the domain is in, the nearest one. Raises AwsError where two have the same name."""
    zones: dict[str, list[str]] = {}
    for one in cloud.pages("route53", "list_hosted_zones", "HostedZones"):
        name = one["Name"].rstrip(".")
        if not one.get("Config", {}).get("PrivateZone") and f".{domain}".endswith(f".{name}"):
            zones.setdefault(name, []).append(one["Id"].removeprefix("/hostedzone/"))
    if not zones:
        return None
    name = max(zones, key=len)
    if len(zones[name]) > 1:
        raise AwsError(
            f"Route 53 has {len(zones[name])} public zones {name} ({', '.join(zones[name])}), and the world asks one "
            "at most. Delete the others, or give --certificate-arn and make the record by hand."
        )
    return Zone(zones[name][0], name)


def issued(cloud: Cloud, domain: str) -> str | None:
    """The ARN of a certificate for the domain that can be used, if there is one."""
    return _certificate(cloud, domain, "ISSUED")


def certify(cloud: Cloud, name: str, domain: str, say: Say) -> None:
    """See that ACM has a certificate for the domain, and wait until it has. Raises AwsError."""
    if issued(cloud, domain):
        return
    arn = _certificate(cloud, domain, "PENDING_VALIDATION")
    if arn is None:
        token = hashlib.sha256(f"{name} {domain}".encode()).hexdigest()[:32]  # asked for twice it is one
        arn = str(
            cloud.call(
                "acm",
                "request_certificate",
                DomainName=domain,
                ValidationMethod="DNS",
                IdempotencyToken=token,
                Tags=[{"Key": "headrace", "Value": name}],
            )["CertificateArn"]
        )
        say(f"certificate for {domain}: asked for")
    zone, told = find_zone(cloud, domain), False
    waiting = _Waiting(say)
    for _ in polling(longest=15):
        found = cloud.call("acm", "describe_certificate", CertificateArn=arn)["Certificate"]
        if found["Status"] == "ISSUED":
            say(f"certificate for {domain}: issued")
            return
        if found["Status"] in _LOST:
            raise AwsError(
                f"ACM gives no certificate for {domain}: {found['Status']} {found.get('FailureReason', '')}\nPut right "
                f"what that names (a CAA record of the domain must allow amazon.com), then: aws acm delete-certificate "
                f"--region {cloud.region} --certificate-arn {arn}, and run the command again."
            )
        record = next(
            (one["ResourceRecord"] for one in found["DomainValidationOptions"] if "ResourceRecord" in one), None
        )
        if record is None:  # not yet
            continue
        if not told:
            told = True
            if zone is not None:
                _upsert(cloud, zone, record["Name"], {"Type": record["Type"], "Value": record["Value"]})
                say(f"zone {zone.name}: {record['Name']} proves to ACM whose the domain is")
            else:
                say(_to_make(domain, record["Name"], record["Type"], record["Value"], "its certificate"))
        waiting.line(
            f"waiting for ACM to see the record (minutes; of a new zone, look that the registrar names its servers: "
            f"dig +short CNAME {record['Name']})"
        )


def lead(cloud: Cloud, domain: str, balancer: str, say: Say) -> None:
    """See that the domain leads to the load balancer (its ARN), and wait until this machine finds it.

    Raises AwsError.
    """
    (found,) = cloud.call("elbv2", "describe_load_balancers", LoadBalancerArns=[balancer])["LoadBalancers"]
    target = str(found["DNSName"])
    if leads(domain, target):
        return
    zone = find_zone(cloud, domain)
    if zone is None:
        say(_to_make(domain, domain, "CNAME", target, "the domain itself"))
    else:
        _check_free(cloud, zone, domain, target)
        alias = {"HostedZoneId": found["CanonicalHostedZoneId"], "DNSName": target, "EvaluateTargetHealth": False}
        _upsert(cloud, zone, domain, {"AliasTarget": alias})
        say(f"zone {zone.name}: {domain} leads to {target}")
    waiting = _Waiting(say)
    for _ in polling(longest=15):
        if leads(domain, target):
            return
        waiting.line(f"waiting until {domain} is found from here (a resolver keeps that there was none, for minutes)")


def leads(domain: str, target: str) -> bool:
    """Whether this machine finds the domain where it finds the target: one address at least is the same."""
    return bool(_addresses(domain) & _addresses(target))


def unlead(cloud: Cloud, domain: str, balancer: str, say: Say) -> None:
    """Take the record of a balancer away that is to go: whoever gets its name later must not get the domain."""
    zone = find_zone(cloud, domain)
    if zone is None:
        return
    (found,) = cloud.call("elbv2", "describe_load_balancers", LoadBalancerArns=[balancer])["LoadBalancers"]
    for record in _records(cloud, zone, domain):
        if _target(record) == found["DNSName"].lower():
            _change(cloud, zone, "DELETE", record)
            say(f"zone {zone.name}: {domain} is taken away")


def _certificate(cloud: Cloud, domain: str, status: str) -> str | None:
    asked = {"CertificateStatuses": [status], "Includes": {"keyTypes": list(_KEYS)}}
    found = cloud.pages("acm", "list_certificates", "CertificateSummaryList", **asked)
    return next((str(one["CertificateArn"]) for one in found if one["DomainName"] == domain), None)


def _check_free(cloud: Cloud, zone: Zone, domain: str, target: str) -> None:
    """Raises AwsError where the domain is somebody's."""
    for record in _records(cloud, zone, domain):
        # of a balancer that is gone: its name is found no more
        if (
            record["Type"] in ("A", "AAAA", "CNAME")
            and (other := _target(record)) != target.lower()
            and _addresses(other)
        ):
            raise AwsError(
                f"{domain} leads to {other} already (zone {zone.name}, {record['Type']}). Take another --domain, or "
                "delete that record in Route 53, and run the command again."
            )


def _records(cloud: Cloud, zone: Zone, domain: str) -> list[Answer]:
    found = cloud.call(
        "route53", "list_resource_record_sets", HostedZoneId=zone.id, StartRecordName=domain, MaxItems="10"
    )["ResourceRecordSets"]
    return [one for one in found if one["Name"].rstrip(".") == domain and one["Type"] in ("A", "AAAA", "CNAME")]


def _target(record: Answer) -> str:
    if "AliasTarget" in record:
        return str(record["AliasTarget"]["DNSName"]).lower().rstrip(".").removeprefix("dualstack.")
    return str(record["ResourceRecords"][0]["Value"]).lower().rstrip(".")


def _upsert(cloud: Cloud, zone: Zone, name: str, to: Answer) -> None:
    record: Answer = {"Name": name, "Type": to.pop("Type", "A")}
    record |= {"TTL": _TTL, "ResourceRecords": [{"Value": to["Value"]}]} if "Value" in to else to
    _change(cloud, zone, "UPSERT", record)


def _change(cloud: Cloud, zone: Zone, action: str, record: Answer) -> None:
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
    cloud.call("route53", "change_resource_record_sets", HostedZoneId=zone.id, ChangeBatch=batch)


def _addresses(name: str) -> set[str]:
    try:
        return {str(address[0]) for *_, address in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _to_make(domain: str, name: str, kind: str, value: str, what: str) -> str:
    return (
        f"Route 53 of this account has no public zone of {domain}. Make this record where the domain is kept, for "
        f"{what}; this goes on once it is there (Ctrl-C, and the same command later, is as good):\n"
        f"  {name}  {kind}  {value}"
    )


class _Waiting:
    """Says a line every minute."""

    def __init__(self, say: Say) -> None:
        self._say, self._next = say, time.monotonic()

    def line(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SAY_EVERY
            self._say(text)
