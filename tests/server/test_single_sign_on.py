"""People who sign in through a provider, programs with its tokens, and what the audit log says of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import requests

from headrace.errors import Unavailable
from headrace.ui import single_sign_on
from tests.server.guarded import PASSWORD, Guarded, start_guarded
from tests.server.provider import CLIENT, SECRET, Provider, running_provider
from tests.support.databases import Databases
from tests.support.processes import wait_until

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"
CREATE = "/api/2.0/mlflow/experiments/create"
LOGIN, CALLBACK = "/headrace/oidc/login", "/headrace/oidc/callback"


@dataclass
class Signing:
    """A server and its provider."""

    guarded: Guarded
    provider: Provider

    def be(self, subject: str, *groups: str) -> None:
        """Who comes by from now on."""
        self.provider.user = {"sub": subject, "email": f"{subject}@example.org", "groups": list(groups)}

    def browser(self) -> requests.Session:
        """A browser after a login."""
        session = requests.Session()
        answer = session.get(self.guarded.server.url + LOGIN + "?next=/version", timeout=60)
        session.headers["Sec-Fetch-Site"] = "same-origin"
        assert answer.status_code == 200, answer.text
        assert answer.url == self.guarded.server.url + "/version"
        return session


@pytest.fixture(scope="module")
def signing(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signing]:
    with running_provider() as provider:
        options = {
            "--oidc-issuer": provider.url,
            "--oidc-client-id": CLIENT,
            "--oidc-audience": "mlflow-api",
            "--oidc-roles": "ml-admins=admin,ml-team=editor,guests=viewer",
            "--stock": "lazy",
        }
        guarded = start_guarded(
            databases.migrated("sqlite"),
            tmp_path_factory.mktemp("signing"),
            "--audit-table",
            *(text for pair in options.items() for text in pair),
            users={"local": "viewer"},
            env={"HEADRACE_OIDC_CLIENT_SECRET": SECRET},
        )
        yield Signing(guarded, provider)
        guarded.server.stop()


def test_a_person_signs_in_and_out(signing: Signing) -> None:
    signing.be("ada", "ml-team")
    url = signing.guarded.server.url
    page = requests.get(url + "/headrace/sign-in?next=%2Fversion", timeout=60).text
    assert 'href="/headrace/oidc/login?next=%2Fversion"' in page
    browser = signing.browser()
    assert browser.post(url + CREATE, json={"name": "of ada"}, timeout=60).status_code == 200
    shown = browser.get(url + "/headrace/tokens", timeout=60).text
    assert "ada@example.org" in shown
    csrf = shown.partition('name="csrf" value="')[2].partition('"')[0]
    out = browser.post(url + "/headrace/sign-out", data={"csrf": csrf}, allow_redirects=False, timeout=60)
    end = urlsplit(out.headers["Location"])
    assert f"{end.scheme}://{end.netloc}{end.path}" == signing.provider.url + "/logout"
    assert parse_qs(end.query)["post_logout_redirect_uri"] == [url + "/headrace/sign-in"]
    assert browser.get(url + SEARCH, timeout=60).status_code == 401


def test_groups_decide_on_the_role(signing: Signing) -> None:
    url = signing.guarded.server.url
    signing.be("ben", "guests", "others")
    assert signing.browser().post(url + CREATE, json={"name": "of ben"}, timeout=60).status_code == 403
    signing.be("ben", "ml-team", "others")
    assert signing.browser().post(url + CREATE, json={"name": "of ben"}, timeout=60).status_code == 200
    signing.be("ben", "others")
    assert requests.Session().get(url + LOGIN, timeout=60).status_code == 403
    (user,) = signing.guarded.database.query("SELECT role FROM headrace_users WHERE name = 'ben@example.org'")
    assert user["role"] == "editor"


def test_a_programs_token_says_nothing_of_the_users_session(signing: Signing) -> None:
    """Neither one without groups, nor one from before somebody's rights were taken away."""

    def creates(token: str) -> int:
        return signing.guarded.status("POST", CREATE, token, json={"name": f"of dee {secrets.token_hex(4)}"})

    def role() -> str:
        [user] = signing.guarded.database.query("SELECT role FROM headrace_users WHERE name = 'dee@example.org'")
        return str(user["role"])

    signing.be("dee", "guests")
    less = signing.provider.token()
    signing.be("dee", "ml-team")
    more = signing.provider.token()
    signing.browser()
    assert (creates(less), role()) == (403, "editor")
    signing.be("dee", "guests")
    signing.browser()
    assert (creates(more), role()) == (200, "viewer")


