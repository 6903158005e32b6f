"""Every published attack on MLflow, sent as nobody, as a viewer and as an editor: none may succeed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.auth import sessions
from headrace.clock import now_ms
from tests.security.known_attacks import ATTACKS, Attack
from tests.security.measure_stock import ANSWERS
from tests.security.sending import LONGEST_SECONDS, SECRET, Listener, attempt, listening, outside, values_of
from tests.server.guarded import ADMIN_TOKEN, Guarded, start_guarded
from tests.support.databases import Databases
from tests.support.servers import PASSED_THROUGH

ROLES = ("nobody", "viewer", "editor")


@dataclass
class Target:
    """The server, what is to be got there, and who sends."""

    guarded: Guarded
    folder: Path
    values: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    def credentials(self, role: str, browser: bool) -> dict[str, str]:
        if role == "nobody":
            return {}
        return (
            {"Cookie": f"{sessions.COOKIE}={self.cookies[role]}"}
            if browser
            else {"Authorization": f"Bearer {self.tokens[role]}"}
        )


@pytest.fixture(scope="module")
def listener() -> Iterator[str]:
    with listening() as address:
        yield address


@pytest.fixture(scope="module")
def target(databases: Databases, tmp_path_factory: pytest.TempPathFactory, listener: str) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("outside")
    users = {"viewer": "viewer", "editor": "editor"}
    guarded = start_guarded(
        databases.migrated("sqlite"), tmp_path_factory.mktemp("server"), users=users, until=PASSED_THROUGH
    )
    guarded.headrace("user", "add", "nopassword", "--no-password")
    found = Target(guarded, folder, {})
    for role in users:
        found.tokens[role] = guarded.headrace("user", "token", role)
        found.cookies[role] = _session(guarded, role)
    found.values = values_of(guarded.server.url, folder, listener, {"Authorization": f"Bearer {ADMIN_TOKEN}"})
    yield found
    guarded.server.stop()


def _session(guarded: Guarded, user: str) -> str:
    """The cookie of a browser that has signed in."""
    (row,) = guarded.database.query("SELECT value FROM headrace_state WHERE name = 'secret'")
    return sessions.seal(sessions.Session("0" * 16, user, now_ms(), now_ms() + 3_600_000), bytes.fromhex(row["value"]))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_known_attack_succeeds(target: Target, attack: Attack, role: str) -> None:
    before, began = outside(target.folder), time.monotonic()
    answers = attempt(target.guarded.server.url, attack, target.values, target.credentials(role, attack.browser))
    assert all(SECRET not in text for _, text in answers)
    status, text = answers[-1]
    assert status in getattr(attack, role), text
    assert outside(target.folder) == before
    assert Listener.calls == []
    assert time.monotonic() - began < LONGEST_SECONDS


def test_the_server_still_works_after_all_of_them(target: Target) -> None:
    assert target.guarded.status("GET", "/health") == 200
    for token in target.tokens.values():
        assert target.guarded.status("GET", "/api/2.0/mlflow/experiments/search?max_results=1", token) == 200


def test_what_stock_answers_is_known_of_each() -> None:
    """Measured, as data; see measure_stock.py."""
    assert json.loads(ANSWERS.read_text())["answers"].keys() == {attack.name for attack in ATTACKS}
