"""An upgrade that migrates, of two hosts behind a load balancer, whose group ends what the balancer finds unhealthy.

Real: two hosts as that of `test_rehearsal.py`, PostgreSQL, MLflow's migration, MLflow's client. The old image has an
MLflow without its last migration: it serves the older schema, and refuses the newer one. Stand-ins: moto, and the
balancer and the group of `rehearsal.group`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import pytest
from tests.support import older_mlflow, session_manager_plugin, tls
from tests.support.databases import Database
from tests.support.processes import clean_environment, wait_until

from headrace.aws import hosts
from headrace.cli.aws import aws
from headrace.database import installed_revisions
from rehearsal.conftest import EC2, SERVER, Stage, make_host, set_up, start_account
from rehearsal.docker import docker, inspect, remove
from rehearsal.group import Balancer, Group
from rehearsal.parts import PREFIX, RDS, ROOT, Host

WRITERS = 6
SECONDS = 600  # for what must happen, however busy the machine is
DOMAIN = "mlflow.example.org"
# the world's name servers do not know that domain
UP = (
    "from headrace.aws import domain; domain.leads = lambda *_: True; from headrace.cli.aws import aws; "
    "aws(prog_name='headrace aws')"
)
DOWNGRADE = (
    "import sys; from mlflow.store.db import utils; from alembic import command; "
    "command.downgrade(utils._get_alembic_config(sys.argv[1]), '-1')"
)


@dataclass
class Place:
    stage: Stage
    group: Group
    images: tuple[str, str]  # the old one, by its digest, and the new one
    certificate: Path  # of the balancer

    @property
    def database(self) -> Database:
        return self.stage.rds.database("mlflow")

    def revision(self) -> str:
        return str(self.database.query("SELECT version_num FROM alembic_version")[0]["version_num"])

    def instances(self) -> dict[str, str]:
        """Those of the group, with their state."""
        (found,) = self.stage.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
        return {one["InstanceId"]: one["LifecycleState"] for one in found["Instances"]}

    def suspended(self) -> list[str]:
        (found,) = self.stage.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
        return [one["ProcessName"] for one in found["SuspendedProcesses"]]

    def served(self) -> set[str]:
        """The images of the servers that run."""
        servers = docker("ps", "--quiet", "--filter", f"name=^{SERVER}-ha-[0-9]+$").split()
        return {str(inspect(one)["Config"]["Image"]) for one in servers}

    def whole(self) -> bool:
        """Two hosts in service, which the balancer finds healthy."""
        assert self.group.is_alive()
        return list(self.instances().values()) == ["InService"] * 2 and self.group.states() == ["healthy"] * 2

    def wait_until_whole(self) -> None:
        try:
            wait_until(self.whole, "two hosts are in service, and the balancer finds them healthy", SECONDS)
        except AssertionError as error:
            hosts = [Host.of(self.stage.hosts, instance) for instance in self.instances()]
            logs = [docker("exec", host.name, "tail", "/var/log/cloud-init-output.log") for host in hosts]
            raise AssertionError("\n".join([f"{error}: {self.instances()}, {self.group.states()}", *logs])) from None


@pytest.fixture(scope="module")
def images(stage: Stage) -> tuple[str, str]:
    """REHEARSAL_IMAGE, to try this file alone, or what the steps before have made."""
    first = f"{stage.image}:first"
    if "REHEARSAL_IMAGE" in os.environ:
        docker("login", "--username", "AWS", "--password-stdin", stage.ecr.address, stdin=stage.ecr.password)
        docker("tag", os.environ["REHEARSAL_IMAGE"], first)
        docker("push", "--quiet", first)
    old, gone = f"{stage.image}:older", older_mlflow.last_migration()
    packages = "$(python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')"
    lines = [f"FROM {first}", "USER 0", f'RUN rm "{packages}/mlflow/{gone}"', "USER 10001:10001"]
    docker("build", "--quiet", "--tag", old, "-", stdin="\n".join(lines))
    docker("push", "--quiet", old)
    known = docker("image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', old).splitlines()
    (digest,) = (one for one in known if one.startswith(f"{stage.image}@"))  # not one of an earlier registry
    return digest, first


@pytest.fixture(scope="module")
def place(stage: Stage, images: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A deployment of `--size ha` that an older Headrace has made."""
    folder = tmp_path_factory.mktemp("ha")
    session_manager_plugin.install(folder)
    rds = RDS(folder, f"{PREFIX}-ha-db")
    account = start_account(folder)
    own = set_up(folder, rds, stage.ecr, account.url)
    numbers = iter(range(1, 100))

    def make() -> Host:
        host = make_host(folder, own.aws, stage.ecr, f"-ha-{next(numbers)}")
        (host.home / "rds.pem").write_bytes(rds.certificates.read_bytes())
        return host

    certificate, key = tls.certificate(folder, "localhost")
    ec2, group = EC2(own, make), Group(own, Balancer(certificate, key))
    made = Place(own, group, images, certificate)
    ec2.start()
    group.start()
    try:
        up(made, folder)
        yield made
    finally:
        group.stop()
        ec2.stop()
        account.stop()
        remove(*docker("ps", "--all", "--quiet", "--filter", f"name=^{PREFIX}-(host-ha|mlflow-ha|ha)-").split())


