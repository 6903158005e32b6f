"""What is read of deploy/, and the programs of requirements/deploy.txt that read it as they do in service."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm"
PROGRAMS = ROOT / ".venv-deploy" / "bin"


def program(name: str) -> Path:
    """One of them."""
    assert PROGRAMS.exists(), "make .venv-deploy/.ready installs it; make test does that"
    if name == "docker-compose":  # the package's own command has no exit code
        found = next(PROGRAMS.parent.glob("lib/python3*/site-packages/compose/docker-compose"), None)
        if found is None:
            pytest.skip("there is a package with Docker Compose for Linux on x86-64 alone")
        return found
    return PROGRAMS / name


def settings_of_the_unit() -> dict[str, str]:
    """Those that systemd/headrace.env sets."""
    lines = (DEPLOY / "systemd" / "headrace.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
