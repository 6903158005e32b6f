"""A host of the deployment `mlflow`: Headrace as a process, with what the deployment has in SSM."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg2

from tests.aws.conftest import KEYS, Account
from tests.support import fork_server
from tests.support.postgres import Postgres
from tests.support.processes import Process, free_port
from tests.support.servers import SCRIPTS, Server

NAME = "mlflow"


class HostStandIn:
    """Once the server's role can log in, Headrace runs with it, on the bucket of the stack.

    `postgres` is what the database's address leads to; a server that is started later finds another there.
    """

    def __init__(self, account: Account, postgres: Postgres, folder: Path, domain: str = "localhost") -> None:
        self.account = account
        self.postgres = postgres
        self.folder = folder
        self.domain = domain
        self.port = free_port()
        self.server: Server | None = None
        account.tunnels |= {"5000": self.port, "remote": postgres.port}
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._role_may_log_in():
            if self._given_up.wait(0.5):  # each look costs the account and the database something
                return
        self.start_server()

    def start_server(self) -> None:
        parameters = self.parameters()
        environment = {
            **KEYS,
            **fork_server.environment(),
            "AWS_ENDPOINT_URL": self.account.url,
            "MLFLOW_S3_ENDPOINT_URL": self.account.url,
            "HOST": "127.0.0.1",
            "PORT": str(self.postgres.port),
            "DATABASE": parameters["DB_NAME"],
            "USERNAME": parameters["DB_USER"],
            "PASSWORD": parameters["DB_PASS"],
            "BUCKET": parameters["BUCKET"],
            "HEADRACE_ADMIN_TOKEN": parameters["ADMIN_TOKEN"],
            "HEADRACE_AUTH": "true",
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{self.domain},localhost,localhost:*,127.0.0.1,127.0.0.1:*",  # host_boot.sh
        }
        command: list[str | Path] = [SCRIPTS / "headrace", "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        process = Process(command, self.folder / "headrace.log", env=environment, cwd=self.folder)
        self.server = Server("headrace", f"http://127.0.0.1:{self.port}", process)

    def stop_server(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def _role_may_log_in(self) -> bool:
        found = self.parameters()
        role = {"user": found.get("DB_USER", ""), "password": found.get("DB_PASS"), "dbname": found.get("DB_NAME", "")}
        try:
            psycopg2.connect(host="127.0.0.1", port=self.postgres.port, **role).close()
        except psycopg2.OperationalError:
            return False
        return True

    def parameters(self) -> dict[str, str]:
        """What is below /mlflow, by the last part of its name."""
        found = self.account.cloud().pages(
            "ssm", "get_parameters_by_path", "Parameters", Path=f"/{NAME}/", WithDecryption=True
        )
        return {item["Name"].rsplit("/", 1)[1]: item["Value"] for item in found}

    def stop(self) -> None:
        self._given_up.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.stop_server()
