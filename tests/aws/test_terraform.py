"""`export --format terraform`: read by an HCL parser and, where there is a Terraform, applied to moto by its provider.

Terraform gets the AWS provider from its registry, or from the folder that HEADRACE_TERRAFORM_PLUGINS names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest

from headrace.aws import execute, plan, templates, terraform
from headrace.aws.deployment import Choices
from tests.aws.conftest import KEYS, Account
from tests.aws.template import Template

IMAGE = "example.org/headrace@sha256:" + 64 * "1"
TERRAFORM = shutil.which("terraform") or shutil.which("tofu")
PROVIDER = """
provider "aws" {{
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
  endpoints {{
    cloudformation = "{url}"
    sts            = "{url}"
  }}
}}
"""


@pytest.fixture
def module(account: Account, tmp_path: Path) -> Path:
    """As the command writes it."""
    done = account.run("export", "--format", "terraform", "--directory", f"{tmp_path}/module", "--json", plugin=False)
    assert done.returncode == 0, done.stderr
    files = [Path(each) for each in json.loads(done.stdout)["files"]]
    assert sorted(files) == sorted((tmp_path / "module").iterdir())
    return tmp_path / "module"


def blocks(module: Path, file: str, kind: str) -> dict[str, Any]:
    found = hcl2.loads((module / file).read_text())[kind]
    return {name.strip('"'): body for one in found for name, body in one.items()}


def test_every_parameter_is_a_variable_and_reaches_its_stack(module: Path) -> None:
    variables = blocks(module, "variables.tf", "variable")
    stacks = {name.strip('"'): body for _, each in _resources(module).items() for name, body in each.items()}
    for name, text in (("data", templates.data()), ("app", templates.app())):
        assert (module / f"{name}.yaml").read_text() == text
        declared = Template(text).source["Parameters"]
        assert [one.name for one in terraform.parameters(text)] == list(declared)
        assert set(stacks[name]["parameters"]) - {"__is_block__"} == set(declared)
        for one in terraform.parameters(text):
            if one.name == "DataStack":
                continue
            slot, variable = declared[one.name], variables[one.variable]
            kinds = {"Number": "number"}
            expected = "list(string)" if one.is_list else kinds.get(slot["Type"], "string")
            expected = "bool" if slot.get("AllowedValues") == ["true", "false"] else expected
            assert variable["type"].strip("${}") == expected
            assert ("default" in variable) is ("Default" in slot)
            assert ("validation" in variable) is (
                expected != "bool" and bool({"AllowedValues", "AllowedPattern"} & slot.keys())
            )
    assert {name for name, body in variables.items() if "default" not in body} == {"image"}


def _resources(module: Path) -> dict[str, Any]:
    (first, second) = hcl2.loads((module / "main.tf").read_text())["resource"]
    assert {key.strip('"') for key in (*first, *second)} == {"aws_cloudformation_stack"}
    return {"first": next(iter(first.values())), "second": next(iter(second.values()))}


def test_outputs_are_the_templates(module: Path) -> None:
    text = (module / "outputs.tf").read_text()
    known = {
        key for name in ("data", "app") for key in Template((module / f"{name}.yaml").read_text()).source["Outputs"]
    }
    for stack in terraform._OUTPUTS.values():
        assert stack.keys() <= known
        assert all(f'output "{name}"' in text for name in stack.values())


def test_what_does_not_go_together(account: Account) -> None:
    for options in ([], ["data", "--format", "terraform"]):
        done = account.run("export", *options, plugin=False)
        assert done.returncode == 2
        assert "Give either WHAT to print, or --format terraform" in done.stderr
    done = account.run("export", "--format", "terraform", "--directory", "/dev/null/x", plugin=False)
    assert done.returncode == 2
    assert "Name another" in done.stderr


def test_terraform_applies_it_and_up_finds_what_it_has_made(account: Account, module: Path) -> None:
    if TERRAFORM is None:
        pytest.skip("there is no terraform, nor tofu: the module was read by a parser alone")

    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        assert TERRAFORM is not None
        environment = {**os.environ, **KEYS, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
        return subprocess.run(
            [TERRAFORM, *arguments], cwd=module, env=environment, capture_output=True, text=True, timeout=240
        )

    done = ran("fmt", "-check", "-diff")
    assert (done.returncode, done.stdout) == (0, "")
    plugins = os.environ.get("HEADRACE_TERRAFORM_PLUGINS")
    done = ran("init", "-input=false", *([f"-plugin-dir={plugins}"] if plugins else []))
    if done.returncode and not plugins:
        pytest.skip("terraform finds no AWS provider; HEADRACE_TERRAFORM_PLUGINS may name a folder that has it")
    assert done.returncode == 0, done.stderr
    assert ran("validate").returncode == 0
    done = ran("plan", "-input=false", f"-var=image={IMAGE}", "-var=name=Wrong", "-var=ingress=nlb")
    assert done.returncode == 1
    assert "a letter first" in done.stderr
    assert "ingress is none or vpc or alb" in done.stderr
    (module / "provider.tf").write_text(PROVIDER.format(url=account.url))
    done = ran("apply", "-input=false", "-auto-approve", f"-var=image={IMAGE}")
    assert done.returncode == 0, done.stderr
    assert 'database_id = "mlflow-data-' in done.stdout
    cloud = account.cloud()
    previews = [execute.preview(cloud, step) for step in plan.up(cloud, Choices(), print)]
    assert {one.what for one in previews if one.nothing} >= {
        "stack mlflow-data: as it should be",
        "stack mlflow-app: as it should be",
    }
