"""`headrace aws restore` with the backups of a real PostgreSQL: base backup and write-ahead log, as RDS keeps them.

AWS is moto's account. What RDS does with data is done by PostgreSQL here: the database of a time is made by recovery up
to it, and the server finds at the database's address whichever instance has the identifier now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
from click.testing import CliRunner, Result

from headrace.aws.client import Answer, Cloud
from headrace.cli.aws import aws
from tests.aws.conftest import REGION, Account
from tests.aws.host import NAME, HostStandIn
from tests.support.postgres import Backup, Postgres
from tests.support.processes import wait_until

IMAGE = "example.org/headrace@sha256:" + 64 * "1"
ELSEWHERE = "us-west-2"


class Rds:
    """Which PostgreSQL answers for which instance of RDS, and what its backups are; and the host's server."""

    def __init__(self, host: HostStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.servers: dict[str, Postgres] = {}  # by the instance's identifier
        self.snapshots: dict[str, Backup] = {}
        self.automated: dict[str, Backup] = {}
        self._environment = monkeypatch

    def follow(self, operation: str, given: dict[str, Any]) -> None:
        """Do with the data what RDS was asked for, and with the server what the host was."""
        match operation:
            case "restore_db_instance_to_point_in_time":
                source = given["SourceDBInstanceIdentifier"]
                self.servers[source].archive()
                restored = Postgres(self.automated[source], until=given["RestoreTime"])
                self._start(given["TargetDBInstanceIdentifier"], restored)
            case "copy_db_snapshot":
                source = given["SourceDBSnapshotIdentifier"].rpartition(":")[2]
                self.snapshots[given["TargetDBSnapshotIdentifier"]] = self.snapshots[source]
            case "restore_db_instance_from_db_snapshot":
                restored = Postgres(self.snapshots[given["DBSnapshotIdentifier"]])
                self._start(given["DBInstanceIdentifier"], restored)
            case "modify_db_instance" if new := given.get("NewDBInstanceIdentifier"):
                self.servers[new] = self.servers.pop(given["DBInstanceIdentifier"])
                self.lead()
            case "send_command" if given["Comment"] == "stop the server":
                self.host.stop_server()
            case "send_command" if given["Comment"] == "start the server again":
                self.host.start_server()

    def _start(self, identifier: str, server: Postgres) -> None:
        server.start()
        wait_until(lambda: server.ask("SELECT pg_is_in_recovery()") is False, "it has recovered")
        self.servers[identifier] = server

    def lead(self) -> None:
        """The address in /mlflow/DB_HOST leads to the instance of that name, if there is one now."""
        address = self.host.parameters()["DB_HOST"]
        if (server := self.servers.get(address.partition(".")[0])) is not None:
            self.host.postgres = server
            self.host.account.tunnels["remote"] = server.port
            self._environment.setenv("TUNNELS", self.host.account.environment()["TUNNELS"])

    def stop(self) -> None:
        for server in self.servers.values():
            server.remove()


class Backed(Cloud):
    """Moto's account, whose RDS has data."""

    rds: ClassVar[Rds]

    def call(self, service: str, operation: str, **arguments: Any) -> Answer:
        answer = super().call(service, operation, **arguments)
        self.rds.follow(operation, arguments)
        return answer


class Writer(threading.Thread):
    """Logs the steps of a metric one after the other, until it is told to stop; knows when each was."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__()
        self.client = Client(url, token)
        experiment = self.client.post("experiments/create", name="restored")["experiment_id"]
        self.run_id = self.client.post("runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
        self.written: list[tuple[float, float]] = []  # by step: when it was sent, and when it was acknowledged
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            step, began = len(self.written), time.time()
            self.client.post("runs/log-metric", run_id=self.run_id, key="m", value=1.0, step=step, timestamp=1)
            self.written.append((began, time.time()))


class Client:
    """The server's API, by an administrator's token."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._session = url, requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, **message: Any) -> Any:
        return self._told(self._session.post(f"{self._url}/api/2.0/mlflow/{path}", json=message, timeout=60))

    def steps(self, run_id: str) -> set[int]:
        asked = {"run_id": run_id, "metric_key": "m", "max_results": "25000"}
        answer = self._session.get(f"{self._url}/api/2.0/mlflow/metrics/get-history", params=asked, timeout=60)
        return {int(one["step"]) for one in self._told(answer)["metrics"]}

    def _told(self, answer: requests.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return answer.json()


def command(*arguments: str) -> Result:
    done = CliRunner().invoke(aws, [*arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


@pytest.fixture
def rds(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rds]:
    """A deployment that is up, whose server's role is asked for its password, with RDS's first backup."""
    postgres = Postgres(asked=(NAME,))
    host = HostStandIn(account, postgres, tmp_path)
    rds = Rds(host, monkeypatch)
    rds.servers["at first"] = postgres
    try:
        postgres.start()
        postgres.keep_log()
        postgres.execute("CREATE ROLE headrace_master LOGIN CREATEDB CREATEROLE")
        for name, value in account.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(Backed, "rds", rds, raising=False)
        monkeypatch.setattr("headrace.cli.aws.Cloud", Backed)
        # a database that is put aside is named by the minute: RDS takes ten for a restore, PostgreSQL a second
        minutes, strftime = iter(range(2611281400, 2611281460)), time.strftime
        monkeypatch.setattr(
            "headrace.aws.restore.time.strftime",
            lambda form, *when: str(next(minutes)) if form == "%y%m%d%H%M" else strftime(form, *when),
        )
        host.start()
        command("up", "--yes", "--image", IMAGE)
        identifier = host.parameters()["DB_HOST"].partition(".")[0]
        rds.servers[identifier] = rds.servers.pop("at first")
        rds.automated[identifier] = postgres.backup()
        yield rds
    finally:
        host.stop()
        rds.stop()


def test_a_database_is_restored_with_all_that_was_before_and_nothing_that_came_after(rds: Rds) -> None:
    """To a time in the middle of writes; then from a snapshot that another region had. One test: `up` takes long."""
    host, (identifier,) = rds.host, rds.servers
    parameters = host.parameters()
    assert host.server is not None
    writer = Writer(host.server.url, parameters["ADMIN_TOKEN"])
    writer.start()
    then = datetime.fromtimestamp(int(time.time()) + 2, UTC)
    wait_until(lambda: len(writer.written) > 50 and time.time() > then.timestamp() + 1, "it has written for a while")
    writer.enough.set()
    writer.join()
    before = {step for step, (_, done) in enumerate(writer.written) if done <= then.timestamp()}
    after = {step for step, (began, _) in enumerate(writer.written) if began > then.timestamp()}
    assert before
    assert after
    rds.snapshots["west-1"] = host.postgres.backup()  # of a database of another region, with all of the steps
    _another_password(rds)

    said = command("restore", "--yes", "--to", then.isoformat()).output
    (old,) = set(rds.servers) - {identifier}
    assert f"Kept: {old}" in said
    assert host.parameters()["DB_HOST"] == parameters["DB_HOST"]
    assert host.server is not None
    client = Client(host.server.url, parameters["ADMIN_TOKEN"])
    found = client.steps(writer.run_id)
    assert before <= found, "nothing of before is lost"
    assert not found & after, "nothing of after is there"
    assert rds.servers[old].ask("SELECT count(*) FROM metrics WHERE key = 'm'", NAME) == len(writer.written)
    client.post("runs/log-metric", run_id=writer.run_id, key="m", value=1.0, step=10**6, timestamp=1)
    assert 10**6 in client.steps(writer.run_id), "it goes on from there"
    again = command("up").output
    assert "stack mlflow-data: as it should be" in again
    assert "stack mlflow-app: as it should be" in again

    _copied_from_another_region(host.account)
    said = command("restore", "--yes", "--snapshot", "headrace-mlflow-west").output
    client = Client(host.server.url, parameters["ADMIN_TOKEN"])
    assert client.steps(writer.run_id) == set(range(len(writer.written)))
    assert len(rds.servers) == 3
    command("restore", "--yes", "--delete-old")
    left = host.account.cloud().call("rds", "describe_db_instances")["DBInstances"]
    assert [one["DBInstanceIdentifier"] for one in left] == [identifier]


def _another_password(rds: Rds) -> None:
    """Since TIME the role has got another, which the backup does not know."""
    cloud = rds.host.account.cloud()
    cloud.call("ssm", "put_parameter", Name=f"/{NAME}/DB_PASS", Value="another", Type="SecureString", Overwrite=True)
    rds.host.postgres.execute(f"ALTER ROLE {NAME} PASSWORD 'another'")


def _copied_from_another_region(account: Account) -> None:
    """`aws rds copy-db-snapshot` with the deployment's key, since another region's encrypts nothing here."""
    west, here = Cloud(ELSEWHERE, endpoint_url=account.url), Backed(REGION, endpoint_url=account.url)
    west.call(
        "rds",
        "create_db_instance",
        DBInstanceIdentifier="west",
        DBInstanceClass="db.t4g.micro",
        Engine="postgres",
        EngineVersion="17",
        AllocatedStorage=20,
        MasterUsername="headrace_master",
        ManageMasterUserPassword=True,
    )
    made = west.call("rds", "create_db_snapshot", DBInstanceIdentifier="west", DBSnapshotIdentifier="west-1")
    here.call(
        "rds",
        "copy_db_snapshot",
        SourceDBSnapshotIdentifier=made["DBSnapshot"]["DBSnapshotArn"],
        TargetDBSnapshotIdentifier="headrace-mlflow-west",
        SourceRegion=ELSEWHERE,
        KmsKeyId="alias/aws/rds",
    )
