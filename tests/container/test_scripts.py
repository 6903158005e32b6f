"""The scripts and the pipeline: shellcheck finds nothing, GitLab's schema accepts the file, and names agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def test_shellcheck() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    scripts = [name for name in tracked.stdout.splitlines() if is_shell_script(ROOT / name)]
    assert {"src/headrace/aws/run_container.sh", "container/publish.sh", ".ci/run"} <= set(scripts)
    done = subprocess.run([BIN / "shellcheck", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def is_shell_script(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline()
    return first.startswith(b"#!") and b"sh" in first


def test_the_pipeline_is_valid() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci", ".gitlab-ci.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_pipeline_runs_what_is_there() -> None:
    pipeline = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
    assert pipeline["lint"]["script"] == "make lint"
    assert pipeline["test"]["script"] == "make test"
    for line in pipeline["build and push"]["script"]:
        script, action = line.split()
        assert (ROOT / script).stat().st_mode & 0o111
        assert f"{action}()" in (ROOT / script).read_text()