def test_claims_of_every_kind(signing: Signing) -> None:
    """Neither a login nor a token fails, whatever a claim is; what says nothing counts for nothing."""

    def status(**more: Any) -> tuple[int, int]:
        signing.be(secrets.token_hex(8), "guests")
        signing.provider.user |= more
        url = signing.guarded.server.url
        login = requests.Session().get(url + LOGIN + "?next=/version", timeout=60).status_code
        return login, signing.guarded.status("GET", SEARCH, signing.provider.token())

    many = [f"a group {number:05}" for number in range(2000)]
    for groups in ("guests", "x,guests", ["guests", 5, None, ["ml-admins"]], ["a" * 300, "guests"], [*many, "guests"]):
        assert status(groups=groups) == (200, 200), groups
    wrong: list[Any] = ["", 0, 5, None, True, {}, {"guests": 1}, [None], ["guests\0"], many]
    for groups in wrong:
        assert status(groups=groups) == (403, 403), groups
    for verified in (True, "true", "True", 1, None):
        assert status(email_verified=verified) == (200, 200), verified
    unverified: list[Any] = [False, "false", "False", 0, "no", []]
    for said in unverified:
        assert status(email_verified=said) == (403, 403), said
    for name in ("admin", " admin", "MLflow's jobs", " local", "a\0b", "a\nb", "\u202eb", "x" * 257):
        assert status(email=name) == (403, 403), name
    for odd in (None, True, ["a@b"], {"a": 1}, "", " "):
        assert status(email=odd) == (200, 200) if odd != " " else (403, 403), odd
    for subject in ("s\0x", "x" * 701):
        assert status(sub=subject) == (403, 403), subject
    no_subjects: list[Any] = [5, ["a"], {}, None, ""]
    for none in no_subjects:
        assert status(sub=none) == (401, 401), none
    assert status(exp=10**400) == (200, 200)
    names = {row["name"] for row in signing.guarded.database.query("SELECT name FROM headrace_users")}
    assert not names & {"True", "['a@b']", "{'a': 1}"}


def test_a_name_that_is_taken_is_not_given_away(signing: Signing) -> None:
    signing.be("eve", "ml-team")
    signing.provider.user["email"] = "local"
    answer = requests.Session().get(signing.guarded.server.url + LOGIN, timeout=60)
    assert (answer.status_code, "already" in answer.text) == (403, True)
    assert requests.get(signing.guarded.server.url + SEARCH, auth=("local", PASSWORD), timeout=60).status_code == 200
    signing.be("eve", "ml-team")
    signing.provider.user["email_verified"] = False
    assert requests.Session().get(signing.guarded.server.url + LOGIN, timeout=60).status_code == 403


def test_a_login_that_another_began(signing: Signing) -> None:
    """Neither another browser's code, nor another state, nor one that is used twice."""
    signing.be("ada", "ml-team")
    url = signing.guarded.server.url
    session = requests.Session()
    there = session.get(url + LOGIN, allow_redirects=False, timeout=60).headers["Location"]
    back = requests.get(there, allow_redirects=False, timeout=60).headers["Location"]
    assert requests.get(back, timeout=60).status_code == 403
    assert session.get(back.replace("state=", "state=x"), timeout=60).status_code == 403
    assert session.get(f"{url}{CALLBACK}?error=access_denied", timeout=60).status_code == 403
    assert session.get(back, allow_redirects=False, timeout=60).status_code == 303
    assert session.get(back, timeout=60).status_code == 403  # its cookie is gone
    long = session.get(f"{url}{LOGIN}?next=/{'x' * 8000}", timeout=60, allow_redirects=False)
    assert len(long.headers["Set-Cookie"]) < 4096, "a browser keeps no longer cookie"
    elsewhere = session.get(url + LOGIN + "?next=https%3A%2F%2Fevil.example", timeout=60, allow_redirects=False)
    assert "evil" not in elsewhere.headers["Location"]


