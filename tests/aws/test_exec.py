"""`exec` and `user`: what AWS is told and keeps, and what the container is asked to run.

Systems Manager and the host are fakes here, since moto runs no command: the script that is sent is run by bash, with
stand-ins for `aws` (which reads the parameter) and `docker` (which runs python, as in the container).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.aws import execute, hosts
from headrace.aws.client import Cloud
from headrace.aws.hosts import Host
from headrace.aws.stacks import Stack
from headrace.cli.aws import aws
from headrace.errors import AwsError, ConfigurationError

SECRET = "correct horse battery staple"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/1"


class SystemsManager:
    """Its parameters, what it keeps of commands, and the host behind it, whose programs are in `folder`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.parameters = folder / "parameters"
        self.parameters.mkdir()
        self.kept: list[str] = []
        self.during: Callable[[], None] = lambda: None
        for program, text in {
            "aws": f'[ "$3 $4 $5 ${{7}}" = "--region eu-central-1 --name --with-decryption" ] || exit 252\n'
            f'cat "{self.parameters}/$(basename "$6")"',
            "docker": 'echo "WARNING: a program on the way says something" >&2\n'
            f'[ "$1 $2 $3 $4" = "exec --interactive mlflow-server python" ] || exit 125\n'
            f'shift 4; exec {sys.executable} "$@"',
            "headrace": 'echo "$# words: $*"; cat; [ "$1" != fails ]',
            "long": 'for number in $(seq 20000); do echo "$number $RANDOM"; done',
        }.items():
            (folder / program).write_text(f"#!/bin/bash\n{text}\n")
            (folder / program).chmod(0o755)
        stacks = {"ours-data": Stack("ours-data", "", {}, {"KeyArn": KEY}), "ours-app": Stack("ours-app", "", {}, {})}
        monkeypatch.setattr(execute, "required", lambda _, name: stacks[name])
        monkeypatch.setattr(hosts, "serving", lambda *_: Host("i-1", "InService", "Healthy", True))
        monkeypatch.setattr(hosts, "run", self.run)
        monkeypatch.setattr(Cloud, "call", self.call)
        monkeypatch.setattr(Cloud, "pages", self.pages)

    def call(self, service: str, operation: str, **arguments: Any) -> Any:
        file = self.parameters / arguments["Name"].rpartition("/")[2]
        if operation == "put_parameter":
            assert arguments["Name"].startswith("/ours/exec/")
            assert (arguments["Type"], arguments["KeyId"]) == ("SecureString", KEY)
            assert "{{" not in arguments["Value"], "SSM: InvalidParameterValue"
            assert len(arguments["Value"]) <= 4096, "SSM: ValidationException"
            file.write_text(arguments["Value"])
        else:
            assert operation == "delete_parameter"
            file.unlink()

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> Any:
        assert (operation, arguments) == ("get_parameters_by_path", {"Path": "/ours/exec"})
        for file in self.parameters.iterdir():
            modified = datetime.fromtimestamp(file.stat().st_mtime, tz=UTC)
            yield {"Name": f"/ours/exec/{file.name}", "LastModifiedDate": modified}

    def run(self, _cloud: Any, host: str, script: str, what: str, _say: Any, seconds: int) -> str:
        assert host == "i-1"
        assert 3600 < seconds <= 172_800, "long enough for an index, and no longer than Run Command takes"
        self.during()
        assert "{{" not in script, "SSM reads it as a parameter's name"
        path = f"{self.folder}:{os.environ['PATH']}"
        done = subprocess.run(["bash"], input=script, env={"PATH": path}, capture_output=True, text=True)
        self.kept += [script, what, done.stdout[:24_000], done.stderr]
        if done.returncode:
            raise AwsError(f"{what}: Failed (exit code {done.returncode}).\n{done.stderr}")
        return (done.stdout[:24_000] + done.stderr).strip()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SystemsManager:
    return SystemsManager(tmp_path, monkeypatch)


