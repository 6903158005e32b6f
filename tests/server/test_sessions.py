"""Browsers: the sign-in page, sessions and how they end, a user's tokens, and what MLflow's UI asks about its user."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from headrace.auth import sessions
from tests.server.guarded import ADMIN_TOKEN, PASSWORD, Guarded, start_guarded
from tests.support.databases import Databases
from tests.support.processes import wait_until
from tests.support.servers import start_headrace

SEARCH = "/ajax-api/2.0/mlflow/experiments/search?max_results=5"
CREATE = "/ajax-api/2.0/mlflow/experiments/create"
CURRENT = "/ajax-api/2.0/mlflow/users/current"
SIGN_IN, SIGN_OUT, TOKENS = "/headrace/sign-in", "/headrace/sign-out", "/headrace/tokens"
PAGE = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def guarded(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    users = {"ada": "editor", "eve": "viewer", "out": "viewer"}
    folder = tmp_path_factory.mktemp("sessions")
    options = ("--stock", "lazy", "--trusted-proxies", "127.0.0.1")
    found = start_guarded(databases.migrated("sqlite"), folder, *options, users=users)
    yield found
    found.server.stop()


def signed_in(guarded: Guarded, name: str = "ada") -> requests.Session:
    browser = requests.Session()
    browser.headers["Sec-Fetch-Site"] = "same-origin"  # as browsers say of a page's own requests
    answer = browser.post(
        guarded.server.url + SIGN_IN, data={"name": name, "password": PASSWORD}, allow_redirects=False, timeout=60
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    return browser


def code_of(page: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', page)
    assert found is not None
    return found[1]


def test_a_browser_is_sent_to_the_sign_in_page_and_back(guarded: Guarded) -> None:
    answer = guarded.request("GET", "/?a=b&c", headers=PAGE, allow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"{SIGN_IN}?next=%2F%3Fa%3Db%26c"
    page = guarded.request("GET", answer.headers["Location"])
    assert (page.status_code, "default-src 'none'" in page.headers["Content-Security-Policy"]) == (200, True)
    login = {"name": "ada", "password": PASSWORD}
    back = guarded.request("POST", answer.headers["Location"], data=login, allow_redirects=False)
    assert back.headers["Location"] == "/?a=b&c"
    assert guarded.request("GET", "/headrace/style.css").status_code == 200


@pytest.mark.parametrize("path", ["/", "/?a=b", SIGN_IN, "/headrace/style.css", TOKENS, "/headrace/state", CURRENT])
def test_head_is_get_without_the_body(guarded: Guarded, path: str) -> None:
    for browser in (requests.Session(), signed_in(guarded)):
        got, head = (
            browser.request(method, guarded.server.url + path, headers=PAGE, allow_redirects=False, timeout=60)
            for method in ("GET", "HEAD")
        )
        assert (head.status_code, head.content) == (got.status_code, b"")
        for name in ("Location", "Content-Type", "Content-Security-Policy", "Cache-Control"):
            assert head.headers.get(name) == got.headers.get(name), name


@pytest.mark.parametrize(
    "elsewhere",
    ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/a\r\nX: y", "", "/a\\b"],
)
def test_next_leads_nowhere_else(guarded: Guarded, elsewhere: str) -> None:
    answer = requests.post(
        guarded.server.url + SIGN_IN,
        params={"next": elsewhere},
        data={"name": "ada", "password": PASSWORD},
        allow_redirects=False,
        timeout=60,
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_the_cookie(guarded: Guarded) -> None:
    login = {"name": "ada", "password": PASSWORD}
    for proto, secure in ((None, False), ("https", True), ("https, http", True), ("http, https", False)):
        headers = {"X-Forwarded-Proto": proto} if proto else {}
        answer = guarded.request("POST", SIGN_IN, data=login, headers=headers, allow_redirects=False)
        (cookie,) = (text for text in answer.raw.headers.getlist("set-cookie") if text.startswith(sessions.COOKIE))
        assert "; HttpOnly" in cookie
        assert "; SameSite=Lax" in cookie
        assert ("; Secure" in cookie) is secure


def test_a_proxy_that_strips_a_path(guarded: Guarded) -> None:
    """Redirects, links and cookies are where the browser is."""
    below = {"X-Forwarded-Prefix": "/team"}
    away = guarded.request("GET", "/", headers=PAGE | below, allow_redirects=False)
    assert away.headers["Location"] == f"/team{SIGN_IN}?next=%2Fteam%2F"
    assert 'href="/team/headrace/style.css"' in guarded.request("GET", SIGN_IN, headers=below).text
    login = {"name": "ada", "password": PASSWORD}
    back = guarded.request("POST", SIGN_IN, data=login, headers=below, allow_redirects=False)
    assert back.headers["Location"] == "/team/"
    cookies = back.raw.headers.getlist("set-cookie")
    assert all("; Path=/team;" in cookie for cookie in cookies)
    session = below | {"Cookie": cookies[0].partition(";")[0], "Sec-Fetch-Site": "same-origin"}
    page = guarded.request("GET", TOKENS, headers=session)
    assert 'action="/team/headrace/sign-out"' in page.text
    form = {"csrf": code_of(page.text)}
    out = guarded.request("POST", SIGN_OUT, data=form, headers=session, allow_redirects=False)
    assert out.headers["Location"] == f"/team{SIGN_IN}"


def test_a_session_reads_and_writes(guarded: Guarded) -> None:
    browser = signed_in(guarded)
    assert browser.get(guarded.server.url + SEARCH, timeout=60).status_code == 200
    url = guarded.server.url + CREATE
    assert browser.post(url, json={"name": "by a session"}, timeout=60).status_code == 200
    own = {"Origin": guarded.server.url, "Sec-Fetch-Site": "same-origin"}
    assert browser.post(url, json={"name": "by a browser"}, headers=own, timeout=60).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"}]
)  # fmt: skip
def test_another_site_can_not_use_a_session(guarded: Guarded, headers: dict[str, str]) -> None:
    browser = signed_in(guarded)
    for path in (CREATE, SIGN_OUT, TOKENS):
        answer = browser.post(guarded.server.url + path, json={"name": "not this"}, headers=headers, timeout=60)
        assert answer.status_code == 403
    login = {"name": "ada", "password": PASSWORD}
    assert guarded.status("POST", SIGN_IN, data=login, headers=headers, allow_redirects=False) == 403


@pytest.mark.parametrize("port", [1, 8888])
def test_a_page_on_another_port_does_not_read_with_a_session(guarded: Guarded, port: int) -> None:
    """For a browser it is the same site, whose cookies it sends."""
    browser = signed_in(guarded)
    url, origin = guarded.server.url + SEARCH, f"http://127.0.0.1:{port}"
    for headers in ({"Sec-Fetch-Site": "same-site"}, {"Origin": origin, "Sec-Fetch-Site": "same-site"}):
        for mode in ("cors", "no-cors"):
            assert browser.get(url, headers=headers | {"Sec-Fetch-Mode": mode}, timeout=60).status_code == 403
    old = requests.get(url, cookies=browser.cookies, headers={"Origin": origin}, timeout=60)
    assert old.status_code == 403
    # a link leads here all the same, and a program needs no cookie
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert browser.get(url, headers=link, timeout=60).status_code == 200
    assert guarded.status("GET", SEARCH, ADMIN_TOKEN, headers={"Origin": origin}) == 200


def test_a_token_in_the_cookie_is_no_session(guarded: Guarded) -> None:
    assert guarded.status("GET", SEARCH, ADMIN_TOKEN) == 200
    cookie = {"Cookie": f"{sessions.COOKIE}=Bearer {ADMIN_TOKEN}"}
    assert guarded.status("GET", SEARCH, headers=cookie) == 401
    assert guarded.status("POST", CREATE, headers=cookie, json={"name": "by a cookie"}) == 401


def test_the_database_is_its_owners(guarded: Guarded) -> None:
    database = guarded.database.uri.removeprefix("sqlite:///")
    for path in (database, database + "-wal", database + "-shm"):
        assert Path(path).stat().st_mode & 0o077 == 0


def test_a_session_ends_at_sign_out_for_whoever_has_its_cookie(guarded: Guarded) -> None:
    browser = signed_in(guarded)
    stolen = browser.cookies[sessions.COOKIE]
    page = browser.get(guarded.server.url + TOKENS, timeout=60).text
    assert browser.post(guarded.server.url + SIGN_OUT, data={"csrf": "0" * 64}, timeout=60).status_code == 403
    browser.post(guarded.server.url + SIGN_OUT, data={"csrf": code_of(page)}, timeout=60)
    assert sessions.COOKIE not in browser.cookies
    assert requests.get(guarded.server.url + SEARCH, cookies={sessions.COOKIE: stolen}, timeout=60).status_code == 401


def test_the_uis_logout_ends_the_session(guarded: Guarded) -> None:
    browser = signed_in(guarded)
    by_browser = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    url = guarded.server.url + CURRENT
    answer = browser.get(url, headers=by_browser | {"X-Headrace-UI": "1"}, timeout=60)
    assert answer.json()["user"]["username"] == "ada"
    assert browser.cookies["mlflow-request-header-X-Headrace-UI"] == "1"
    asked = browser.get(url, headers=by_browser, timeout=60)
    assert (asked.status_code, asked.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    made_up = "mlflow-logged-out-abc"
    login = "Basic " + base64.b64encode(f"{made_up}:{made_up}".encode()).decode()
    browser.get(url, headers=by_browser | {"Authorization": login}, timeout=60)
    gone = browser.get(guarded.server.url + SEARCH, timeout=60)
    assert (gone.status_code, "In a browser, sign in" in gone.json()["message"]) == (401, True)  # the UI shows it


def link_of(guarded: Guarded, name: str) -> str:
    link = guarded.headrace("user", "link", name, "--url", guarded.server.url)
    assert link.startswith(f"{guarded.server.url}{SIGN_IN}?link=")
    return link


def test_a_link_signs_in_once(guarded: Guarded) -> None:
    link = link_of(guarded, "eve")
    for _ in range(2):  # looking at it uses nothing up
        page = requests.get(link, timeout=60)
        assert (page.status_code, "signs you in as <b>eve</b>" in page.text) == (200, True)
        assert "headrace_session" not in page.headers.get("set-cookie", "")
    browser = requests.Session()
    browser.headers["Sec-Fetch-Site"] = "same-origin"
    form = {"link": "1", "password": ""}
    other_site = {"Sec-Fetch-Site": "cross-site"}
    assert requests.post(link, data=form, headers=other_site, timeout=60).status_code == 403
    answer = browser.post(link, data=form, allow_redirects=False, timeout=60)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    who = browser.get(guarded.server.url + CURRENT, headers={"X-Headrace-UI": "1"}, timeout=60).json()
    assert who["user"]["username"] == "eve"
    for again in (requests.get(link, timeout=60), requests.post(link, data=form, timeout=60)):
        assert (again.status_code, "used already" in again.text) == (401, True)


def test_a_link_is_for_a_password_that_was_forgotten(guarded: Guarded) -> None:
    link, other = link_of(guarded, "eve"), link_of(guarded, "eve")
    short = requests.post(link, data={"link": "1", "password": "short"}, timeout=60)
    assert (short.status_code, "12 characters or more" in short.text) == (400, True)
    new = {"link": "1", "password": "a quite new password"}
    assert requests.post(link, data=new, allow_redirects=False, timeout=60).status_code == 303
    assert guarded.status("GET", SEARCH, auth=("eve", "a quite new password")) == 200
    assert guarded.status("GET", SEARCH, auth=("eve", PASSWORD)) == 401
    assert requests.post(other, data=new, timeout=60).status_code == 401  # a new password ends what was before
    guarded.headrace("user", "password", "eve", stdin=PASSWORD)


def test_links_that_nobody_made(guarded: Guarded) -> None:
    (row,) = guarded.database.query("SELECT value FROM headrace_state WHERE name = 'secret'")
    secret, now, hour = bytes.fromhex(row["value"]), int(time.time() * 1000), 3_600_000
    good = sessions.Session("of a test", "eve", now, now + hour)
    bad = [
        sessions.seal(good, secret),  # a session is no link
        sessions.seal(good, b"another secret", "link"),
        sessions.seal(sessions.Session("2", "eve", now - 2 * hour, now - hour), secret, "link"),
        sessions.seal(sessions.Session("3", "nobody", now, now + hour), secret, "link"),
        "", ".", "a.b", "%C3%A9",
    ]  # fmt: skip
    for each in bad:
        for method in ("GET", "POST"):
            answer = guarded.request(method, f"{SIGN_IN}?link={each}", data={"link": "1"} if method == "POST" else None)
            assert "used already" in answer.text or each == "", each
            assert answer.status_code == (401 if each or method == "POST" else 200)
    link = sessions.seal(good, secret, "link")
    assert guarded.status("GET", SEARCH, cookies={sessions.COOKIE: link}) == 401  # and a link is no session


def test_the_first_administrator_signs_in_with_a_browser(databases: Databases, tmp_path: Path) -> None:
    server = start_headrace(databases.migrated("sqlite"), tmp_path, "--auth", "--stock", "lazy", until="/health")
    try:
        log = server.process.log.read_text()
        link = re.search(r"http://\S+/headrace/sign-in\?link=\S+", log)
        token = re.search(r"MLFLOW_TRACKING_TOKEN=(hr_[\w-]+)", log)
        assert link is not None
        assert token is not None
        browser = requests.Session()
        answer = browser.post(link[0], data={"link": "1"}, allow_redirects=False, timeout=60)
        assert answer.status_code == 303
        assert browser.get(server.url + TOKENS, timeout=60).status_code == 200
        login = {"name": "admin", "password": token[1]}
        refused = requests.post(server.url + SIGN_IN, data=login, timeout=60)
        assert (refused.status_code, "headrace user link" in refused.text) == (401, True)
    finally:
        server.stop()


def test_a_session_is_new_at_each_sign_in(guarded: Guarded) -> None:
    fixed, own = {sessions.COOKIE: "chosen-by-another"}, {"Sec-Fetch-Site": "same-origin"}
    login = {"name": "ada", "password": PASSWORD}
    made = []
    for _ in range(2):
        answer = guarded.request("POST", SIGN_IN, data=login, cookies=fixed, headers=own, allow_redirects=False)
        made.append(answer.cookies[sessions.COOKIE])
    assert len({*made, "chosen-by-another"}) == 3


def test_forged_and_expired_sessions(guarded: Guarded) -> None:
    (row,) = guarded.database.query("SELECT value FROM headrace_state WHERE name = 'secret'")
    secret, now = bytes.fromhex(row["value"]), int(time.time() * 1000)
    hour = 3_600_000
    good = sessions.Session("1", "ada", now, now + hour)
    value = sessions.seal(good, secret)
    flipped = value[:-2] + ("A" if value[-2] != "A" else "B") + value[-1]
    other = sessions.seal(sessions.Session("1", "root", now, now + hour), secret)
    payload = other.partition(".")[0]
    bad = [
        sessions.seal(good, b"another secret"),
        flipped,
        f"{payload}.{value.partition('.')[2]}",
        other,  # signed, but of nobody
        sessions.seal(sessions.Session("1", "ada", now - 2 * hour, now - hour), secret),
        sessions.seal(sessions.Session("1", "ada", now + hour, now + 2 * hour), secret),
        "", ".", "a.b", "é",
    ]  # fmt: skip
    for each in bad:
        header = {"Cookie": f"{sessions.COOKIE}={each}".encode()}
        assert guarded.status("GET", SEARCH, headers=header) == 401, each
    assert guarded.status("GET", SEARCH, cookies={sessions.COOKIE: value}) == 200


def test_a_new_password_ends_sessions(guarded: Guarded) -> None:
    browser = signed_in(guarded, "out")
    assert browser.get(guarded.server.url + SEARCH, timeout=60).status_code == 200
    guarded.headrace("user", "password", "out", stdin="another fine password")
    wait_until(lambda: browser.get(guarded.server.url + SEARCH, timeout=60).status_code == 401, "the session has ended")


def test_a_users_tokens(guarded: Guarded) -> None:
    browser = signed_in(guarded)
    url = guarded.server.url + TOKENS
    code = code_of(browser.get(url, timeout=60).text)
    form = {"csrf": code, "action": "create", "name": "<b>laptop</b>", "role": "viewer", "days": "30"}
    page = browser.post(url, data=form, timeout=60).text
    found = re.search(r"MLFLOW_TRACKING_TOKEN=(hr_[\w-]+)", page)
    assert found is not None
    assert "&lt;b&gt;laptop" in page
    assert "<b>laptop" not in page
    token = found[1]
    assert token not in browser.get(url, timeout=60).text
    assert guarded.status("GET", SEARCH, token) == 200
    assert guarded.status("POST", CREATE, token, json={"name": "no"}) == 403
    assert guarded.status("GET", TOKENS, token) == 403  # a token makes no tokens
    (token_id,) = re.findall(r'name="id" value="(\w+)"', browser.get(url, timeout=60).text)
    other = signed_in(guarded, "eve")
    code_of_other = code_of(other.get(url, timeout=60).text)
    other.post(url, data={"csrf": code_of_other, "action": "revoke", "id": token_id}, timeout=60)
    assert guarded.status("GET", SEARCH, token) == 200
    assert other.post(url, data={**form, "csrf": code_of_other, "role": "admin"}, timeout=60).status_code == 400
    assert other.post(url, data=form, timeout=60).status_code == 403
    browser.post(url, data={"csrf": code, "action": "revoke", "id": token_id}, timeout=60)
    wait_until(lambda: guarded.status("GET", SEARCH, token) == 401, "the token is revoked")


def test_the_ui_learns_who_is_there(guarded: Guarded) -> None:
    answer = guarded.request("GET", CURRENT, ADMIN_TOKEN).json()
    assert answer == {"user": {"id": 0, "username": "admin", "is_admin": False}, "is_basic_auth": False}
    assert guarded.status("GET", CURRENT) == 401
    path = "/ajax-api/3.0/mlflow/users/current/permissions"
    for name, permission in (("ada", "MANAGE"), ("eve", "READ")):
        team = {"X-MLFLOW-WORKSPACE": "team"}
        permissions = signed_in(guarded, name).get(guarded.server.url + path, headers=team, timeout=60).json()
        [row] = permissions["permissions"]
        asked = row["resource_type"], row["resource_pattern"], row["permission"], row["workspace"]
        assert (permissions["is_admin"], asked) == (False, ("experiment", "*", permission, "team"))
    assert guarded.request("GET", path, ADMIN_TOKEN).json()["is_admin"] is True


def test_the_ui_offers_reviewers(guarded: Guarded) -> None:
    """Who may sign in, by name, to who may make a review queue."""
    guarded.headrace("user", "add", "gone", "--role", "viewer", stdin=PASSWORD)
    guarded.headrace("user", "disable", "gone")
    url = f"{guarded.server.url}/ajax-api/2.0/mlflow/users/list"
    users = signed_in(guarded).get(url, timeout=60).json()["users"]
    names = [user["username"] for user in users]
    assert {"ada", "eve"} <= set(names) - {"gone"} == set(names)
    assert len({user["id"] for user in users}) == len(names)
    assert all(user.keys() == {"id", "username", "is_admin", "roles"} for user in users)
    assert signed_in(guarded, "eve").get(url, timeout=60).status_code == 403


def test_a_wrong_user_takes_as_long_as_a_wrong_password(guarded: Guarded) -> None:
    """Of each kind the quickest of a few, in turns: others on the machine only add to that. A missing hash would make
    it 20 times.
    """
    seconds: dict[str, list[float]] = {"eve": [], "nobody": []}
    for turn in range(4):
        for name in seconds:
            given = name if name == "eve" else f"{name}{turn}"
            elsewhere = {"X-Forwarded-For": f"203.0.113.{turn}"}  # no address has to wait
            began = time.monotonic()
            login = {"name": given, "password": "wrong"}
            assert guarded.status("POST", SIGN_IN, data=login, headers=elsewhere) == 401
            seconds[name].append(time.monotonic() - began)
    assert 1 / 5 < min(seconds["eve"]) / min(seconds["nobody"]) < 5, seconds


def test_failed_logins_are_slowed(guarded: Guarded) -> None:
    def attempt(name: str, password: str = "wrong") -> requests.Response:
        return guarded.request("POST", SIGN_IN, data={"name": name, "password": password}, allow_redirects=False)

    assert attempt("victim").status_code == 401
    refused = next(answer for answer in (attempt("victim") for _ in range(15)) if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert attempt("ada", PASSWORD).status_code == 303  # another user is not slowed by that


def test_our_own_pages_ask_who_is_there(guarded: Guarded) -> None:
    page = "/headrace/best-values?experiment_id=0"
    for path in (page, "/headrace/"):
        assert guarded.status("GET", path) == 401
        asked = guarded.request("GET", path, headers={"Accept": "text/html"}, allow_redirects=False)
        assert (asked.status_code, "/headrace/sign-in?next=" in asked.headers["location"]) == (303, True)
        assert guarded.status("GET", path, ADMIN_TOKEN) == 200
    assert guarded.status("GET", "/headrace/style.css") == 200
    shown = guarded.request("GET", page, ADMIN_TOKEN)
    assert "Best values of Default" in shown.text
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert shown.headers["x-frame-options"] == "DENY"  # once, and not what MLflow's pages have
