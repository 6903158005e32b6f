"""AWS's account in the rehearsal: moto, with real parts behind it. `python -m rehearsal.account --host H --port N`.

A stack's database is a real PostgreSQL, and Run Command runs on the host. REHEARSAL_STAGE names the file of `Wiring`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from moto.core.responses import ActionResult
from moto.rds.models import DBInstance
from moto.server import main
from moto.ssm.models import SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse
from psycopg2 import sql
from tests.support import moto_aws

from rehearsal.parts import adapted

MASTER = "headrace_master"
_SEND = SimpleSystemManagerBackend.send_command
_ended: dict[str, subprocess.CompletedProcess[str]] = {}  # by the command's id


class Wiring(NamedTuple):
    """`superuser` connects to PostgreSQL as RDS itself does; `shell` runs its standard input on the host."""

    superuser: str
    database_host: str
    database_port: int
    shell: list[str]
    port: str

    @classmethod
    def read(cls) -> Wiring:
        return cls(**json.loads(Path(os.environ["REHEARSAL_STAGE"]).read_text()))


def _with_database(make: Any) -> Any:
    """What RDS does for a new instance: a server, the master user with the password that it keeps, a database."""

    def create(kind: type[Any], /, *arguments: Any, **options: Any) -> Any:
        instance = make(*arguments, **options)
        wiring = Wiring.read()
        instance.port = wiring.database_port
        secrets = instance.backend.secretsmanager
        kept = secrets.get_secret_value(instance.master_user_secret.secret_arn, "", "")["SecretString"]
        with contextlib.closing(psycopg2.connect(wiring.superuser)) as connection:
            connection.autocommit = True
            names = {"role": sql.Identifier(MASTER), "database": sql.Identifier(instance.db_name)}
            for statement in (
                "CREATE ROLE {role} LOGIN CREATEDB CREATEROLE PASSWORD {password}",
                "CREATE DATABASE {database} OWNER {role}",
            ):
                password = sql.Literal(json.loads(kept)["password"])
                connection.cursor().execute(sql.SQL(statement).format(**names, password=password))
        return instance

    return classmethod(create)


def send_command(self: Any, **options: Any) -> Any:
    command = _SEND(self, **options)

    def run() -> None:
        script = adapted("".join(options["parameters"]["commands"]), Wiring.read().port)
        shell = Wiring.read().shell
        _ended[command.command_id] = subprocess.run(shell, input=script, capture_output=True, text=True)

    threading.Thread(target=run, daemon=True).start()
    return command


def get_command_invocation(self: Any) -> ActionResult:
    command_id, instance_id = self._get_param("CommandId"), self._get_param("InstanceId")
    answer = self.ssm_backend.get_command_invocation(command_id, instance_id, None)
    if (done := _ended.get(command_id)) is None:
        return ActionResult(answer | {"Status": "InProgress"})
    status = "Failed" if done.returncode else "Success"
    output = {"StandardOutputContent": done.stdout, "StandardErrorContent": done.stderr}
    return ActionResult(answer | {"Status": status, "ResponseCode": done.returncode} | output)


if __name__ == "__main__":
    moto_aws.install()
    make = "create_from_cloudformation_json"
    for kind, name, value in (
        (DBInstance, make, _with_database(getattr(DBInstance, make))),
        (DBInstance, "address", property(lambda _: Wiring.read().database_host)),
        (SimpleSystemManagerBackend, "send_command", send_command),
        (SimpleSystemManagerResponse, "get_command_invocation", get_command_invocation),
    ):
        setattr(kind, name, value)
    main(sys.argv[1:])
