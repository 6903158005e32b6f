"""Who shows what: each kind of credential for itself, and passwords that others fail at."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.auth.accounts import Accounts, opened_accounts
from headrace.auth.authenticator import ASSERTION, HEADER, SESSION, Authenticator
from headrace.auth.passwords import hash_password
from headrace.auth.setup_process import make_token
from headrace.auth.throttle import BY_USER, Throttle
from headrace.errors import TooManyAttempts, Unauthenticated
from headrace.settings import Settings

PASSWORD = "correct horse battery"


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Accounts]:
    path = tmp_path / "a.db"
    sqlite3.connect(path).close()
    async with opened_accounts(Settings(backend_store_uri=f"sqlite:///{path}")) as accounts:
        await accounts.set_up()
        await accounts.add_user("ada", "editor", hash_password(PASSWORD))
        yield accounts


def basic(password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"ada:{password}".encode())


async def test_what_is_known_in_one_place_is_nothing_in_another(accounts: Accounts) -> None:
    """A token in a cookie would sign in without a look at which page sends it."""
    authenticator = Authenticator(accounts)
    header = b"Bearer " + (await make_token(accounts, "ada", "laptop", "editor")).encode()
    cookie = await authenticator.new_session("ada")
    await authenticator.identify(header, "10.0.0.1")
    await authenticator.identify_session(cookie)
    for credential, kind in ((header, HEADER), (cookie.encode(), SESSION)):
        for other in (HEADER, SESSION, ASSERTION):
            known = authenticator.known(credential, other)
            assert (known is not None) is (other is kind)
    with pytest.raises(Unauthenticated):
        await authenticator.identify_session(header.decode())


async def test_a_job_shows_its_token_either_way(accounts: Accounts) -> None:
    """What asks the AI gateway within a job knows names and passwords only."""
    authenticator = Authenticator(accounts, jobs_token="of-this-start")
    for header in (b"Bearer of-this-start", basic("of-this-start")):
        found = await authenticator.identify(header, "127.0.0.1")
        assert (found.user, found.via) == ("MLflow's jobs", "a job")
    for other in (Authenticator(accounts), Authenticator(accounts, jobs_token="of-another")):
        with pytest.raises(Unauthenticated):
            await other.identify(basic("of-this-start"), "127.0.0.1")


async def test_a_password_that_was_right_is_not_held_up(accounts: Accounts) -> None:
    """Each change of accounts makes a worker forget whom it knows, and somebody may fail at a name without an end."""
    authenticator = Authenticator(accounts)
    authenticator._throttle = Throttle(accounts, lambda: 1_000_000_000_000)  # no second passes
    await authenticator.identify(basic(PASSWORD), "10.0.0.1")
    for _ in range(BY_USER.free):
        with pytest.raises(Unauthenticated):
            await authenticator.identify(basic("a guess"), "10.0.0.2")
    with pytest.raises(TooManyAttempts):
        await authenticator.identify(basic("a guess"), "10.0.0.2")
    authenticator.forget()
    assert (await authenticator.identify(basic(PASSWORD), "10.0.0.1")).user == "ada"
    # one that is not right any more is as any other
    await accounts.set_password("ada", hash_password(PASSWORD + " staple"))
    authenticator.forget()
    for _ in range(2):
        with pytest.raises(TooManyAttempts):
            await authenticator.identify(basic(PASSWORD), "10.0.0.1")
