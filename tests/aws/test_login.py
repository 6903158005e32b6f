"""`headrace aws up --db-auth` on a deployment that runs, at a stand-in for RDS before a real PostgreSQL (place.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import renewal
from headrace.aws import images, journal, login, plan, server_settings, stacks
from headrace.aws.client import Cloud
from headrace.aws.deployment import Choices
from headrace.aws.stacks import Stack
from headrace.errors import AwsError, ConfigurationError
from headrace.server_role import create_server_role
from headrace.settings import Settings
from headrace.ssm import Secrets
from tests.aws.conftest import Account
from tests.aws.place import FIRST, KEY, TOKEN, Load, Place
from tests.support import tls
from tests.support.databases import Databases
from tests.support.postgres import ROTATED, Postgres
from tests.support.processes import wait_until
from tests.support.rds import Rds
from tests.support.servers import PASSED_THROUGH

OTHER = "another's password"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="login-") as name:  # a short name, as test_rotate.py's
        yield Path(name)


@pytest.fixture
def rds(postgres: Postgres, folder: Path) -> Iterator[Rds]:
    server = Rds(postgres.port, *tls.certificate(folder, "localhost"), "localhost")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def place(
    account: Account, postgres: Postgres, databases: Databases, folder: Path, rds: Rds, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    postgres.execute("CREATE ROLE rds_iam")
    made = Place(account, postgres, databases, folder, rds)
    made.stand_in(monkeypatch)
    yield made
    made.end()
    postgres.execute("DROP ROLE rds_iam")


def to_tokens(place: Place, said: list[str]) -> None:
    """As `up` takes its steps."""
    place.cloud.put_parameter("/lab/DB_AUTH", "iam", "the data stack's")
    login.to_tokens(place.cloud, "lab", said.append)


def test_no_request_fails_on_the_way_to_tokens_and_back(place: Place, rds: Rds, said: list[str]) -> None:
    assert place.status(TOKEN, PASSED_THROUGH) == 200
    with Load(place) as load:
        load.goes_on()
        assert rds.let_in == 0
        to_tokens(place, said)
        let_in = rds.let_in
        load.goes_on()
        wait_until(lambda: rds.let_in > let_in, "connections that have begun since")
        assert place.cloud.secret("/lab/DB_PASS") is None
        assert place.postgres.ask(f"SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = '{ROTATED}'") is True
        login.to_tokens(place.cloud, "lab", said.append)  # nothing is left to do
        # and back
        place.cloud.put_secret("/lab/DB_PASS", OTHER, KEY)
        login.to_password(place.cloud, "lab", said.append)
        load.goes_on()
        place.cloud.put_parameter("/lab/DB_AUTH", "password", "the data stack's")
        login.settle(place.cloud, "lab", said.append)
        rds.refuses = True  # as RDS does that takes no tokens any more
        let_in = rds.let_in
        load.goes_on()
    assert load.failed == []
    assert rds.let_in == let_in
    assert place.password_works(OTHER)
    assert place.status(TOKEN, PASSED_THROUGH) == 200
    log = place.server.process.tail(100_000) + "".join(said)
    for secret in ("X-Amz-Signature", FIRST, OTHER):
        assert secret not in log


def test_where_rds_takes_no_token_the_password_stays(
    place: Place, rds: Rds, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "_SECONDS", 0)
    rds.refuses = True
    with pytest.raises(AwsError, match=r"PAM authentication failed(.|\n)*logs in with its password, as before"):
        to_tokens(place, said)
    assert place.password_works(FIRST)
    place.database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role", role=ROTATED)
    assert place.status(TOKEN) == 200
    assert place.cloud.secret("/lab/DB_PASS") == FIRST
    rds.refuses = False
    to_tokens(place, said)
    assert place.cloud.secret("/lab/DB_PASS") is None
    # a database of then, put back into service since
    create_server_role(Settings(backend_store_uri=place.database.uri), ROTATED, "of today")
    assert place.password_works("of today")


def test_a_server_that_does_not_verify_the_database_gets_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not say that it has read what SSM says, which the command waits for."""
    monkeypatch.setattr(renewal, "read_secrets", lambda *_: Secrets(("p",), (), "iam", "DB_AUTH=2 DB_PASS=1"))
    settings = Settings(backend_store_uri="postgresql://u:p@h/d?sslmode=require", ssm_prefix="/lab")
    with pytest.raises(ConfigurationError, match="verify-full"):
        renewal.Renewal(settings, str(tmp_path), {}).begin()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("deployed", "chosen", "password", "expected"),
    [
        ("password", None, True, []),
        ("password", "iam", True, ["MakeStack", "MakeApp", "WaitHealthy", "SwitchLogin"]),
        ("iam", None, True, ["MakeStack", "MakeApp", "WaitHealthy", "SwitchLogin"]),  # broken off before
        ("iam", None, False, []),
        # the role takes a password before RDS takes no tokens, and the hosts' role may make them until then
        ("iam", "password", False, ["MakeSecret", "SwitchLogin", "MakeStack", "MakeApp", "WaitHealthy", "SettleLogin"]),
    ],
)
def test_the_order_in_which_up_changes_it(
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    deployed: str,
    chosen: str | None,
    password: bool,
    expected: list[str],
) -> None:
    choices = Choices(name="lab")
    app = choices.app_parameters({}) | {"Image": "example.org/image@sha256:1", "InstanceType": "t4g.micro"}
    there = {"lab-data": choices.data_parameters({}) | {"DatabaseAuth": deployed}, "lab-app": app}
    monkeypatch.setattr(stacks, "settle", lambda _, name, __: Stack(name, "CREATE_COMPLETE", there[name], {}))
    monkeypatch.setattr(journal, "read", lambda *_: None)
    monkeypatch.setattr(server_settings, "find", lambda *_: {})
    monkeypatch.setattr(Cloud, "parameter", lambda _, name: "***" if password and name == "/lab/DB_PASS" else None)
    steps = plan.up(cloud, Choices(name="lab", db_auth=chosen), print)
    kinds = [type(step).__name__ for step in steps]
    switches = [kind for kind in kinds if kind in ("SwitchLogin", "SettleLogin")]
    if not expected:
        assert not switches
        return
    (made,) = [step for step in steps if isinstance(step, plan.MakeApp)]
    assert made.by_token is (expected[-1] == "SwitchLogin")
    first = {kind: kinds.index(kind) for kind in expected}
    assert list(first.values()) == sorted(first.values())
    assert len(switches) == len([kind for kind in expected if kind in switches])


def test_what_can_not_be_changed_is_told(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Choices(name="lab").data_parameters({})
    with pytest.raises(ConfigurationError, match="shuts out whatever else logs in"):
        Choices(name="lab", db_auth="iam").data_parameters(data | {"ExistingDatabase": "theirs"})
    stack = Stack("lab-data", "CREATE_COMPLETE", data | {"DatabaseAuth": "iam"}, {})
    monkeypatch.setattr(stacks, "settle", lambda _, name, __: stack if name == "lab-data" else None)
    monkeypatch.setattr(images, "pinned", lambda *_: None)
    monkeypatch.setattr(images, "architecture", lambda *_: "arm64")
    monkeypatch.setattr(server_settings, "find", lambda *_: {})
    monkeypatch.setattr(Cloud, "account", lambda _: "1")
    monkeypatch.setattr(Cloud, "parameter", lambda *_: None)
    with pytest.raises(ConfigurationError, match="there is no lab-app"):
        plan.up(cloud, Choices(name="lab", db_auth="password"), print)
