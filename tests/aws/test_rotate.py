"""`headrace aws rotate` with a real PostgreSQL that asks for passwords, and a real server (place.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.aws import database as aws_database
from headrace.aws import execute, hosts, rotate
from headrace.aws.client import Cloud
from headrace.cli.aws import aws
from headrace.errors import AwsError
from tests.aws.conftest import Account
from tests.aws.place import DATA, FIRST, TOKEN, Load, Place
from tests.support.databases import Databases
from tests.support.postgres import ROTATED, Postgres
from tests.support.processes import wait_until
from tests.support.servers import PASSED_THROUGH


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: where a socket's would be longer than it may be, the server keeps its files elsewhere."""
    with tempfile.TemporaryDirectory(prefix="rotate-") as name:
        yield Path(name)


@pytest.fixture
def place(
    account: Account, postgres: Postgres, databases: Databases, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    made = Place(account, postgres, databases, folder)
    made.stand_in(monkeypatch)
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    made.end()


def rotated(*options: str) -> str:
    """What `headrace aws rotate` says."""
    done = CliRunner().invoke(aws, ["rotate", "--name", "lab", "--yes", *options])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_no_request_fails_while_the_password_is_replaced(place: Place) -> None:
    said = []
    with Load(place) as load:
        for _ in range(2):
            said.append(rotated("--only", "database-password"))
            load.goes_on()
    assert load.failed == []
    assert load.written > 100
    now = place.cloud.secret("/lab/DB_PASS")
    assert now is not None
    assert (place.password_works(now), place.password_works(FIRST)) == (True, False)
    assert place.cloud.secret("/lab/DB_PASS_OLD") is None
    text = "".join(said) + place.server.process.tail(100_000)
    assert FIRST not in text
    assert now not in text
    for file in place.folder.glob("headrace-*/passfile"):
        assert file.stat().st_mode & 0o077 == 0


def test_broken_off_it_continues_with_the_same_password(
    place: Place, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off at each of its commands on a host: what is open lives on, what begins gets in, and so at its end.

    Of stock too, which tries anew where its connection has ended.
    """
    left = 0

    def breaks(*arguments: Any) -> str:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return place.run(*arguments)

    assert place.status(TOKEN, PASSED_THROUGH) == 200
    assert place.database.query(
        "SELECT 1 FROM pg_stat_activity WHERE usename = :role AND application_name = ''", role=ROTATED
    )
    for after in (1, 2, 3):
        assert place.status(TOKEN) == 200
        open_before = place.logged_in()
        left = after
        monkeypatch.setattr(hosts, "run", breaks)
        with pytest.raises(KeyboardInterrupt):
            rotate.password(place.cloud, "lab", said.append)
        assert place.status(TOKEN) == 200
        place.database.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role AND application_name = ''",
            role=ROTATED,
        )
        assert place.status(TOKEN, PASSED_THROUGH) == 200
        kept = place.cloud.secret("/lab/DB_PASS")
        monkeypatch.setattr(hosts, "run", place.run)
        rotate.password(place.cloud, "lab", said.append)
        now = place.cloud.secret("/lab/DB_PASS")
        assert now is not None
        assert (now == kept) is (after < 3), "only its last step was missing then: this is another rotation"
        assert place.password_works(now)
        assert open_before & place.logged_in()
        assert place.status(TOKEN) == 200


def test_the_administrators_old_token_works_until_it_is_ended(place: Place) -> None:
    assert "The old one works until `headrace aws rotate --end-old-token`" in rotated("--only", "admin-token")
    new = place.cloud.secret("/lab/ADMIN_TOKEN")
    assert new is not None
    assert new != TOKEN
    wait_until(lambda: place.status(new) == 200, "the new token works")
    assert place.status(TOKEN) == 200
    assert place.password_works(FIRST)
    rotated()  # both; of the token it continues what may have been broken off
    assert place.cloud.secret("/lab/ADMIN_TOKEN") == new
    assert not place.password_works(FIRST)
    assert rotated("--end-old-token") == "The old token counts no more.\n"
    wait_until(lambda: place.status(TOKEN) == 401, "the old one does not")
    assert place.status(new) == 200
    both = CliRunner().invoke(aws, ["rotate", "--only", "admin-token", "--end-old-token"])
    assert "--end-old-token is a command of its own" in both.output


def test_a_server_of_before_is_told_and_nothing_is_changed(place: Place, said: list[str]) -> None:
    for file in place.folder.glob("headrace-*/secrets"):
        file.unlink()
    with pytest.raises(AwsError, match="`headrace aws upgrade` first"):
        rotate.password(place.cloud, "lab", said.append)
    assert place.password_works(FIRST)


def test_what_is_not_there_can_not_be_replaced(cloud: Cloud, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "required", lambda *_: DATA)
    monkeypatch.setattr(aws_database, "login", lambda *_: ("mlflow", "a password"))
    monkeypatch.setattr(Cloud, "secret", lambda *_: None)
    with pytest.raises(AwsError, match="`headrace aws up` makes it"):
        rotate.password(cloud, "lab", said.append)
