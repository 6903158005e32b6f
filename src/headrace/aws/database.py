"""The database behind its host: MLflow's tables, the server's role, snapshots.

RDS keeps the master user's password in Secrets Manager; no host can read it. So what only the master user may do is
done from here, through a tunnel over a host.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from headrace.aws import tunnel
from headrace.aws.client import Answer, Cloud, passing_over, polling
from headrace.aws.stacks import Say, Stack
from headrace.database_url import PostgresURL
from headrace.errors import AwsError, SchemaOutOfDate
from headrace.settings import Settings
from headrace.settings.resolve import resolve

LOG_DAYS = 30  # as the app's template has it for the server's
SNAPSHOT_DAYS, SNAPSHOTS = 90, 3
"""For so many days the snapshots of upgrades are kept, and so many whatever their age."""
BUSY_SECONDS = 1800
"""For which a command waits for what else RDS does with the database, its backup say."""


def instance(cloud: Cloud, data: Stack) -> Answer:
    """What RDS says of the database."""
    found = cloud.call("rds", "describe_db_instances", DBInstanceIdentifier=data.output("DatabaseId"))
    answer: Answer = found["DBInstances"][0]
    return answer


def by_token(data: Stack) -> bool:
    """Whether the server logs in by tokens of IAM."""
    return data.parameters.get("DatabaseAuth") == "iam"


def resource(cloud: Cloud, data: Stack) -> str:
    """How IAM names the instance that has the database; a restored one is another."""
    return str(instance(cloud, data)["DbiResourceId"])


def expire_log(cloud: Cloud, data: Stack) -> None:
    """Keep the database's log for as long as the server's: RDS makes its group, with no end, and never deletes it."""
    if data.parameters.get("ExistingDatabase"):
        return
    with passing_over("ResourceNotFoundException"):  # it has written none yet; the next `up` finds it
        cloud.call("logs", "put_retention_policy", logGroupName=log_group(data), retentionInDays=LOG_DAYS)


def log_group(data: Stack) -> str:
    return f"/aws/rds/instance/{data.output('DatabaseId')}/postgresql"


def expire_snapshots(cloud: Cloud, name: str, data: Stack, say: Say) -> None:
    """Delete those of upgrades that are older than SNAPSHOT_DAYS; the newest ones stay, however old."""
    taken = re.compile(rf"headrace-{re.escape(name)}-\d{{4}}(-\d\d){{5}}\Z")  # journal.py; others are somebody's
    asked = {"DBInstanceIdentifier": data.output("DatabaseId"), "SnapshotType": "manual"}
    found = [
        one
        for one in cloud.pages("rds", "describe_db_snapshots", "DBSnapshots", **asked)
        if taken.match(one["DBSnapshotIdentifier"]) and one["Status"] == "available"
    ]
    found.sort(key=lambda one: one["DBSnapshotIdentifier"], reverse=True)
    oldest = datetime.now(UTC) - timedelta(days=SNAPSHOT_DAYS)
    for one in found[SNAPSHOTS:]:
        if one["SnapshotCreateTime"] < oldest:
            with passing_over("DBSnapshotNotFound"):
                cloud.call("rds", "delete_db_snapshot", DBSnapshotIdentifier=one["DBSnapshotIdentifier"])
            say(f"database: the snapshot {one['DBSnapshotIdentifier']} is older than {SNAPSHOT_DAYS} days, and deleted")


def make_role(cloud: Cloud, name: str, data: Stack, host: str, say: Say) -> None:
    """Create MLflow's tables and the role whose name and password are in SSM, through a tunnel over `host`."""
    from headrace.database import prepare
    from headrace.server_role import create_server_role, join_owners

    user, password = login(cloud, name)
    with as_master(cloud, data, host) as settings:
        other: SchemaOutOfDate | None = None
        if data.parameters.get("ExistingDatabase"):
            for owner in join_owners(settings):
                say(f"database: the master user is a member of {owner}, whose tables these are")
        try:
            prepare(settings, say)
        except SchemaOutOfDate as error:
            other = error
        create_server_role(settings, user, password)
    say(f"database: the role {user} may work with MLflow's tables")
    if other is None:
        return
    if not other.newer and data.parameters.get("ExistingDatabase"):
        raise AwsError(
            f"{other}\nWhat works with it goes on. Once that is stopped, `headrace aws upgrade latest --name {name}` "
            f"takes a snapshot and migrates; then `headrace aws up --name {name}` once more."
        )
    # the hosts' image decides, which may be of another Headrace than this one
    what = str(other).partition("\n")[0]
    say(
        f"{what} The hosts' image serves its own; where it is a newer one, `headrace aws upgrade VERSION --name {name}`"
        " by the Headrace that it was built from takes a snapshot and migrates"
    )


