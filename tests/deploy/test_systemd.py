"""The unit, as systemd reads and judges it."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.settings import Settings
from headrace.settings.resolve import resolve
from tests.deploy.parts import DEPLOY, settings_of_the_unit

UNIT = DEPLOY / "systemd" / "headrace.service"
PROGRAM = "/opt/headrace/bin/headrace"
EXPOSURE = 15  # tenths of what `systemd-analyze security` counts: 0 is the best, 100 the worst


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("there is no systemd-analyze: apt-get install systemd")
    return found


def test_systemd_takes_it(analyze: str, tmp_path: Path) -> None:
    unit = tmp_path / "headrace.service"
    # it looks whether the program is there
    unit.write_text(UNIT.read_text().replace(PROGRAM, str(Path(sys.executable).with_name("headrace"))))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in subprocess.run([analyze, "verify", unit], capture_output=True, text=True).stderr


def test_systemd_finds_it_locked_up(analyze: str) -> None:
    command: list[str | Path] = [analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", UNIT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_stop_waits_for_what_is_under_way() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNIT)
    defaults = Settings()
    assert int(unit["Service"]["TimeoutStopSec"]) > defaults.shutdown_delay + defaults.shutdown_timeout
    assert (unit["Service"]["KillMode"], unit["Service"]["KillSignal"]) == ("mixed", "SIGTERM")


def test_the_server_understands_its_environment() -> None:
    settings = resolve({}, settings_of_the_unit())
    assert settings.protected
    assert settings.trusted_proxies == "127.0.0.1/32"
