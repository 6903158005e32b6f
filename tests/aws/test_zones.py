"""Which zones a new network gets: an account of four zones in which AWS lacks something (moto lacks nothing)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.aws import doctor, templates, zones
from headrace.aws.client import Answer, Cloud
from headrace.aws.deployment import SIZES
from headrace.errors import ConfigurationError
from tests.aws.template import Template

LETTERS = "abcd"


class Region(Cloud):
    """`without`: type -> the letters of the zones that lack it."""

    def __init__(self, **without: str) -> None:
        super().__init__("us-east-1")
        self.without = {name.replace("_", "."): letters for name, letters in without.items()}

    def _having(self, name: str) -> list[str]:
        return [f"us-east-1{letter}" for letter in LETTERS if letter not in self.without.get(name, "")]

    def call(self, service: str, operation: str, **arguments: Any) -> Answer:
        assert operation == "describe_availability_zones"
        assert {"Name": "zone-type", "Values": ["availability-zone"]} in arguments["Filters"], "a local zone has no RDS"
        return {"AvailabilityZones": [{"ZoneName": f"us-east-1{letter}"} for letter in reversed(LETTERS)]}

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        if operation == "describe_instance_type_offerings":
            for name in arguments["Filters"][0]["Values"]:
                for zone in self._having(name):
                    yield {"InstanceType": name, "Location": zone}
            return
        having = self._having(arguments["DBInstanceClass"])
        yield {"StorageType": "standard", "AvailabilityZones": [{"Name": f"us-east-1{each}"} for each in LETTERS]}
        if having:
            yield {"StorageType": "gp3", "AvailabilityZones": [{"Name": zone} for zone in having]}


@pytest.mark.parametrize(
    ("without", "letters"),
    [
        ({}, "ab"),
        ({"t4g_micro": "a"}, "bc"),
        ({"db_t4g_micro": "b"}, "ac"),
        ({"m7g_large": "a"}, "bc"),  # which the deployment may become
        ({"m7g_large": "acd"}, "ab"),  # not everything is to be had
        ({"t4g_micro": "a", "db_m7g_large": "bcd"}, "bc"),
    ],
)
def test_they_have_what_is_needed_and_may_be(without: dict[str, str], letters: str) -> None:
    assert zones.choose(Region(**without), SIZES["dev"], "arm64") == tuple(f"us-east-1{each}" for each in letters)


def test_where_no_two_have_it_the_way_out_is_told() -> None:
    for without in ({"t4g_micro": "abc"}, {"db_t4g_micro": "abcd"}):
        with pytest.raises(ConfigurationError, match="--architecture x86_64"):
            zones.choose(Region(**without), SIZES["dev"], "arm64")
    found = doctor._guarded("zones", lambda: doctor._zones(Region(t4g_micro="abc")))
    assert found.ok is False
    assert "us-east-1 has t4g.micro and db.t4g.micro in us-east-1d" in found.says
    assert doctor._zones(Region(t4g_micro="a")).ok


def test_a_network_that_is_there_keeps_its_zones() -> None:
    """Another zone would be another subnet, and with it another database."""
    given = Template(templates.data(), ZoneA="us-east-1c", ZoneB="us-east-1d")
    assert given.properties("AppSubnetA")["AvailabilityZone"] == {"Ref": "ZoneA"}
    assert given.properties("DatabaseSubnetB")["AvailabilityZone"] == {"Ref": "ZoneB"}
    before = Template(templates.data())
    assert before.properties("AppSubnetB")["AvailabilityZone"] == {"Fn::Select": [1, {"Fn::GetAZs": ""}]}
