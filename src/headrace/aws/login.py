"""How the server logs in at its database, changed while it runs: from a password to tokens of IAM, and back.

RDS asks every member of rds_iam for a token, and nobody else, from one connection to the next. So in between every
server has both, and tries both (headrace/renewal.py); what is open lives on. What is done is read from SSM: while there
is a password beside DB_AUTH = iam, a change is under way, and continues.
"""

from __future__ import annotations

from headrace import ssm
from headrace.aws import database, execute, hosts, rotate
from headrace.aws.client import Cloud
from headrace.aws.stacks import Say
from headrace.errors import AwsError
from headrace.server_role import log_in_by_password, log_in_by_token

_SECONDS = 60  # for IAM to let the hosts' role in: what it is told takes effect after a while


def to_tokens(cloud: Cloud, name: str, say: Say) -> None:
    """RDS and the hosts' role are ready for tokens, and SSM says iam: the database role takes them from here on.

    Raises AwsError; then the password works as before.
    """
    data, app = (execute.required(cloud, f"{name}-{part}") for part in ("data", "app"))
    user, password = cloud.parameter(f"/{name}/DB_USER"), cloud.secret(f"/{name}/{rotate.PASSWORD}")
    if user is None or password is None:
        return
    first = rotate.tell(cloud, name, app, say)
    with database.as_master(cloud, data, first) as settings:
        log_in_by_token(settings, user)
        try:
            for host in hosts.wait_online(cloud, app, say):
                hosts.run(cloud, host.id, _proof(), "log in at the database by a token", say)
        except BaseException as error:  # Ctrl-C, too
            log_in_by_password(settings, user, password)
            if not isinstance(error, AwsError):
                raise
            raise AwsError(
                f"{error}\nThe server logs in with its password, as before. `headrace aws up --name {name}` tries "
                f"again, with `--db-auth password` it stays so.",
                error.code,
            ) from None
    for ending in ("", ssm.OLD):
        cloud.drop_parameter(f"/{name}/{rotate.PASSWORD}{ending}")
    rotate.tell(cloud, name, app, say)
    say(f"database: the role {user} logs in by tokens of IAM; its password is gone, in the database and in SSM")


def to_password(cloud: Cloud, name: str, say: Say) -> None:
    """SSM has a password again: the database role takes it from here on, and no token. RDS may stop taking any then.

    Raises AwsError.
    """
    data, app = (execute.required(cloud, f"{name}-{part}") for part in ("data", "app"))
    user, password = cloud.parameter(f"/{name}/DB_USER"), cloud.secret(f"/{name}/{rotate.PASSWORD}")
    assert user is not None
    assert password is not None
    first = rotate.tell(cloud, name, app, say)
    with database.as_master(cloud, data, first) as settings:
        rotate.tell(cloud, name, app, say)  # a host that came while the tunnel was opened
        log_in_by_password(settings, user, password)
    say(f"database: the role {user} logs in with a password")


def settle(cloud: Cloud, name: str, say: Say) -> None:
    """Every server knows how SSM says that it logs in. Raises AwsError."""
    rotate.tell(cloud, name, execute.required(cloud, f"{name}-app"), say)


def _proof() -> str:
    """Runs on a host: a connection of its own, with a token."""
    return (
        f"end=$((SECONDS + {_SECONDS}))\n"
        "until said=$(docker exec mlflow-server headrace db indexes list 2>&1); do\n"
        '  [ "$SECONDS" -lt "$end" ] || { echo "$said" | tail -n 5; exit 1; }\n'
        "  sleep 2\n"
        "done\n"
    )