def up(place: Place, folder: Path) -> None:
    acm = place.stage.client("acm")
    certificate = acm.request_certificate(DomainName=DOMAIN)["CertificateArn"]
    options = ["--size", "ha", "--ingress", "alb", "--domain", DOMAIN, "--certificate-arn", certificate]
    older = {"PYTHONPATH": str(older_mlflow.make(folder / "older"))}
    done = subprocess.run(
        [sys.executable, "-c", UP, "up", "--yes", *options, "--allow-cidr", "0.0.0.0/0", "--image", place.images[0]],
        env=place.stage.environment() | older,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    place.wait_until_whole()
    assert place.group.killed == []
    assert place.revision() != installed_revisions().head
    assert place.served() == {place.images[0]}


class Writers:
    """MLflow's client in a process of its own, through the balancer."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place, self._log = place, folder / "writers.log"

    def __enter__(self) -> Writers:
        environment = clean_environment() | {
            "MLFLOW_TRACKING_URI": self._place.group.balancer.url,
            "REQUESTS_CA_BUNDLE": str(self._place.certificate),
            "MLFLOW_TRACKING_TOKEN": self._place.stage.token,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }
        command = [sys.executable, "-W", "ignore", "-m", "rehearsal.writers", str(WRITERS)]
        with self._log.open("wb") as output, self._log.with_suffix(".err").open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=errors, env=environment, cwd=ROOT
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def failures(self) -> list[str]:
        return [one["failed"] for one in self.said() if "failed" in one]

    def go_on(self, times: int = 5) -> None:
        """Wait until each has had so many more answers."""
        seen = len(self.said())

        def enough() -> bool:
            assert self.failures() == []
            assert self._process.poll() is None, self._log.with_suffix(".err").read_text()[-3000:]
            new = [one["writer"] for one in self.said()[seen:]]
            return all(new.count(number) >= times for number in range(WRITERS))

        wait_until(enough, "every writer goes on", SECONDS)


def upgrade(place: Place, monkeypatch: pytest.MonkeyPatch) -> click.testing.Result:
    """In this process, so that a test can take part."""
    for name, value in place.stage.environment().items():
        monkeypatch.setenv(name, value)
    return click.testing.CliRunner().invoke(aws, ["upgrade", place.images[1], "--yes"])


def migrations_last_until(monkeypatch: pytest.MonkeyPatch, done: Callable[[], bool], what: str) -> None:
    """As those of a large database do, while no server runs."""
    from headrace import database

    migrate = database.upgrade

    def late(*arguments: Any) -> None:
        wait_until(done, what, SECONDS)
        migrate(*arguments)

    monkeypatch.setattr(database, "upgrade", late)


def test_an_upgrade_that_migrates_under_load(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = place.instances()
    suspended: list[list[str]] = []
    looked: list[Callable[[], bool]] = []
    zones: list[str] = []

    def seen() -> bool:
        """The group has had time to end what the balancer finds unhealthy, and to move one of two in a zone."""
        if len(place.group.found_unhealthy()) < 2:  # after their period of grace
            return False
        if not looked:
            suspended.append(place.suspended())
            first, second = (member.zone for member in place.group.members.values())
            assert first != second
            zones.extend(place.group.put_in(first, first))
            looked.append(place.group.has_looked())
        if not looked[0]():
            return False
        place.group.put_in(*zones)
        return True

    migrations_last_until(monkeypatch, seen, "the group would end both hosts")
    with Writers(place, tmp_path) as writers:
        writers.go_on()
        began = time.monotonic()
        done = upgrade(place, monkeypatch)
        took = time.monotonic() - began
        assert done.exit_code == 0, done.output
        assert place.suspended() == []
        wait_until(place.group.has_looked(), "the group replaces what is unhealthy again")
        writers.go_on()
    assert writers.failures() == []
    assert place.group.killed == []
    assert place.instances() == before
    assert sorted(suspended[0]) == ["AZRebalance", "HealthCheck", "ReplaceUnhealthy"]
    assert place.revision() == installed_revisions().head
    assert place.served() == {place.images[1]}
    refused = place.group.balancer.refused
    assert 502 in refused, "the servers were away"
    assert_all_there(place.database, writers.said())
    print(
        f"\nupgraded with a migration in {took:.0f} s: the balancer answered {len(refused)} requests 502, none failed"
    )


def assert_all_there(database: Database, said: list[dict[str, Any]]) -> None:
    params = {one["run"]: one["param"] for one in said if "param" in one}
    steps = {(one["run"], one["step"]) for one in said if "step" in one}
    found = database.query("SELECT run_uuid, value FROM params WHERE key = 'writer'")
    assert params.items() <= {(row["run_uuid"], row["value"]) for row in found}
    rows = [(row["run_uuid"], row["step"]) for row in database.query("SELECT run_uuid, step FROM metrics")]
    assert steps <= set(rows)
    assert len(rows) == len(set(rows)), "what was sent again is there once"
    assert len(steps) > 10 * WRITERS


def test_without_the_suspension_the_group_ends_the_hosts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail. And the command, run again with it, puts right what that has left."""
    before = place.instances()
    done = subprocess.run(
        [sys.executable, "-c", DOWNGRADE, place.database.uri], env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert place.revision() != installed_revisions().head

    @contextmanager
    def nothing_is_kept(*_: Any) -> Iterator[None]:
        yield

    with monkeypatch.context() as patched:
        patched.setattr(hosts, "kept", nothing_is_kept)
        migrations_last_until(
            patched, lambda: not before.keys() & place.instances().keys(), "the group ends both hosts"
        )
        broken = upgrade(place, patched)
    assert sorted(place.group.killed) == sorted(before)
    assert broken.exit_code != 0, "its tunnel went with the host"
    place.group.killed.clear()
    done_again = upgrade(place, monkeypatch)
    assert done_again.exit_code == 0, done_again.output
    place.wait_until_whole()
    assert place.revision() == installed_revisions().head
    assert place.served() == {place.images[1]}
    assert place.group.killed == []
