"""A Terraform module (OpenTofu takes it, too) that applies the same templates: a stack resource each, typed variables.

The templates stay the only description of what there is; `headrace aws up` finds the stacks as it makes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from headrace.aws import templates
from headrace.errors import ConfigurationError

_PARAMETER = re.compile(r"^  (\w+):\n((?:    .*\n)+)", re.M)
_FIELD = re.compile(r"^    (\w+): (.+)$", re.M)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BOOLEAN = '["true", "false"]'
_COMES_FROM_ELSEWHERE = {"DataStack": "aws_cloudformation_stack.data.name"}
_CHANGED_BY_UPGRADE = ("Image", "PreviousImage")
_OUTPUTS = {
    "data": {"VpcId": "vpc_id", "Bucket": "bucket", "DatabaseId": "database_id", "DatabaseHost": "database_host"},
    "app": {"Hosts": "auto_scaling_group", "Role": "role", "LogGroup": "log_group", "BalancerName": "balancer_name"},
}
_VERSIONS = """terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}
"""


class Parameter(NamedTuple):
    """One of a template's, with its fields as they are written there."""

    name: str
    fields: Mapping[str, str]

    @property
    def variable(self) -> str:
        """DatabaseClass -> database_class."""
        return _WORD.sub("_", self.name).lower()

    @property
    def is_list(self) -> bool:
        """Whether it is several with commas between them."""
        return self.name.endswith("Ids") or self.name == "TrustedProxies"


def module() -> dict[str, str]:
    """File name -> text."""
    stacks = {"data": templates.data(), "app": templates.app()}
    found = {name: parameters(text) for name, text in stacks.items()}
    variables = {one.name: one for each in found.values() for one in each if one.name not in _COMES_FROM_ELSEWHERE}
    return {
        "main.tf": "\n".join(_stack(name, each) for name, each in found.items()),
        "variables.tf": "\n".join(_variable(one) for one in variables.values()),
        "outputs.tf": "\n".join(_output(stack, *pair) for stack, each in _OUTPUTS.items() for pair in each.items()),
        "versions.tf": _VERSIONS,
        **{f"{name}.yaml": text for name, text in stacks.items()},
    }


def write(directory: str) -> list[str]:
    """Write the module's files into a folder, in the place of those of an earlier export; their paths."""
    try:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in module().items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--directory {directory} can't be written: {error.strerror}. Name another.") from None
    return [str(folder / name) for name in module()]


def parameters(template: str) -> list[Parameter]:
    """Of one of our templates, whose parameters have a line for each field."""
    section = template.split("\nParameters:\n")[1].split("\nConditions:\n")[0] + "\n"
    return [Parameter(name, dict(_FIELD.findall(body))) for name, body in _PARAMETER.findall(section)]


def _stack(name: str, found: list[Parameter]) -> str:
    given = _aligned({one.name: _given(one) for one in found}, "    ")
    top = _aligned(
        {
            "name": f'"${{var.name}}-{name}"',
            "template_body": f'file("${{path.module}}/{name}.yaml")',
            "capabilities": '["CAPABILITY_IAM"]',
            "tags": "{ headrace = var.name } # its hosts get it, too: the policies go by it",
        },
        "  ",
    )
    ignored = [f'parameters["{each}"]' for each in _CHANGED_BY_UPGRADE if each in {one.name for one in found}]
    if ignored:
        rules = f"    ignore_changes = [{', '.join(ignored)}] # `headrace aws upgrade` and `rollback` change them"
    else:
        rules = "    prevent_destroy = true"
    return (
        f'resource "aws_cloudformation_stack" "{name}" {{\n{top}\n  parameters = {{\n{given}  }}\n\n'
        f"  lifecycle {{\n{rules}\n  }}\n}}\n"
    )


def _given(one: Parameter) -> str:
    if one.name in _COMES_FROM_ELSEWHERE:
        return _COMES_FROM_ELSEWHERE[one.name]
    return f'join(",", var.{one.variable})' if one.is_list else f"var.{one.variable}"


def _variable(one: Parameter) -> str:
    fields = one.fields
    kind = "number" if fields["Type"] == "Number" else "list(string)" if one.is_list else "string"
    default = _value(fields["Default"]) if "Default" in fields else None
    allowed = [_value(each) for each in fields.get("AllowedValues", "[]")[1:-1].split(", ") if each]
    check = ""
    if fields.get("AllowedValues") == _BOOLEAN:
        kind = "bool"
    elif allowed:
        check = _validation(
            f"contains({json.dumps(allowed)}, var.{one.variable})", f"{one.variable} is {' or '.join(allowed)}."
        )
    elif "AllowedPattern" in fields:
        least, most = fields["MinLength"], fields["MaxLength"]
        check = _validation(
            f'can(regex("^{_value(fields["AllowedPattern"])}$", var.{one.variable})) && length(var.{one.variable}) >= '
            f"{least} && length(var.{one.variable}) <= {most}",
            f"{one.variable} has {least} to {most} of a to z, 0 to 9 and -, a letter first.",
        )
    lines = {"type": kind}
    if "Description" in fields:
        lines["description"] = json.dumps(_value(fields["Description"]))
    if default is not None:
        lines["default"] = _literal(default, kind)
    return f'variable "{one.variable}" {{\n{_aligned(lines, "  ")}{check}}}\n'


def _literal(default: str, kind: str) -> str:
    if kind == "list(string)":
        return json.dumps([each for each in default.split(",") if each])
    return default if kind in ("number", "bool") else json.dumps(default)


def _validation(condition: str, message: str) -> str:
    lines = _aligned({"condition": condition, "error_message": json.dumps(message)}, "    ")
    return f"\n  validation {{\n{lines}  }}\n"


def _output(stack: str, output: str, name: str) -> str:
    outputs = f"aws_cloudformation_stack.{stack}.outputs"
    value = f'lookup({outputs}, "{output}", null)' if output == "BalancerName" else f'{outputs}["{output}"]'
    return f'output "{name}" {{\n  value = {value}\n}}\n'


def _aligned(lines: Mapping[str, str], indent: str) -> str:
    """As `terraform fmt` has it."""
    width = max(map(len, lines))
    return "".join(f"{indent}{name:<{width}} = {value}\n" for name, value in lines.items())


def _value(written: str) -> str:
    return str(json.loads(written)) if written.startswith('"') else written
