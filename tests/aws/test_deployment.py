"""Choices, sizes and prices: pure."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.aws import hosts, prices, templates
from headrace.aws.deployment import SIZES, Choices
from headrace.cli.aws import aws
from headrace.errors import ConfigurationError
from tests.aws.template import Template

ALB: dict[str, Any] = {
    "ingress": "alb",
    "domain": "ml.example.org",
    "certificate_arn": "arn:c",
    "allow_cidr": "203.0.113.0/24",
}


def bill(size: str) -> list[prices.Item]:
    """Of a size as it comes; `ha` with its load balancer."""
    choices = Choices(size=size, **(ALB if size == "ha" else {}))
    return prices.estimate(choices.data_parameters({}), choices.app_parameters({}))


def test_dev_at_first() -> None:
    choices = Choices()
    assert choices.data_parameters({})["DatabaseClass"] == SIZES["dev"].database
    app = choices.app_parameters({})
    assert (app["InstanceType"], app["Instances"], app["MaxInstances"]) == ("t4g.micro", "1", "2")
    assert app["Ami"].endswith("-arm64")


def test_what_is_not_chosen_again_stays() -> None:
    deployed = Choices(size="ha", **ALB).app_parameters({})
    assert Choices().app_parameters(deployed) == deployed
    assert Choices(alarm_email="ops@example.org").app_parameters(deployed) == {
        **deployed,
        "AlarmEmail": "ops@example.org",
    }
    assert Choices(architecture="x86_64").app_parameters(deployed)["InstanceType"] == "m7i.large"
    assert Choices(size="team").app_parameters(deployed)["Instances"] == "1"


def test_a_disk_of_the_database_never_shrinks() -> None:
    large = Choices(size="ha", **ALB).data_parameters({})
    assert Choices(size="dev").data_parameters(large)["DatabaseStorage"] == "100"


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"name": "My_Server"}, "--name My_Server"),
        ({"name": "m"}, "--name m can't be"),  # ECR takes two characters or more
        ({"name": "mlflow-"}, "--name mlflow- can't be"),  # nor does ECR, or RDS, take these two
        ({"name": "ml--flow"}, "--name ml--flow can't be"),
        ({"name": 25 * "m"}, "2 to 24"),
        ({"name": "ssm-mlflow"}, "AWS keeps names"),
        ({"name": "awsome"}, "AWS keeps names"),
        ({"name": "internal-ml"}, "AWS keeps names"),
        ({"ingress": "alb"}, "--domain, --allow-cidr"),
        ({"size": "ha"}, "--ingress alb"),
        ({"size": "ha", "ingress": "vpc", "allow_security_group": "sg-1"}, "--ingress alb"),
        ({"ingress": "vpc"}, "--allow-security-group"),
        ({"ingress": "vpc", "allow_security_group": "10.0.0.0/8"}, "--allow-security-group"),
        ({**ALB, "allow_cidr": "everybody"}, "--allow-cidr everybody"),
        ({**ALB, "allow_cidr": "10.0.0.1/8"}, "has host bits set"),
        ({"vpc_id": "vpc-1"}, "--app-subnet-ids"),
        *(
            ({**ALB, "domain": domain}, "--domain .*it is a name alone")
            for domain in (
                "https://ml.example.com",
                "ml.example.com/",
                "ML.example.com",
                "ml",
                "a'.b",
                f"{61 * 'm'}.com",
            )
        ),
        ({"alarm_email": "ann"}, "--alarm-email ann is no address"),
        ({"alarm_email": "ann@example.com, bob@example.com"}, "is no address"),
        ({"permissions_boundary": "limit"}, "--permissions-boundary limit is no ARN of a policy"),
        ({"permissions_boundary": "arn:aws:iam::123456789012:role/limit"}, "is no ARN of a policy"),
    ],
)
def test_choices_that_can_not_be(chosen: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Choices(**chosen).app_parameters({})


def test_an_upgrade_brings_the_script_to_the_host(tmp_path: Path) -> None:
    """Run here with `bash` replaced by `cat`, it prints the whole script and has the variables."""
    commands = hosts.run_container("mlflow", "us-east-1", "example.org/x:1")
    assert "{{" not in commands
    here = commands.replace("/usr/local/bin/run_container.sh", str(tmp_path / "script")).replace("&& bash ", "&& cat ")
    done = subprocess.run(["bash"], input=f"{here}\nenv", capture_output=True, text=True, check=True)
    assert done.stdout.startswith(templates.script("run_container.sh"))
    assert {"HEADRACE_IMAGE=example.org/x:1", "HEADRACE_SSM_PREFIX=/mlflow"} <= set(done.stdout.splitlines())


@pytest.mark.parametrize("key", ["headrace", "aws:created"])
def test_tags_that_are_not_yours(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--tag {key}"):
        Choices(tags={key: "x"})


def test_a_tag_has_a_key_and_a_value() -> None:
    for given in ("team", "=ml", "team="):
        done = CliRunner().invoke(aws, ["plan", "--tag", given], env={"AWS_REGION": "us-east-1"})
        assert "give KEY=VALUE" in done.output


def test_a_database_stays_in_its_network() -> None:
    deployed = Choices(vpc_id="vpc-1", app_subnet_ids="a,b").data_parameters({})
    assert deployed["DatabaseSubnetIds"] == "a,b"
    with pytest.raises(ConfigurationError, match="can't move"):
        Choices(vpc_id="vpc-2", app_subnet_ids="a,b").data_parameters(deployed)


def test_every_machine_has_a_price() -> None:
    for size in SIZES.values():
        assert set(size.instance_types.values()) <= prices.HOSTS.keys()
        assert size.database in prices.DATABASES


def test_prices_add_up() -> None:
    """By hand, for dev: 0.0084 * 730 + 0.64 + 0.016 * 730 + 20 * 0.115 + 0.005 * 730 + 0.40.

    Of CloudWatch's allowance: 0.80 + 0.90 + 3 + 60 * 730 * 0.00001.
    """
    dev, team, ha = map(bill, SIZES)
    assert prices.billed(dev) == pytest.approx(24.80, abs=0.005)
    assert prices.without_allowance(dev) == pytest.approx(29.94, abs=0.005)
    assert prices.billed(dev) < prices.billed(team) < prices.billed(ha)
    own = Choices(keys="customer-managed").data_parameters({})
    assert prices.billed(prices.estimate(own, Choices().app_parameters({}))) == pytest.approx(25.80, abs=0.005)


def test_dev_is_25_dollars_at_most() -> None:
    assert prices.billed(bill("dev")) <= 25


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keys", [None, "aws-managed", "customer-managed"])
def test_keys_are_chosen_once(size: str, keys: str | None) -> None:
    first = Choices(size=size, keys=keys).data_parameters({})
    assert first["Keys"] == (keys or ("aws-managed" if size == "dev" else "customer-managed"))
    for later in SIZES:  # it grows, or shrinks
        assert Choices(size=later).data_parameters(first)["Keys"] == first["Keys"]
    assert Choices(keys=first["Keys"]).data_parameters(first)["Keys"] == first["Keys"]
    (other,) = {"aws-managed", "customer-managed"} - {first["Keys"]}
    with pytest.raises(ConfigurationError, match=f"encrypted with {first['Keys']} keys.*--keys {other}"):
        Choices(keys=other).data_parameters(first)


def test_a_deployment_of_before_there_was_a_choice_keeps_its_key() -> None:
    before = Choices(keys="customer-managed").data_parameters({})
    del before["Keys"]
    assert Choices(size="dev").data_parameters(before)["Keys"] == "customer-managed"
    with pytest.raises(ConfigurationError, match="encrypted with customer-managed keys"):
        Choices(keys="aws-managed").data_parameters(before)
    for text in (templates.data(), templates.app()):
        assert Template(text).parameters["Keys"] == "customer-managed"


@pytest.mark.parametrize("ingress", ["none", "alb"])
def test_what_is_priced_is_what_the_template_makes(ingress: str) -> None:
    app = Template(templates.app(), Ingress=ingress)
    alarms = app.of_type("CloudWatch::Alarm")
    own = {one["MetricName"] for one in alarms if not str(one["Namespace"]).startswith("AWS/")}
    (disk,) = app.properties("LaunchTemplate")["LaunchTemplateData"]["BlockDeviceMappings"]
    assert len(alarms) == prices.ALARMS
    assert len(app.of_type("CloudWatch::Dashboard")) == 1
    assert "OnUnitActiveSec=1min" in templates.script("host_boot.sh")
    assert templates.script("host_boot.sh").count("put-metric-data") == 1
    assert len(own) == prices.METRICS - (ingress == "alb")
    assert disk["Ebs"]["VolumeSize"] == prices.HOST_GB


def test_a_key_that_rotates_costs_more_later() -> None:
    """AWS asks 1.00 for each version of a key, and since 2024-04 for two rotations at most."""
    assert Template(templates.data()).properties("Key")["EnableKeyRotation"] is True
    assert "rotation of a KMS key (1.00 a month more after a year, and 1.00 more after two)" in prices.NOT_COUNTED


def test_a_machine_without_a_price_shows_as_unknown() -> None:
    choices = Choices()
    app = {**choices.app_parameters({}), "InstanceType": "x9.huge"}
    items = prices.estimate(choices.data_parameters({}), app)
    assert items[0].price is None
    assert "?" in prices.table(items, "eu-central-1")
    assert "eu-central-1 differs" in prices.table(items, "eu-central-1")


def test_the_guide_tells_the_prices() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "aws.md").read_text()
    assert prices.DATE in guide
    for size in SIZES:
        (row,) = [line for line in guide.splitlines() if line.startswith(f"| `{size}`")]
        items = bill(size)
        assert row.endswith(f"| {prices.billed(items):.2f} | {prices.without_allowance(items):.2f} |")
    for item in bill("dev"):
        assert f"| {item.price:.2f} |" in guide.partition("USD, what each line is for")[2], item
    for what, where in prices.READ.items():
        (row,) = [line for line in guide.splitlines() if line.startswith(f"| {what} | [")]
        assert where.split(",")[0] in row
    assert prices.UNDATED in prices.table([], prices.REGION)


def test_the_guide_says_what_to_do_when_an_alarm_comes() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "aws.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| [A-Z\W]", guide.partition("## When an alarm comes")[2], re.M)
    alarms = re.findall(r'AlarmDescription: !Sub "Headrace \$\{Name\}: (.+)"', templates.app())
    assert len(alarms) == 9
    assert [alarm for alarm in alarms if not any(alarm.startswith(row) for row in rows)] == []


def test_the_guide_names_commands_and_options_that_are() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "aws.md").read_text()
    named = set(re.findall(r"headrace aws (\w+)", guide)) | set(re.findall(r"^\| `(\w+)[^`|]*` \| [a-z]", guide, re.M))
    assert named <= {*aws.commands, "dev", "ha", "team"}
    assert aws.commands.keys() <= named
    options = {option for command in aws.commands.values() for one in command.params for option in one.opts}
    # of docker, of the AWS CLI and of headrace user
    elsewhere = {"--role", "--restart", "--query", "--output", "--with-decryption", "--instance-ids"}
    elsewhere |= {"--capabilities", "--tags"}
    elsewhere |= {"--db-instance-identifier", "--db-snapshot-identifier", "--kms-key-id"}
    elsewhere |= {"--source-db-snapshot-identifier", "--target-db-snapshot-identifier", "--source-region"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", guide)) - elsewhere <= {*options, "--name"}


def test_each_command_of_the_guide_is_one() -> None:
    """As click reads it: its options, their values, its arguments."""
    guide = re.sub(r"\\\n\s*", "", (Path(__file__).parents[2] / "docs" / "aws.md").read_text())
    lines = re.findall(r"^\s*headrace aws (.+)$", guide, re.M) + re.findall(r"`headrace aws ([^` ]+ [^`]+)`", guide)
    commands = {line.replace("$policy", "connect-policy").partition(" > ")[0] for line in lines}
    assert len(commands) > 25
    for command in commands:
        name, *arguments = shlex.split(command, comments=True)
        aws.commands[name].make_context(name, arguments)
