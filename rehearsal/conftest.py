"""The stage of the rehearsal: AWS's parts on this machine, once for all steps."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.support import session_manager_plugin
from tests.support.processes import Process, clean_environment, free_port
from tests.support.servers import SCRIPTS, Server

from rehearsal.account import Wiring
from rehearsal.docker import docker, remove
from rehearsal.parts import ECR, PREFIX, RDS, REGION, ROOT, Host, build_parts, gateway

SERVER = f"{PREFIX}-mlflow"
SEEDS_BUCKET = "mlflow-artifacts"
ECR_PASSWORD = "123456789012-auth-token"  # moto's
COMMAND_SECONDS = 1200  # for a command that hangs; one that goes on ends sooner on any machine


@dataclass
class Stage:
    """`aws` is the environment of AWS's clients; `url` where the host serves MLflow."""

    aws: dict[str, str]
    rds: RDS
    ecr: ECR
    host: Host
    url: str
    folder: Path

    @property
    def image(self) -> str:
        return f"{self.ecr.address}/mlflow"

    @property
    def hosts(self) -> Path:
        """What is kept of each instance that was booted."""
        return self.folder / "hosts"

    @property
    def token(self) -> str:
        """The first administrator's, which `up` has generated."""
        return self.parameter("ADMIN_TOKEN")

    def parameter(self, name: str) -> str:
        value: str = self.client("ssm").get_parameter(Name=f"/mlflow/{name}", WithDecryption=True)["Parameter"]["Value"]
        return value

    def client(self, service: str) -> Any:
        """boto3's client; it is given everything, so that nothing of this machine's configuration is asked."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.aws["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.aws["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.aws["AWS_SECRET_ACCESS_KEY"],
        )

    def headrace_aws(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """`headrace aws ...`, to its end."""
        command: list[str | Path] = [SCRIPTS / "headrace", "aws", *arguments]
        return subprocess.run(
            command, input=given, env=self.environment(), capture_output=True, text=True, timeout=COMMAND_SECONDS
        )

    def environment(self) -> dict[str, str]:
        """Of `headrace aws`; Session Manager's tunnels lead to a host and to the database, and end with the host."""
        tunnels = {"hosts": str(self.hosts), "remote": f"{self.rds.host}:{self.rds.port}"}
        clean = clean_environment()
        stand_ins = {"TUNNELS": json.dumps(tunnels), "PATH": f"{self.folder}:{clean['PATH']}"}
        return clean | self.aws | stand_ins

    @contextmanager
    def patient(self, seconds: int) -> Iterator[None]:
        """For the time of the block each new server on the host is given as many to become healthy."""
        (instance,) = (one.name for one in self.hosts.iterdir())
        self.host.environment["HEADRACE_HEALTH_SECONDS"] = str(seconds)
        self.host.keep(self.hosts, instance)
        yield
        del self.host.environment["HEADRACE_HEALTH_SECONDS"]
        self.host.keep(self.hosts, instance)


class EC2(threading.Thread):
    """Boots a host for each instance that the account has, with its user data, and takes it away with the instance."""

    def __init__(self, stage: Stage, make: Callable[[], Host]) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._make = make
        self._ended = threading.Event()

    def run(self) -> None:
        booted: dict[str, Host] = {}
        while not self._ended.wait(0.2):
            running = self._running()
            for instance in booted.keys() - running:
                (self._stage.hosts / instance).unlink()
                booted.pop(instance).end()
            for instance in running - booted.keys():
                if (user_data := self._user_data()) is None:
                    continue  # its stack is being deleted: the template goes before it
                booted[instance] = host = self._make()
                host.start("dnf")
                host.boot(user_data, instance)
                host.keep(self._stage.hosts, instance)

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _running(self) -> set[str]:
        running = [{"Name": "instance-state-name", "Values": ["running"]}]
        found = self._stage.client("ec2").describe_instances(Filters=running)["Reservations"]
        return {instance["InstanceId"] for one in found for instance in one["Instances"]}

    def _user_data(self) -> str | None:
        """That of the launch template as it is now; None where there is none."""
        ec2 = self._stage.client("ec2")
        for template in ec2.describe_launch_templates()["LaunchTemplates"]:
            versions = ec2.describe_launch_template_versions(
                LaunchTemplateName=template["LaunchTemplateName"], Versions=["$Latest"]
            )["LaunchTemplateVersions"]
            return base64.b64decode(versions[0]["LaunchTemplateData"]["UserData"]).decode()
        return None


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    os.environ["DOCKER_CONFIG"] = str(folder / "docker")  # the pipeline logs in: not into this user's own
    build_parts()
    session_manager_plugin.install(folder)
    account = None
    try:
        rds = RDS(folder)
        account = start_account(folder)
        made = set_up(folder, rds, ECR(ECR_PASSWORD), account.url)
        made.client("s3").create_bucket(Bucket=SEEDS_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        ec2 = EC2(made, lambda: made.host)
        ec2.start()
        yield made
        ec2.stop()
    finally:
        remove(*containers())
        if account is not None:
            account.stop()


def containers() -> list[str]:
    """Every container that the rehearsal may leave."""
    return docker("ps", "--all", "--quiet", "--filter", f"name=^{PREFIX}").split()


def start_account(folder: Path) -> Server:
    port, host = free_port(), gateway()
    command = [sys.executable, "-m", "rehearsal.account", "--host", host, "--port", str(port)]
    environment = {"REHEARSAL_STAGE": str(folder / "stage.json"), "PYTHONPATH": str(ROOT)}
    process = Process(command, folder / "account.log", env=environment, cwd=ROOT)
    server = Server("moto", f"http://{host}:{port}", process)
    process.wait_until(lambda: server.answers("/moto-api/"), "moto answers")
    return server


def set_up(folder: Path, rds: RDS, ecr: ECR, endpoint: str) -> Stage:
    aws = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "rehearsal",
        "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_DEFAULT_REGION": REGION,
    }
    hosts = folder / "hosts"
    hosts.mkdir()
    wiring = Wiring(rds.superuser, rds.host, rds.port, str(hosts))
    (folder / "stage.json").write_text(json.dumps(wiring._asdict()))
    host = make_host(folder, aws, ecr)
    return Stage(aws, rds, ecr, host, f"http://127.0.0.1:{host.port}", folder)


def make_host(folder: Path, aws: dict[str, str], ecr: ECR, suffix: str = "") -> Host:
    home = folder / f"etc-headrace{suffix}"
    home.mkdir()
    # on EC2 the role gives the credentials; here the host's file does
    (home / "server.env").write_text("".join(f"{name}={value}\n" for name, value in aws.items()))
    environment = {
        "AWS_ENDPOINT_URL": aws["AWS_ENDPOINT_URL"],
        "HEADRACE_REGION": REGION,
        "HEADRACE_PORT": str(free_port()),
        "HEADRACE_NAME": f"{SERVER}{suffix}",
        "HEADRACE_DB_CA_URL": f"file://{home}/rds.pem",  # not there: the image's stand in for them
        "ECR_REGISTRY": ecr.address,
        "ECR_PASSWORD": ecr.password,
    }
    return Host(home, environment, f"{PREFIX}-host{suffix}")
