"""The database behind its host: MLflow's tables, the server's role, snapshots.

RDS keeps the master user's password in Secrets Manager; no host can read it. So what only the master user may do is
done from here, through a tunnel over a host.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from headrace.aws import tunnel
from headrace.aws.client import Answer, Cloud, polling
from headrace.aws.stacks import Say, Stack
from headrace.errors import AwsError
from headrace.settings import Settings, resolve

BUSY_SECONDS = 1800
"""For which a command waits for what else RDS does with the database, its backup say."""


def instance(cloud: Cloud, data: Stack) -> Answer:
    """What RDS says of the database."""
    found = cloud.call("rds", "describe_db_instances", DBInstanceIdentifier=data.output("DatabaseId"))
    answer: Answer = found["DBInstances"][0]
    return answer


def make_role(cloud: Cloud, name: str, data: Stack, host: str, say: Say) -> None:
    """Create MLflow's tables and the role whose name and password are in SSM, through a tunnel over `host`."""
    from headrace.database import prepare
    from headrace.server_role import create_server_role

    user, password = login(cloud, name)
    with as_master(cloud, data, host) as settings:
        prepare(settings, say)
        create_server_role(settings, user, password)
    say(f"database: the role {user} may work with MLflow's tables")


def login(cloud: Cloud, name: str) -> tuple[str, str]:
    """Name and password of the server's role, as SSM has them."""
    user, password = (
        str(cloud.call("ssm", "get_parameter", Name=f"/{name}/{key}", WithDecryption=True)["Parameter"]["Value"])
        for key in ("DB_USER", "DB_PASS")
    )
    return user, password


@contextmanager
def as_master(cloud: Cloud, data: Stack, host: str) -> Iterator[Settings]:
    """The server's settings, but as the master user and through a tunnel over `host`."""
    found = instance(cloud, data)
    endpoint = found["Endpoint"]
    if "MasterUserSecret" not in found:
        raise AwsError(
            f"RDS keeps no master password for {data.output('DatabaseId')}: somebody has set it by hand. Let RDS "
            f"manage it again: aws rds modify-db-instance --region {cloud.region} --db-instance-identifier "
            f"{data.output('DatabaseId')} --manage-master-user-password"
        )
    secret = cloud.call("secretsmanager", "get_secret_value", SecretId=found["MasterUserSecret"]["SecretArn"])
    login = json.loads(secret["SecretString"])
    with tunnel.opened(cloud, host, int(endpoint["Port"]), remote=endpoint["Address"]) as way:
        environment = {
            "HOST": "127.0.0.1",
            "PORT": str(way.port),
            "DATABASE": "mlflow",
            "USERNAME": found["MasterUsername"],
            "PASSWORD": login["password"],
            "BUCKET": f"s3://{data.output('Bucket')}/",
        }
        settings = resolve({}, environment)
        mode = os.environ.get("PGSSLMODE", "require")  # the tunnel's end is this machine: no name to verify
        yield msgspec.structs.replace(settings, backend_store_uri=f"{settings.backend_store_uri}?sslmode={mode}")


def snapshot(cloud: Cloud, data: Stack, name: str, say: Say) -> None:
    """Take a snapshot of the database, if there is none of that name, and wait until it is available.

    Raises AwsError.
    """
    say(f"database: snapshot {name}; it takes minutes")
    deadline = time.monotonic() + BUSY_SECONDS
    for _ in polling(longest=15):
        try:
            cloud.call(
                "rds", "create_db_snapshot", DBInstanceIdentifier=data.output("DatabaseId"), DBSnapshotIdentifier=name
            )
        except AwsError as error:
            if error.code == "DBSnapshotAlreadyExists":  # of a try that was broken off
                break
            # RDS's nightly backup, say: it ends by itself
            if error.code != "InvalidDBInstanceState" or time.monotonic() > deadline:
                raise
        else:
            break
    for _ in polling(longest=15):
        found = cloud.call("rds", "describe_db_snapshots", DBSnapshotIdentifier=name)["DBSnapshots"][0]
        if found["Status"] == "available":
            return
        if found["Status"] not in ("creating", "pending"):
            raise AwsError(
                f"The snapshot {name} in {cloud.region} is {found['Status']}. Look at it in the RDS console."
            )
