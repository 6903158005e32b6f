"""AWS's account in the rehearsal: moto, with real parts behind it. `python -m rehearsal.account --host H --port N`.

A stack's database is a real PostgreSQL, and Run Command runs on the host. A host is in service when it says so, as the
template's hook has it, and what a balancer finds of it is what `rehearsal.group` has found. REHEARSAL_STAGE names the
file of `Wiring`.
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
from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.models import FakeAutoScalingGroup, InstanceState
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.elbv2.models import FakeTargetGroup
from moto.rds.models import DBInstance
from moto.server import main
from moto.ssm.models import SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse
from psycopg2 import sql
from tests.support import moto_aws

from rehearsal.parts import Host

MASTER = "headrace_master"
_SEND, _HEALTH = SimpleSystemManagerBackend.send_command, FakeTargetGroup.health_for
_INFORMATION, _SESSION = moto_aws.describe_instance_information, moto_aws.start_session
_ended: dict[str, subprocess.CompletedProcess[str]] = {}  # by the command's id


class Wiring(NamedTuple):
    """`superuser` connects to PostgreSQL as RDS itself does; `hosts` is the folder of those that were booted."""

    superuser: str
    database_host: str
    database_port: int
    hosts: str

    @classmethod
    def read(cls) -> Wiring:
        return cls(**json.loads(Path(os.environ["REHEARSAL_STAGE"]).read_text()))

    def host(self, instance: str) -> Host | None:
        """None where it is not up yet, or no more."""
        try:
            return Host.of(Path(self.hosts), instance)
        except FileNotFoundError:
            return None


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


def describe_instance_information(self: Any) -> ActionResult:
    answer: Any = _INFORMATION(self)
    known = answer.result["InstanceInformationList"]
    up = [one for one in known if Wiring.read().host(one["InstanceId"]) is not None]
    return ActionResult({"InstanceInformationList": up})


def start_session(self: Any) -> ActionResult:
    if Wiring.read().host(self._get_param("Target")) is None:
        raise ServiceException("TargetNotConnected", f"{self._get_param('Target')} is not connected.")
    return _SESSION(self)


def send_command(self: Any, **options: Any) -> Any:
    (instance,) = options["instance_ids"]
    host = Wiring.read().host(instance)
    if host is None:
        raise ServiceException("InvalidInstanceId", f"Instances [[{instance}]] not in a valid state for account")
    command = _SEND(self, **options)

    def run() -> None:
        script = host.adapted("".join(options["parameters"]["commands"]))
        _ended[command.command_id] = subprocess.run(host.shell(), input=script, capture_output=True, text=True)

    threading.Thread(target=run, daemon=True).start()
    return command


def make_state(self: Any, *arguments: Any, **options: Any) -> None:
    """The hook holds a host back until it says that it serves; on AWS the first of a stack may be before the hook."""
    _MAKE_STATE(self, *arguments, **options)
    self.lifecycle_state = "Pending:Wait"


def active_instances(self: Any) -> list[Any]:
    return [one for one in self.instance_states if one.lifecycle_state in ("InService", "Pending:Wait")]


def complete_lifecycle_action(self: Any) -> ActionResult:
    group = self.autoscaling_backend.autoscaling_groups[self._get_param("AutoScalingGroupName")]
    for one in group.instance_states:
        if one.instance_id == self._get_param("InstanceId") and one.lifecycle_state == "Pending:Wait":
            one.lifecycle_state = "InService"
            return ActionResult({})
    raise ValidationError("No active Lifecycle Action found")


def health_for(self: Any, target: dict[str, Any], ec2: Any) -> Any:
    found = _HEALTH(self, target, ec2)
    health = Path(Wiring.read().hosts, ".health")
    if found.status == "healthy" and health.exists():
        found.status = json.loads(health.read_text()).get(target["Id"], "initial")
    return found


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
    _MAKE_STATE = InstanceState.__init__
    make = "create_from_cloudformation_json"
    for kind, name, value in (
        (DBInstance, make, _with_database(getattr(DBInstance, make))),
        (DBInstance, "address", property(lambda _: Wiring.read().database_host)),
        (SimpleSystemManagerBackend, "send_command", send_command),
        (SimpleSystemManagerResponse, "get_command_invocation", get_command_invocation),
        (SimpleSystemManagerResponse, "describe_instance_information", describe_instance_information),
        (SimpleSystemManagerResponse, "start_session", start_session),
        (InstanceState, "__init__", make_state),
        (FakeAutoScalingGroup, "active_instances", active_instances),
        (AutoScalingResponse, "complete_lifecycle_action", complete_lifecycle_action),
        (FakeTargetGroup, "health_for", health_for),
    ):
        setattr(kind, name, value)
    main(sys.argv[1:])
