"""The stage of the rehearsal: AWS's parts on this machine, once for all steps."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
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
        """`headrace aws ...`, to its end; Session Manager's tunnels lead to the host and to the database."""
        tunnels = {"5000": self.host.environment["HEADRACE_PORT"], "remote": f"{self.rds.host}:{self.rds.port}"}
        clean = clean_environment()
        stand_ins = {"TUNNELS": json.dumps(tunnels), "PATH": f"{self.folder}:{clean['PATH']}"}
        command: list[str | Path] = [SCRIPTS / "headrace", "aws", *arguments]
        return subprocess.run(
            command, input=given, env=clean | self.aws | stand_ins, capture_output=True, text=True, timeout=240
        )


class EC2(threading.Thread):
    """Boots the host when the account has an instance, with its user data, and takes it away when it has none."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._ended = threading.Event()

    def run(self) -> None:
        booted = ""
        while not self._ended.wait(0.2):
            instances = self._running()
            if instances and instances[0] != booted:
                booted = instances[0]
                versions = self._stage.client("ec2").describe_launch_template_versions(
                    LaunchTemplateName=self._template(), Versions=["$Latest"]
                )["LaunchTemplateVersions"]
                self._stage.host.start("dnf")
                self._stage.host.boot(base64.b64decode(versions[0]["LaunchTemplateData"]["UserData"]).decode())
            elif booted and not instances:
                booted = ""
                remove(self._stage.host.name, SERVER, f"{SERVER}-next", f"{SERVER}-previous")

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _running(self) -> list[str]:
        running = [{"Name": "instance-state-name", "Values": ["running"]}]
        found = self._stage.client("ec2").describe_instances(Filters=running)["Reservations"]
        return [instance["InstanceId"] for one in found for instance in one["Instances"]]

    def _template(self) -> str:
        (template,) = self._stage.client("ec2").describe_launch_templates()["LaunchTemplates"]
        name: str = template["LaunchTemplateName"]
        return name


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
        made = set_up(folder, rds, account.url)
        ec2 = EC2(made)
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


def set_up(folder: Path, rds: RDS, endpoint: str) -> Stage:
    aws = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "rehearsal",
        "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_DEFAULT_REGION": REGION,
    }
    home, port = folder / "etc-headrace", str(free_port())
    home.mkdir()
    # on EC2 the role gives the credentials; here the host's file does
    (home / "server.env").write_text("".join(f"{name}={value}\n" for name, value in aws.items()))
    ecr = ECR(ECR_PASSWORD)
    host = Host(
        home,
        {
            "AWS_ENDPOINT_URL": endpoint,
            "HEADRACE_REGION": REGION,
            "HEADRACE_PORT": port,
            "HEADRACE_NAME": SERVER,
            "HEADRACE_HEALTH_SECONDS": "20",
            "HEADRACE_DB_CA_URL": f"file://{folder}/not-there.pem",  # the image's stand in for them
            "ECR_REGISTRY": ecr.address,
            "ECR_PASSWORD": ecr.password,
        },
    )
    superuser = rds.database("postgres").uri.replace("+psycopg2", "")
    wiring = Wiring(superuser, rds.host, rds.port, host.shell(), port)
    (folder / "stage.json").write_text(json.dumps(wiring._asdict()))
    made = Stage(aws, rds, ecr, host, f"http://127.0.0.1:{port}", folder)
    location = {"LocationConstraint": REGION}
    made.client("s3").create_bucket(Bucket=SEEDS_BUCKET, CreateBucketConfiguration=location)
    return made
