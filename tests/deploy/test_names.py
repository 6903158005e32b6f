"""Every command, option and variable that deploy/ and its page name is one that there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import botocore.configprovider
import click
import pytest
import yaml

from headrace.cli.commands import cli
from headrace.database_url import PARAMETERS
from headrace.settings.table import SETTINGS
from tests.deploy.helm import NEEDED, containers, render
from tests.deploy.parts import DEPLOY, ROOT
from tests.support.pages import DOCS, typed

FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
PAGE = DOCS / "deploy.md"
# MLflow's variables of S3 and of clients
OF_MLFLOW = {"MLFLOW_S3_ENDPOINT_URL", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"}
_AWS = botocore.configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES.values()
KNOWN = (
    {setting.environment for setting in SETTINGS}
    | OF_MLFLOW
    | {parameter.variable for parameter in PARAMETERS.values()}
    | {name for _, names, *_ in _AWS for name in ([names] if isinstance(names, str) else names or ())}
    | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}  # botocore.credentials.EnvProvider's
)
VARIABLE = re.compile(r"\b(?:(?:MLFLOW|HEADRACE|AWS)_[A-Z0-9_]*[A-Z0-9]|PG[A-Z]{3,})\b")


@pytest.mark.parametrize("path", [*FILES, PAGE], ids=lambda path: str(path.relative_to(ROOT)))
def test_variables(path: Path) -> None:
    assert set(VARIABLE.findall(path.read_text())) - KNOWN == set()


def test_the_variables_were_found() -> None:
    found = set(VARIABLE.findall("".join(path.read_text() for path in FILES)))
    assert {"HEADRACE_TRUSTED_PROXIES", "PGSSLMODE", "AWS_SHARED_CREDENTIALS_FILE", "MLFLOW_HOST"} <= found


def commands() -> Iterator[list[str]]:
    """The arguments of every `headrace` that the files and their page start."""
    for service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values():
        if service.get("image") == "headrace" and "entrypoint" not in service:
            yield service.get("command", ["serve"])  # the image's own
    for container in containers(render(NEEDED | {"migrate": True})):
        yield container["args"]
    [command] = re.findall(r"ExecStart=\S+/headrace (.*)", (DEPLOY / "systemd" / "headrace.service").read_text())
    yield shlex.split(command)
    for line in typed(PAGE):
        if found := re.search(r"(?:^|\s)headrace ((?:user|gc|db|serve)\b[^#]*)", line):
            yield shlex.split(found[1])


def test_commands() -> None:
    seen = set()
    for arguments in commands():
        _parse(cli, arguments)
        seen.add(arguments[0])
    assert {"serve", "gc", "user", "db"} <= seen


def test_an_option_that_is_not_there_is_found() -> None:
    with pytest.raises(click.NoSuchOption):
        _parse(cli, ["gc", "--older", "30d", "--yess"])


def _parse(command: click.Command, arguments: list[str]) -> None:
    """As click does it before it runs a command."""
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), arguments[0])
        assert found is not None, f"there is no `{arguments[0]}`"
        command, arguments = found, arguments[1:]
    command.make_context("headrace", list(arguments))