def test_what_fails_at_the_provider_is_said_on_a_page_with_the_way_back(signing: Signing) -> None:
    url, session = signing.guarded.server.url, requests.Session()
    session.headers["Accept"] = "text/html,*/*;q=0.8"
    there = session.get(url + LOGIN, allow_redirects=False, timeout=60).headers["Location"]
    state = parse_qs(urlsplit(there).query)["state"][0]
    for query, status, said in (
        (f"error=access_denied&state={state}", 401, "The provider did not sign you in: access_denied."),
        ("code=x&state=x", 403, "This login is not one that this browser began in the last ten minutes."),
    ):
        page = session.get(f"{url}{CALLBACK}?{query}", allow_redirects=False, timeout=60)
        assert (page.status_code, page.headers["Content-Type"]) == (status, "text/html; charset=utf-8"), page.text
        assert said in page.text
        links = [urljoin(page.url, each) for each in re.findall('href="(.*?)"', page.text)]
        assert links == [f"{url}/headrace/style.css", f"{url}/", f"{url}/headrace/"]


async def test_a_provider_that_sends_a_byte_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_sign_on, "TIMEOUT_SECONDS", 1.0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.close()
        gone.set()

    gone = asyncio.Event()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable, match="does not answer"):
                await single_sign_on.fetch(f"http://127.0.0.1:{port}/")
            await gone.wait()


def test_programs_send_the_providers_tokens(signing: Signing) -> None:
    signing.be("job", "ml-team")
    guarded, provider = signing.guarded, signing.provider
    token = provider.token()
    assert guarded.status("POST", CREATE, token, json={"name": "of a job"}) == 200
    for wrong in (provider.token("other"), provider.token(CLIENT), provider.token(exp=1), token[:-8] + "AAAAAAAA"):
        assert guarded.status("GET", SEARCH, wrong) == 401
    provider.rotate()
    assert guarded.status("GET", SEARCH, token) == 200  # known until it ends
    guarded.headrace("user", "disable", "job@example.org")
    wait_until(lambda: guarded.status("GET", SEARCH, token) == 401, "the user is out")


def test_the_audit_log(signing: Signing) -> None:
    signing.be("cy", "ml-admins")
    token = signing.provider.token()
    wait_until(lambda: signing.guarded.status("GET", SEARCH, token) == 200, "the new key is known")
    made = signing.guarded.request("POST", CREATE, token, json={"name": "of cy"}).json()
    assert signing.guarded.status("POST", CREATE, json={"name": "of nobody"}) == 401

    def entries() -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(signing.guarded.headrace("audit", "--json"))
        return found

    last = {"path": CREATE, "status": 401}
    wait_until(lambda: any(last.items() <= entry.items() for entry in entries()), "both are written")
    denied = next(entry for entry in entries() if entry["status"] == 403 and entry["user"] == "ben@example.org")
    assert (denied["method"], denied["path"], denied["via"]) == ("POST", CREATE, "session")
    assert any(entry["path"] == CALLBACK and entry["user"] == "ada@example.org" for entry in entries())
    ours = next(entry for entry in entries() if entry["user"] == "cy@example.org")
    assert (ours["via"], ours["address"], ours["status"]) == ("JWT", "127.0.0.1", 200)
    assert ours["objects"] == {"name": "of cy", "experiment_id": made["experiment_id"]}
    assert "of cy" in signing.guarded.headrace("audit", "--since", "1h")
    lines = [line for line in signing.guarded.server.process.tail(100_000).splitlines() if line.startswith('{"audit"')]
    assert any(json.loads(line)["user"] == "cy@example.org" for line in lines)
    log = signing.guarded.server.process.tail(100_000)
    assert SECRET not in log
    assert token not in log
