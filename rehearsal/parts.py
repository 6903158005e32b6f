"""What stands for AWS: PostgreSQL with TLS for RDS, a registry with a login for ECR, and the EC2 host."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import requests
from tests.support.databases import Database
from tests.support.processes import clean_environment, free_port, wait_until

from rehearsal.docker import docker, remove

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
PARTS = "headrace-rehearsal-parts"
PREFIX = "headrace-rehearsal"  # of every container's name
MASTER_PASSWORD = "master/p@ss word"
REGION = "eu-west-1"


def build_parts() -> None:
    options = ["--build-arg", f"BASE_IMAGE={os.environ['BASE_IMAGE']}"] if "BASE_IMAGE" in os.environ else []
    docker(
        "build",
        "--quiet",
        "--network",
        "host",
        *options,
        "--tag",
        PARTS,
        "--file",
        f"{HERE}/parts.Dockerfile",
        f"{HERE}/host",
    )


def gateway() -> str:
    """This machine's address in the engine's network: how containers reach what runs here."""
    routes = docker("run", "--rm", PARTS, "cat", "/proc/net/route").splitlines()
    (hexadecimal,) = (fields[2] for fields in map(str.split, routes) if fields[1] == "00000000")
    return str(ipaddress.ip_address(int(hexadecimal, 16).to_bytes(4, "little")))


class RDS:
    """PostgreSQL that takes nothing but TLS and passwords; `certificates` is what a client checks it against."""

    def __init__(self, folder: Path, name: str = f"{PREFIX}-db") -> None:
        self.name = name
        self.host, self.port = gateway(), free_port()
        self.certificates = folder / "db-ca.pem"
        remove(self.name)
        key = folder / "db.key"
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=rehearsal"]
        files = ["-addext", f"subjectAltName=IP:{self.host}", "-keyout", str(key), "-out", str(self.certificates)]
        subprocess.run([*request, *files], check=True, capture_output=True)
        script = """
            set -e
            folder=/var/lib/postgresql/rehearsal bin=$(echo /usr/lib/postgresql/*/bin)
            install -o postgres -m 700 -d $folder
            install -o postgres -m 600 /mnt/db.key /mnt/db-ca.pem $folder/
            echo "$MASTER_PASSWORD" >/tmp/password
            su postgres -c "$bin/initdb -D $folder/data -U master --pwfile=/tmp/password -A scram-sha-256" >/dev/null
            echo 'hostssl all all all scram-sha-256' >$folder/data/pg_hba.conf
            exec su postgres -c "$bin/postgres -D $folder/data -c listen_addresses='*' -c ssl=on -c fsync=off \\
                -c ssl_cert_file=$folder/db-ca.pem -c ssl_key_file=$folder/db.key -c max_connections=200"
        """
        docker(
            *["run", "--detach", "--name", self.name, "--publish", f"{self.host}:{self.port}:5432"],
            *["--volume", f"{folder}:/mnt:ro", "--env", f"MASTER_PASSWORD={MASTER_PASSWORD}"],
            *[PARTS, "bash", "-c", script],
        )
        wait_until(self._ready, "PostgreSQL accepts connections", 60)

    def as_aws_has_them(self) -> dict[str, str]:
        """What publish.sh takes for the certificates of RDS."""
        content = self.certificates.read_bytes()
        return {
            "RDS_CERTIFICATES": f"data:application/x-pem-file;base64,{base64.b64encode(content).decode()}",
            "RDS_CERTIFICATES_SHA256": hashlib.sha256(content).hexdigest(),
        }

    def _ready(self) -> bool:
        import sqlalchemy

        try:
            self.database("postgres").query("SELECT 1")
        except sqlalchemy.exc.OperationalError:
            return False
        return True

    def database(self, name: str) -> Database:
        """As the master user, its certificate checked."""
        import sqlalchemy

        url = sqlalchemy.URL.create(
            "postgresql+psycopg2",
            username="master",
            password=MASTER_PASSWORD,
            host=self.host,
            port=self.port,
            database=name,
            query={"sslmode": "verify-full", "sslrootcert": str(self.certificates)},
        )
        return Database("postgresql", name, url.render_as_string(hide_password=False))

    @property
    def superuser(self) -> str:
        """How psycopg2 connects as RDS itself does."""
        return self.database("postgres").uri.replace("+psycopg2", "")

    def drop(self, name: str) -> None:
        import psycopg2

        with contextlib.closing(psycopg2.connect(self.superuser)) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


class ECR:
    """Docker's registry behind the login that `aws ecr get-login-password` gives."""

    name = f"{PREFIX}-ecr"

    def __init__(self, password: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.password = password
        remove(self.name)
        script = """
            set -e
            htpasswd -Bbn AWS "$PASSWORD" >/etc/docker/htpasswd
            printf '%s\\n' 'version: 0.1' 'storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}' \\
                'http: {addr: ":5000"}' 'auth: {htpasswd: {realm: ecr, path: /etc/docker/htpasswd}}' >/etc/docker/r.yml
            exec docker-registry serve /etc/docker/r.yml
        """
        docker(
            *["run", "--detach", "--name", self.name, "--publish", f"{self.address}:5000"],
            *["--env", f"PASSWORD={password}", PARTS, "bash", "-c", f"mkdir -p /etc/docker; {script}"],
        )
        wait_until(self._ready, "the registry answers", 30)

    def _ready(self) -> bool:
        try:
            return requests.get(f"http://{self.address}/v2/", timeout=5).status_code == 401
        except requests.ConnectionError:
            return False

    def tags(self, repository: str) -> set[str]:
        url = f"http://{self.address}/v2/{repository}/tags/list"
        return set(requests.get(url, auth=("AWS", self.password), timeout=5).json()["tags"])


@dataclass
class Host:
    """A system container that stands for an EC2 instance: Amazon Linux 2023's commands, or Amazon Linux 2's."""

    home: Path  # the same path here and in it: the engine mounts files of it
    environment: dict[str, str]
    name: str = f"{PREFIX}-host"

    @classmethod
    def of(cls, hosts: Path, instance: str) -> Host:
        """The one that was booted for an EC2 instance. Raises FileNotFoundError where none was, or it is gone."""
        kept = json.loads((hosts / instance).read_text())
        return cls(Path(kept["home"]), kept["environment"], kept["name"])

    def keep(self, hosts: Path, instance: str) -> None:
        kept = {"home": str(self.home), "environment": self.environment, "name": self.name, "port": self.port}
        (hosts / f".{instance}").write_text(json.dumps(kept))
        (hosts / f".{instance}").rename(hosts / instance)

    @property
    def port(self) -> str:
        """Where its server is, on this machine."""
        return self.environment["HEADRACE_PORT"]

    @property
    def server(self) -> str:
        """The name of its server's container."""
        return self.environment["HEADRACE_NAME"]

    def end(self) -> None:
        remove(self.name, self.server, f"{self.server}-next", f"{self.server}-previous")

    def start(self, *commands: str) -> None:
        """A new one, with the stubs of its package manager."""
        socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
        program = shutil.which("docker")
        assert program is not None
        remove(self.name)
        stubs = [f"--volume={HERE}/host/{command}:/usr/bin/{command}:ro" for command in (*commands, "systemctl", "aws")]
        helper = "docker-credential-ecr-login"
        docker(
            *["run", "--detach", "--init", "--name", self.name, "--network", "host"],
            *[f"--volume={socket}:/var/run/docker.sock", f"--volume={self.home}:{self.home}", *stubs],
            *[f"--volume={program}:/packages/docker:ro", f"--volume={HERE}/host/{helper}:/packages/{helper}:ro"],
            f"--volume={ROOT}/src/headrace/aws/run_container.sh:/run_container.sh:ro",
            *[PARTS, "sleep", "infinity"],
        )
        docker("exec", self.name, "useradd", "--create-home", "ec2-user")

    def shell(self) -> list[str]:
        """The command that runs its standard input as root on the host."""
        variables = {**self.environment, "HEADRACE_HOME": str(self.home)}
        return ["docker", "exec", "--interactive", *_variables(variables), self.name, "bash", "-s"]

    def boot(self, user_data: str, instance: str) -> None:
        """The first boot, in the background, as cloud-init does it."""
        docker("exec", self.name, "mkdir", "-p", "/var/lib/cloud/data")
        docker("exec", "--interactive", self.name, "tee", "/var/lib/cloud/data/instance-id", stdin=instance)
        docker("exec", "--interactive", self.name, "tee", "/user-data", stdin=self.adapted(user_data))
        command = "bash /user-data >/var/log/cloud-init-output.log 2>&1 </dev/null &"
        subprocess.run(self.shell(), input=command, text=True, check=True, env=clean_environment())

    def run_container(self, image: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script as an instance's first boot or an upgrade does."""
        variables = {**self.environment, "HEADRACE_IMAGE": image, "HEADRACE_HOME": str(self.home), **environment}
        command = ["docker", "exec", *_variables(variables), self.name, "bash", "/run_container.sh"]
        return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=300)

    def calls(self) -> str:
        """What was asked of the stubs."""
        return docker("exec", self.name, "cat", "/var/log/host-calls")

    def adapted(self, script: str) -> str:
        """A script for a host as this machine can run it: a name and a port that are free, no log in CloudWatch."""
        script = re.sub(r"\bmlflow-server\b", self.server, script)
        script = re.sub("^export HEADRACE_PORT=.*$", f"export HEADRACE_PORT={self.port}", script, flags=re.M)
        return re.sub("^export HEADRACE_LOG_GROUP=.*$", "", script, flags=re.M)


def _variables(environment: Mapping[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in environment.items()]
