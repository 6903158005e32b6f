"""`exec` and `user`: what reaches the host's shell. Systems Manager itself is a stand-in: moto runs no command."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.aws import execute, hosts
from headrace.aws.hosts import Host
from headrace.cli.aws import aws
from headrace.errors import AwsError


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that were run on the host."""
    found: list[str] = []

    def run(_cloud: Any, host: str, line: str, _what: str, _say: Any) -> str:
        assert host == "i-1"
        found.append(line)
        if "fails" in line:
            raise AwsError("it failed\nThe whole output: aws ssm ...")
        return "done"

    monkeypatch.setattr(execute, "required", lambda *_: None)
    monkeypatch.setattr(hosts, "wait_online", lambda *_: [Host("i-1", "InService", "Healthy", True)])
    monkeypatch.setattr(hosts, "run", run)
    return found


def ran(*arguments: str) -> Any:
    return CliRunner().invoke(aws, list(arguments), env={"AWS_REGION": "eu-central-1"})


def test_a_command_in_the_container(lines: list[str]) -> None:
    done = ran("exec", "--name", "ours", "--", "headrace", "db", "indexes", "list", "--json")
    assert (done.exit_code, done.stdout) == (0, "done\n"), done.output
    assert lines == ["docker exec mlflow-server headrace db indexes list --json"]


def test_what_the_shell_would_read_otherwise_is_quoted(lines: list[str]) -> None:
    done = ran("user", "--json", "add", "o'hara; reboot", "--role", "editor")
    assert json.loads(done.stdout) == {"host": "i-1", "output": "done"}
    assert lines == ["""docker exec mlflow-server headrace user add 'o'"'"'hara; reboot' --role editor"""]


def test_a_command_that_fails(lines: list[str]) -> None:
    done = ran("exec", "fails")
    assert isinstance(done.exception, AwsError)
    assert ran("exec").exit_code == 2
    assert len(lines) == 1
