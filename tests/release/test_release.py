"""A release made from a copy of this checkout, and what it makes in a clean environment: installed, served, used."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from tests.support.processes import Process, clean_environment, free_port
from tests.support.servers import Server

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-release" / "bin" / "python"
UV = Path(sys.executable).with_name("uv")
VERSION = "9.8.7rc1"
RELEASE_SECONDS = 600  # at a load of 30 on 2 cores the 120 that there were have not been enough
RUN = """
import mlflow
with mlflow.start_run() as run:
    mlflow.log_metric("m", 0.5)
    mlflow.log_text("text", "folder/text.txt")
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/folder/text.txt") == "text"
"""


def run(*command: str | Path, cwd: Path, fails: bool = False) -> str:
    env = clean_environment() | {"GIT_CONFIG_GLOBAL": "/dev/null", "UV_LINK_MODE": "hardlink"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=RELEASE_SECONDS)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is here, as somebody else's clone has it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    run("git", "init", "--quiet", cwd=folder)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run("git", "add", "--all", cwd=folder)
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    run("git", *who, "commit", "--quiet", "--message", "all", cwd=folder)


@pytest.fixture(scope="module")
def dist(checkout: Path) -> Path:
    assert PYTHON.exists(), "make .venv-release/.ready installs it; make test does that"
    command: list[str | Path] = [PYTHON, "release/release.py", VERSION]
    first = run(*command, cwd=checkout)
    assert f"{VERSION} is written to pyproject.toml, deploy/helm/Chart.yaml, CHANGELOG.md." in first
    assert "not committed" in run(*command, cwd=checkout, fails=True)
    assert not (checkout / "dist").exists()
    commit(checkout)
    assert "Nothing is published yet." in run(*command, cwd=checkout)
    return checkout / "dist"


def test_what_is_made(dist: Path) -> None:
    names = {file.name for file in dist.iterdir()}
    wheel, sdist, bill = (f"headrace-{VERSION}{end}" for end in ("-py3-none-any.whl", ".tar.gz", ".cdx.json"))
    assert names == {wheel, sdist, bill, "notes.md", "SHA256SUMS"}
    lines = (dist / "SHA256SUMS").read_text().splitlines()
    sums = {name: checksum for checksum, name in (line.split() for line in lines)}
    assert sums == {name: hashlib.sha256((dist / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}}
    assert (dist / "notes.md").read_text().startswith("The first release. ")
    assert not run("git", "status", "--porcelain", cwd=dist.parent)


def test_the_sdist_has_what_it_is_built_from_and_no_more(dist: Path) -> None:
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        inside = {name.split("/")[1] for name in archive.getnames()}
    assert inside == {"src", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}


def test_the_bill_lists_every_package(dist: Path) -> None:
    (file,) = dist.glob("*.cdx.json")
    bill = json.loads(file.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert (bill["metadata"]["component"]["name"], bill["metadata"]["component"]["version"]) == ("headrace", VERSION)
    listed = {component["name"].lower() for component in bill["components"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"mlflow", "asyncpg", "uvicorn"} <= listed
    assert len(listed) > len(project["dependencies"])
    assert all(component.get("hashes") or component.get("externalReferences") for component in bill["components"])


def test_a_wrong_version_is_refused(checkout: Path, dist: Path) -> None:
    said = run(PYTHON, "release/release.py", "next", cwd=checkout, fails=True)
    assert said == "release: next is no version. Write one such as 0.2.0 or 0.2.0rc1.\n"
    said = run(PYTHON, "release/release.py", "9.9.9", cwd=checkout, fails=True)
    assert "CHANGELOG.md has nothing of 9.9.9." in said


def test_pip_install_uvx_serve_and_a_run(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    run(UV, "venv", "--quiet", "--python", sys.executable, "clean", cwd=tmp_path)
    clean = tmp_path / "clean" / "bin"
    versions: list[str | Path] = [
        "--constraints",
        ROOT / "requirements" / "server.txt",
    ]  # those that are tested, and at hand
    run(UV, "pip", "install", "--quiet", "--python", clean / "python", *versions, wheel, cwd=tmp_path)
    assert run(clean / "headrace", "--version", cwd=tmp_path) == f"headrace, version {VERSION}\n"
    uvx: list[str | Path] = [
        UV,
        "tool",
        "run",
        "--quiet",
        "--isolated",
        "--python",
        sys.executable,
        *versions,
        "--from",
        wheel,
    ]
    assert run(*uvx, "headrace", "--version", cwd=tmp_path) == f"headrace, version {VERSION}\n"
    port = free_port()
    process = Process([clean / "headrace", "serve", "--port", str(port)], tmp_path / "log", cwd=tmp_path)
    server = Server("headrace", f"http://127.0.0.1:{port}", process)
    try:
        process.wait_until(lambda: server.answers("/ready"), "Headrace is ready")
        assert server.answers("/")  # the UI is in it
        script = f"import os; os.environ['MLFLOW_TRACKING_URI'] = '{server.url}'\n{RUN}"
        run(clean / "python", "-c", script, cwd=tmp_path)
    finally:
        server.stop()
    usage = run(clean / "headrace", "usage", "--json", cwd=tmp_path)
    assert [(each["runs"], each["metrics"], each["artifacts"]) for each in json.loads(usage)] == [(1, 1, 1)]