def login(cloud: Cloud, name: str) -> tuple[str, str | None]:
    """Name and password of the server's role, as SSM has them; no password where it logs in by tokens of IAM."""
    user = cloud.parameter(f"/{name}/DB_USER")
    by_token = cloud.parameter(f"/{name}/DB_AUTH") == "iam"
    password = None if by_token else cloud.secret(f"/{name}/DB_PASS")
    if user is None or (password is None and not by_token):
        raise AwsError(f"SSM in {cloud.region} has no /{name}/DB_USER and DB_PASS: `headrace aws up` makes them.")
    return user, password


@contextmanager
def as_master(cloud: Cloud, data: Stack, host: str) -> Iterator[Settings]:
    """The server's settings, but as the master user and through a tunnel over `host`."""
    found = instance(cloud, data)
    endpoint = found["Endpoint"]
    password = _master_password(cloud, data, found)
    with tunnel.opened(cloud, host, int(endpoint["Port"]), remote=endpoint["Address"]) as way:
        environment = {
            "HOST": "127.0.0.1",
            "PORT": str(way.port),
            "DATABASE": data.parameters.get("ExistingDatabaseName", "mlflow"),
            "USERNAME": found["MasterUsername"],
            "PASSWORD": password,
            "BUCKET": f"s3://{data.output('Bucket')}/",
        }
        settings = _reached(environment)
        if found.get("IAMDatabaseAuthenticationEnabled") and not _takes_password(settings):
            token = cloud.database_token(endpoint["Address"], int(endpoint["Port"]), found["MasterUsername"])
            settings = _reached({**environment, "PASSWORD": token})
        yield settings


def _master_password(cloud: Cloud, data: Stack, found: Answer) -> str:
    """What RDS keeps in Secrets Manager; for a database that was there before, what PGPASSWORD or somebody says."""
    if "MasterUserSecret" in found:
        secret = cloud.call("secretsmanager", "get_secret_value", SecretId=found["MasterUserSecret"]["SecretArn"])
        return str(json.loads(secret["SecretString"])["password"])
    identifier, user = data.output("DatabaseId"), found["MasterUsername"]
    manage = (
        f"aws rds modify-db-instance --region {cloud.region} --db-instance-identifier {identifier} "
        "--manage-master-user-password"
    )
    if not data.parameters.get("ExistingDatabase"):
        raise AwsError(
            f"RDS keeps no master password for {identifier}: somebody has set it by hand. Let RDS manage it again: "
            f"{manage}"
        )
    if given := os.environ.get("PGPASSWORD"):
        return given
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {user}, the master user of {identifier} (it is not kept): ")
    raise AwsError(
        f"RDS keeps no master password for {identifier}. Give that of {user} as PGPASSWORD (it is not kept), or, where "
        f"no program logs in with it, let RDS manage it: {manage}"
    )


def _reached(environment: dict[str, str]) -> Settings:
    settings = resolve({}, environment)
    mode = os.environ.get("PGSSLMODE", "require")  # the tunnel's end is this machine: no name to verify
    return msgspec.structs.replace(settings, backend_store_uri=f"{settings.backend_store_uri}?sslmode={mode}")


def _takes_password(settings: Settings) -> bool:
    """False where RDS wants a token of the master user.

    Its pg_hba.conf has `hostssl all +rds_iam all pam`, and who has made a role of rds_iam is a member of it
    (https://github.com/movetokube/postgres-operator/issues/315, https://github.com/db-operator/db-operator/issues/118).
    """
    import psycopg2

    from headrace.database import connect

    assert isinstance(settings.database, PostgresURL)
    try:
        connect(settings.database).close()
    except psycopg2.OperationalError as error:
        return "PAM authentication failed" not in str(error)
    return True


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
