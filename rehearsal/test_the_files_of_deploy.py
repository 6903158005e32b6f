"""deploy/compose.yaml run by Docker Compose, and the unit of deploy/systemd by systemd, with the image of before.

Stand-ins, as no public registry is asked: Debian's PostgreSQL with the variables of the official image that the file
uses, and SeaweedFS's program from its package for Python.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from tests.deploy.parts import DEPLOY, program
from tests.support.processes import clean_environment, free_port, wait_until

from rehearsal.docker import DockerError, docker, inspect, remove
from rehearsal.parts import PARTS, PREFIX, build_parts

PROJECT = f"{PREFIX}-compose"
UNIT = f"{PREFIX}-systemd"
SYSTEMD, CGROUP = "/lib/systemd/systemd", "/sys/fs/cgroup/systemd"
SECONDS = 120
POSTGRES = """
set -e
data=/var/lib/postgresql/data bin=$(echo /usr/lib/postgresql/*/bin)
chown postgres $data
if [ ! -e $data/PG_VERSION ]; then
    install -o postgres -m 600 "$POSTGRES_PASSWORD_FILE" /tmp/password
    su postgres -c "$bin/initdb -D $data -U $POSTGRES_USER --pwfile=/tmp/password $POSTGRES_INITDB_ARGS" >/dev/null
    echo 'host all all all scram-sha-256' >>$data/pg_hba.conf
    echo "CREATE DATABASE $POSTGRES_DB" | su postgres -c "$bin/postgres --single -D $data postgres" >/dev/null
fi
exec su postgres -c "exec $bin/postgres -D $data -c listen_addresses='*'"
"""
RUN = """
import mlflow
with mlflow.start_run() as run:
    mlflow.log_metric("m", 0.5)
    mlflow.log_text("text", "folder/text.txt")
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/folder/text.txt") == "text"
print(run.info.run_id)
"""


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest) -> str:
    """REHEARSAL_IMAGE, to try this file alone, or what the steps before have made."""
    if "REHEARSAL_IMAGE" in os.environ:
        build_parts()
        return os.environ["REHEARSAL_IMAGE"]
    return f"{request.getfixturevalue('stage').image}:first"


def first_token(log: Callable[[], str]) -> str:
    """That of the first administrator, from a server's log."""
    wait_until(lambda: "MLFLOW_TRACKING_TOKEN=" in log(), "the log shows the first administrator's token", SECONDS)
    token: str = re.findall(r"MLFLOW_TRACKING_TOKEN=(\S+)", log())[-1]
    return token


def log_a_run(url: str, token: str, folder: Path) -> str:
    """Its id."""
    env = clean_environment() | {"MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_TOKEN": token}
    done = subprocess.run([sys.executable, "-c", RUN], env=env, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


Compose = Callable[..., str]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def compose(image: str, port: int, tmp_path: Path) -> Iterator[Compose]:
    override = tmp_path / "stand-ins.json"
    services: dict[str, dict[str, object]] = {
        name: {"image": image} for name in ("headrace", "gc", "secrets", "bucket")
    }
    services["database"] = {"image": PARTS, "entrypoint": ["bash", "-c", POSTGRES.replace("$", "$$")]}
    services["storage"] = {"image": PARTS, "volumes": [f"{program('weed')}:/usr/bin/weed:ro"]}
    override.write_text(json.dumps({"services": services}))
    files: list[str | Path] = ["--file", DEPLOY / "compose.yaml", "--file", override]
    env = clean_environment() | {"LISTEN": f"127.0.0.1:{port}"}

    def run(*arguments: str) -> str:
        command: list[str | Path] = [program("docker-compose"), "--project-name", PROJECT, *files, *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def clear() -> None:
        run("--profile", "gc", "down", "--volumes", "--timeout", "2")

    clear()  # what a broken off rehearsal has left
    yield run
    clear()


def test_compose(compose: Compose, port: int, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{port}"
    compose("up", "--detach", "--no-build")
    token = first_token(lambda: compose("logs", "--no-log-prefix", "headrace"))
    wait_until(lambda: _answers(f"{url}/ready"), "Headrace is ready", SECONDS)
    run_id = log_a_run(url, token, tmp_path)
    bearer = {"Authorization": f"Bearer {token}"}
    search = f"{url}/api/2.0/mlflow/runs/search"
    assert requests.post(search, json={"experiment_ids": ["0"]}, timeout=30).status_code == 401

    # no secret where `docker inspect` shows it
    secrets = compose("exec", "headrace", "cat", "/secrets/headrace/pgpass", "/secrets/headrace/aws-credentials")
    shown = "".join(json.dumps(inspect(f"{PROJECT}-{name}-1")) for name in ("headrace", "database", "storage"))
    for secret in (secrets.splitlines()[0].rpartition(":")[2], secrets.split()[-1], token):
        assert len(secret) >= 32
        assert secret not in shown

    # started again, all is there, and what was deleted goes when gc is asked for it
    compose("down", "--timeout", "10")
    compose("up", "--detach", "--no-build")
    wait_until(lambda: _answers(f"{url}/ready"), "Headrace is ready again", SECONDS)
    found = requests.post(search, json={"experiment_ids": ["0"]}, headers=bearer, timeout=30).json()["runs"]
    assert [run["info"]["run_id"] for run in found] == [run_id]
    deleted = requests.post(f"{url}/api/2.0/mlflow/runs/delete", json={"run_id": run_id}, headers=bearer, timeout=30)
    assert deleted.status_code == 200
    assert "0 runs" in compose("run", "--rm", "gc")  # deleted just now
    assert "1 runs" in compose("run", "--rm", "gc", "gc", "--yes")
    # SeaweedFS shows an empty folder for a while, which is no object
    (left,) = json.loads(compose("run", "--rm", "gc", "usage", "--json"))
    assert (left["runs"], left["artifacts"]) == (0, 0)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


@pytest.fixture
def machine(image: str, tmp_path: Path) -> Iterator[str]:
    """A container that systemd runs, with Headrace in /opt/headrace and the unit where docs/deploy.md puts it."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image}\nUSER 0\nENV MLFLOW_HOST=\nHEALTHCHECK NONE\nENTRYPOINT []\n"
        "RUN userdel headrace && apt-get update -qq && DEBIAN_FRONTEND=noninteractive "
        "apt-get install -y -qq --no-install-recommends dbus systemd >/dev/null\n"
        "RUN install -d -m 700 /etc/headrace\nCOPY headrace.env /etc/headrace/\n"
        "COPY headrace.service /etc/systemd/system/\n"
        "RUN chmod 600 /etc/headrace/headrace.env && systemctl enable headrace.service\n"
    )
    for name in ("headrace.env", "headrace.service"):
        (tmp_path / name).write_text((DEPLOY / "systemd" / name).read_text())
    docker("build", "--quiet", "--network", "host", "--tag", UNIT, str(tmp_path))
    remove(UNIT)
    # not --privileged, which an engine without all rights can't give; systemd needs its own hierarchy of cgroups
    docker(
        *[
            "run",
            "--detach",
            "--name",
            UNIT,
            "--env",
            "container=docker",
            "--cap-add",
            "ALL",
            "--cap-drop",
            "SYS_RESOURCE",
        ],
        *["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"],
        *["--tmpfs", "/run", "--tmpfs", "/tmp", "--tmpfs", "/sys/fs/cgroup", UNIT],
        *["bash", "-c", f"mkdir {CGROUP} && mount -t cgroup -o none,name=systemd cgroup {CGROUP} && exec {SYSTEMD}"],
    )
    yield UNIT
    remove(UNIT)


def test_systemd(machine: str) -> None:
    def inside(*command: str) -> str:
        return docker("exec", machine, *command)

    def journal() -> str:
        try:
            return inside("journalctl", "--unit", "headrace", "--no-pager", "--output", "cat")
        except DockerError:  # systemd is not up yet
            return ""

    token = first_token(journal)
    wait_until(lambda: "MLflow is on http://127.0.0.1:5000" in journal(), "Headrace is up", SECONDS)
    script = (
        "import urllib.request as u\n"
        "r = u.Request('http://127.0.0.1:5000/api/2.0/mlflow/experiments/get?experiment_id=0')\n"
        f"r.add_header('Authorization', 'Bearer {token}'); r.add_header('Host', 'mlflow.example.com')\n"
        "print(u.urlopen(r).status)\n"
        # only stock MLflow answers this one
        "r.full_url = 'http://127.0.0.1:5000/api/3.0/mlflow/scorers/online-configs?scorer_ids=none'\n"
        "print(u.urlopen(r).status)\n"
    )
    assert inside("/opt/headrace/bin/python", "-c", script).split() == ["200", "200"]
    shown = dict(
        line.split("=", 1)
        for line in inside("systemctl", "show", "headrace", "--property=MainPID,NRestarts,ActiveState").splitlines()
    )
    assert (shown["ActiveState"], shown["NRestarts"]) == ("active", "0")
    status = inside("cat", f"/proc/{shown['MainPID']}/status")
    assert re.search(r"^Uid:\s+6[1-5]\d{3}\s", status, re.M), status  # a dynamic user
    assert re.search(r"^CapEff:\s+0+$", status, re.M), status
    assert re.search(r"^Seccomp:\s+2$", status, re.M), status
    assert "headrace-data" in inside("ls", "/var/lib/private/headrace").split()

    # commands of docs/deploy.md beside it, and the end
    properties = [f"--property={each}" for each in (
        "DynamicUser=yes", "User=headrace", "StateDirectory=headrace", "WorkingDirectory=/var/lib/headrace",
        "EnvironmentFile=/etc/headrace/headrace.env",
    )]  # fmt: skip
    command = ["systemd-run", "--quiet", "--pipe", *properties, "/opt/headrace/bin/headrace"]
    assert "hr_" in inside(*command, "user", "token", "admin")
    inside("systemctl", "stop", "headrace")
    assert inside("systemctl", "show", "headrace", "--property=Result,ExecMainStatus").splitlines() == [
        "Result=success",
        "ExecMainStatus=0",
    ]
