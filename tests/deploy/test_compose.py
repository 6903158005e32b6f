"""compose.yaml as Docker Compose itself reads it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from headrace.settings import Settings
from tests.deploy.parts import DEPLOY, program
from tests.support.processes import clean_environment


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    options = ["--profile", "gc", "config", "--format", "json"]
    command: list[str | Path] = [program("docker-compose"), "--file", DEPLOY / "compose.yaml", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def test_nothing_is_open_to_the_world(project: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in project["services"].items() if service.get("ports")}
    assert ports.keys() == {"headrace"}
    assert [port["host_ip"] for port in ports["headrace"]] == ["127.0.0.1"]
    assert all(project["networks"][name]["internal"] for name in ("database", "storage"))
    reached = {name: set(service.get("networks") or {}) for name, service in project["services"].items()}
    assert reached["database"] == {"database"}
    assert reached["storage"] == {"storage"}
    assert "HEADRACE_INSECURE_NO_AUTH" not in (DEPLOY / "compose.yaml").read_text()


def test_no_secret_is_in_a_variable(project: dict[str, Any]) -> None:
    for service in project["services"].values():
        for name, value in (service.get("environment") or {}).items():
            assert not re.search("PASSWORD|SECRET|TOKEN|KEY", name) or value.startswith("/secrets/"), name


def test_containers_are_locked_up(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        assert "no-new-privileges:true" in service["security_opt"]
        if name != "database":  # PostgreSQL's image changes its user itself
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]


def test_gc_runs_when_asked(project: dict[str, Any]) -> None:
    profiles = {name: service["profiles"] for name, service in project["services"].items() if service.get("profiles")}
    assert profiles == {"gc": ["gc"]}


def test_a_stop_waits_for_what_is_under_way(project: dict[str, Any]) -> None:
    defaults = Settings()
    [seconds] = re.fullmatch(r"(\d+)s", project["services"]["headrace"]["stop_grace_period"]).groups()  # type: ignore[union-attr]
    assert int(seconds) > defaults.shutdown_delay + defaults.shutdown_timeout