def ran(command: str, *arguments: str, given: str = "") -> Any:
    return CliRunner().invoke(aws, [command, "--name", "ours", *arguments], given, env={"AWS_REGION": "eu-central-1"})


def test_nothing_of_a_command_stays_with_aws(manager: SystemsManager) -> None:
    done = ran("exec", "--", "headrace", "--secret", SECRET)
    assert (done.exit_code, done.stdout) == (0, f"2 words: --secret {SECRET}\n"), (done.output, done.exception)
    assert list(manager.parameters.iterdir()) == []
    assert not [text for text in (*manager.kept, done.stderr) if "horse" in text]


@pytest.mark.parametrize("word", ["{{ssm:/ours/DB_PASS}}", "o'hara; reboot", '"$(id)`id`"', "*", "", "é\n2"])
def test_words_arrive_as_they_were_typed(manager: SystemsManager, word: str) -> None:
    done = ran("exec", "--json", "--", "headrace", word, "end")
    assert json.loads(done.stdout) == {"host": "i-1", "output": f"2 words: {word} end"}, done.exception


def test_a_users_password_is_asked_for_here(manager: SystemsManager) -> None:
    done = ran("user", "add", "alice", "--role", "editor", given=f"{SECRET}\nanother line")
    assert done.stdout == f"5 words: user add alice --role editor\n{SECRET}\n", (done.output, done.exception)
    assert not [text for text in manager.kept if "horse" in text]
    assert ran("user", "add", "bob", "--no-password", given=SECRET).stdout == "4 words: user add bob --no-password\n"
    assert ran("user", "list", given=SECRET).stdout == "2 words: user list\n"


def test_a_command_that_fails(manager: SystemsManager) -> None:
    done = ran("exec", "headrace", "fails")
    assert isinstance(done.exception, AwsError)
    assert "headrace on i-1 in eu-central-1 ended with 1.\n1 words: fails" in str(done.exception)
    assert "ended with 127" in str(ran("exec", "no-such-program").exception)
    assert list(manager.parameters.iterdir()) == []
    assert ran("exec").exit_code == 2


def test_an_image_that_can_not_answer_is_told(manager: SystemsManager) -> None:
    docker = manager.folder / "docker"
    docker.write_text(
        "#!/bin/bash\ncat > /dev/null\necho \"ModuleNotFoundError: No module named 'joserfc'\" >&2\nexit 1\n"
    )
    done = ran("exec", "headrace")
    assert isinstance(done.exception, AwsError)
    assert "No module named 'joserfc'" in str(done.exception)
    assert "`headrace aws upgrade` first" in str(done.exception)
    docker.write_text("#!/bin/bash\ncat > /dev/null\necho something else\n")
    assert "did not say how headrace ended, but:\nsomething else" in str(ran("exec", "headrace").exception)


def test_of_a_long_output_the_end_is_shown(manager: SystemsManager) -> None:
    lines = ran("exec", "long").stdout.splitlines()
    assert lines[0].startswith("... ")
    assert lines[-1].startswith("20000 ")
    assert len(lines) > 1000


def test_what_is_too_long_is_refused(manager: SystemsManager) -> None:
    done = ran("exec", "headrace", 3000 * "x")
    assert isinstance(done.exception, ConfigurationError)
    assert "3072 can be handed to a host" in str(done.exception)
    assert manager.kept == []


def test_a_command_that_was_broken_off_leaves_nothing(manager: SystemsManager) -> None:
    def interrupted() -> None:
        assert len(list(manager.parameters.iterdir())) == 1
        raise KeyboardInterrupt

    manager.during = interrupted
    ran("exec", "headrace")
    assert list(manager.parameters.iterdir()) == []
    # as by kill -9: the next command deletes it, unless it may still be on its way
    left = manager.parameters / "killed"
    manager.during = lambda: None
    for age, stays in ((timedelta(minutes=30), True), (timedelta(hours=2), False)):
        left.touch()
        then = (datetime.now(UTC) - age).timestamp()
        os.utime(left, (then, then))
        assert ran("exec", "headrace").exit_code == 0
        assert left.exists() is stays
