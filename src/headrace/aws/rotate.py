"""Another password for the server's database role, and another token for the first administrator.

In the steps of AWS's own rotation (https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html):
the new secret is kept beside the old one, set, and the old one is dropped. In between every server knows both
(headrace/renewal.py), so that no connection and no request is refused: PostgreSQL asks for a password only when a
connection begins, and what is open lives on.

What is done is read from SSM: where NAME_OLD is another than NAME, a rotation is under way, and continues.
"""

from __future__ import annotations

import shlex
import time

from headrace import ssm
from headrace.aws import database, execute, hosts
from headrace.aws.client import Cloud
from headrace.aws.stacks import Say, Stack
from headrace.errors import AwsError
from headrace.renewal import REVISION
from headrace.server_role import new_password, set_password

PASSWORD, TOKEN = "DB_PASS", "ADMIN_TOKEN"
_UNDER_WAY = 3600  # seconds for which the same command continues that of a token, and begins no other
_SECONDS = 60  # for a server to read its secrets anew


def password(cloud: Cloud, name: str, say: Say) -> None:
    """Replace the password of the server's database role. Raises AwsError; then both work, or the old one does."""
    data, app = (execute.required(cloud, f"{name}-{part}") for part in ("data", "app"))
    user, new = database.login(cloud, name)
    if new is None:
        say(f"database: the role {user} logs in by tokens of IAM; there is no password")
        return
    _keep_both(cloud, name, data, PASSWORD, new_password(), say)
    first = tell(cloud, name, app, say)
    _, new = database.login(cloud, name)
    assert new is not None
    with database.as_master(cloud, data, first) as settings:
        tell(cloud, name, app, say)  # a host that came while the tunnel was opened
        set_password(settings, user, new)
    say(f"database: the role {user} has its new password")
    drop_old(cloud, name, PASSWORD, say)


def token(cloud: Cloud, name: str, say: Say) -> None:
    """Give the first administrator another token. The old one works until `drop_old`. Raises AwsError."""
    data, app = (execute.required(cloud, f"{name}-{part}") for part in ("data", "app"))
    if (since := _modified(cloud, f"/{name}/{TOKEN}{ssm.OLD}")) is not None and time.time() - since > _UNDER_WAY:
        drop_old(cloud, name, TOKEN, say)  # of the rotation before
    _keep_both(cloud, name, data, TOKEN, execute.new_token(), say)
    tell(cloud, name, app, say)


def drop_old(cloud: Cloud, name: str, which: str, say: Say) -> None:
    """Let the secret of before count no more, on no server. Raises AwsError."""
    cloud.drop_parameter(f"/{name}/{which}{ssm.OLD}")
    tell(cloud, name, execute.required(cloud, f"{name}-app"), say)


def _keep_both(cloud: Cloud, name: str, data: Stack, which: str, new: str, say: Say) -> None:
    """The new one in the place of the old, and that beside it, unless an earlier command has done so."""
    parameter = f"/{name}/{which}"
    old = cloud.secret(parameter)
    if old is None:
        raise AwsError(f"SSM in {cloud.region} has no {parameter}: `headrace aws up` makes it.")
    if cloud.secret(f"{parameter}{ssm.OLD}") not in (None, old):
        say(f"{parameter}: another one since an earlier command; going on with that")
        return
    key = data.output("KeyArn")
    for each, value in ((f"{parameter}{ssm.OLD}", old), (parameter, new)):
        cloud.put_secret(each, value, key)
    say(f"{parameter}: another one; until that is set, the old one is in {parameter}{ssm.OLD}")


def _modified(cloud: Cloud, parameter: str) -> float | None:
    """Seconds since 1970; None where there is none."""
    found = cloud.call("ssm", "get_parameters", Names=[parameter])["Parameters"]
    return float(found[0]["LastModifiedDate"].timestamp()) if found else None


def tell(cloud: Cloud, name: str, app: Stack, say: Say) -> str:
    """Have every host's server read the secrets that SSM has now; the first host's id. Raises AwsError."""
    names = [f"/{name}/{which}" for which in ssm.LIVE]
    wanted = ssm.revision(f"/{name}", cloud.call("ssm", "get_parameters", Names=names)["Parameters"])
    running = hosts.wait_online(cloud, app, say)
    for host in running:
        hosts.run(cloud, host.id, _script(wanted), "have the server read its secrets", say)
    return running[0].id


def _script(wanted: str) -> str:
    """Runs on a host. The file is where the server's renewal.py writes it; it tells versions, and no secret."""
    read = shlex.quote(f"cat ${{TMPDIR:-/tmp}}/headrace-*/{REVISION}")
    return (
        f"look() {{ docker exec mlflow-server sh -c {read}; }}\n"
        "look >/dev/null || { echo 'this image is older than `rotate`: `headrace aws upgrade` first'; exit 1; }\n"
        f"end=$((SECONDS + {_SECONDS}))\n"
        f'until [ "$(look)" = {shlex.quote(wanted)} ]; do\n'
        "  docker kill --signal USR1 mlflow-server >/dev/null\n"
        "  sleep 0.5\n"
        '  [ "$SECONDS" -lt "$end" ] || { docker logs --tail 5 mlflow-server; exit 1; }\n'
        "done\n"
    )
