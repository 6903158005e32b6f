"""Signing in as a person does: with a password or through a provider, by keyboard, and what MLflow's UI shows of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import AS_IT_COMES, TIMEOUT_MS, Visit
from tests.server.guarded import PASSWORD, Guarded, start_guarded
from tests.support import identity_provider
from tests.support.databases import Databases
from tests.support.identity_provider import AUDIENCE, CLIENT, SECRET, IdentityProvider
from tests.support.processes import free_port, wait_until

expect.set_options(timeout=TIMEOUT_MS)
Screenshot = Callable[[str], None]
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"
CREATE = "/api/2.0/mlflow/experiments/create"
SIGN_IN, TOKENS = "/headrace/sign-in", "/headrace/tokens"


@pytest.fixture(scope="module")
def port() -> int:
    """The provider's; the server needs it only when somebody signs in there."""
    return free_port()


@pytest.fixture(scope="module")
def guarded(
    browser: Browser, port: int, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    options = {
        "--oidc-issuer": f"http://127.0.0.1:{port}",
        "--oidc-client-id": CLIENT,
        "--oidc-audience": AUDIENCE,
        "--oidc-roles": "ml-admins=admin,ml-team=editor",
    }
    guarded = start_guarded(
        databases.migrated("sqlite"),
        tmp_path_factory.mktemp("sign-in"),
        *(text for pair in options.items() for text in pair),
        users={"grace": "editor"},
        env={"HEADRACE_OIDC_CLIENT_SECRET": SECRET} | AS_IT_COMES,
    )
    yield guarded
    guarded.server.stop()


@pytest.fixture(scope="module")
def provider(guarded: Guarded, port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    if (reason := identity_provider.missing()) is not None:
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    provider = IdentityProvider(port, guarded.server.url, tmp_path_factory.mktemp("provider"))
    # where the server has asked in vain a moment ago, it asks again after some seconds
    led = partial(guarded.status, "GET", "/headrace/oidc/login", allow_redirects=False)
    wait_until(lambda: led() in (302, 303, 307), "the server knows the provider")
    yield provider
    provider.stop()


@pytest.fixture
def visit(guarded: Guarded, port: int) -> Visit:
    """A wrong password is refused; the provider's pages ask for fonts of the world; the UI's logout has a made-up user
    in its address.
    """
    others = (f"http://127.0.0.1:{port}/", "https://fonts.googleapis.com/", "http://mlflow-logged-out-")
    return Visit(guarded.server.url, others, ("/users/current", SIGN_IN + "?next=%2F"))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def focused(page: Page) -> str:
    """The name, the label or the text of what has the focus."""
    script = "(e => e.name || e.getAttribute('aria-label') || e.textContent)(document.activeElement)"
    return cast(str, page.evaluate(script)).strip()


def tab_to(page: Page, name: str) -> None:
    """Go there as a keyboard does."""
    for _ in range(30):
        if focused(page) == name:
            return
        press(page, "Tab")
    raise AssertionError(f"no way to {name} by keyboard")


def sign_in(page: Page, guarded: Guarded, path: str = "/") -> None:
    page.goto(guarded.server.url + path)
    page.get_by_label("User name").fill("grace")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: SIGN_IN not in url)


def test_by_keyboard(page: Page, guarded: Guarded, screenshot: Screenshot) -> None:
    """The sign-in page, with a wrong password first; it leads to where one wanted to go."""
    page.set_viewport_size({"width": 800, "height": 560})
    page.goto(guarded.server.url + "/#/experiments")
    expect(page.get_by_label("User name")).to_be_focused()  # with the page's first frame
    page.keyboard.type("grace")
    press(page, "Tab")
    page.keyboard.type("wrong")
    press(page, "Enter")
    expect(page.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    expect(page.get_by_label("User name")).to_have_value("grace")
    expect(page.get_by_label("Password")).to_be_focused()
    screenshot("sign-in-refused")
    page.keyboard.type(PASSWORD)
    tab_to(page, "Sign in")
    press(page, "Enter")
    expect(page.get_by_role("link", name="Default").first).to_be_visible()
    assert page.url == guarded.server.url + "/#/experiments"


def test_light_and_dark(page: Page, guarded: Guarded, screenshot: Screenshot) -> None:
    page.set_viewport_size({"width": 800, "height": 560})
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(guarded.server.url + SIGN_IN)
        expect(page.get_by_role("link", name="single sign-on")).to_be_visible()
        screenshot(f"sign-in-{scheme}")
        # the canvas has the ground of the scheme where the page itself sets none
        style = "getComputedStyle(document.querySelector('{}')).color"
        grounds.append((page.evaluate(style.format("h1")), page.evaluate(style.format("button"))))
    assert all(light != dark for light, dark in zip(*grounds, strict=True)), grounds


def test_tokens_by_keyboard(page: Page, guarded: Guarded, screenshot: Screenshot) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    sign_in(page, guarded, TOKENS)
    tab_to(page, "name")
    page.keyboard.type("laptop")
    press(page, "Tab")
    page.keyboard.type("viewer")
    tab_to(page, "Make a token")
    press(page, "Enter")
    made = page.get_by_role("status").locator("pre")
    expect(made).to_contain_text("MLFLOW_TRACKING_TOKEN=hr_")
    token = made.inner_text().partition("=")[2]
    assert guarded.status("GET", SEARCH, token) == 200
    assert guarded.status("POST", CREATE, token, json={"name": "no"}) == 403
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        screenshot(f"tokens-{scheme}")
    tab_to(page, "Revoke laptop")
    press(page, "Enter")
    expect(page.get_by_text("You have no tokens yet.")).to_be_visible()
    wait_until(lambda: guarded.status("GET", SEARCH, token) == 401, "the token is revoked")
    page.reload()
    tab_to(page, "Sign out")
    press(page, "Enter")
    expect(page.get_by_label("User name")).to_be_visible()
    page.goto(guarded.server.url + TOKENS)
    expect(page.get_by_label("User name")).to_be_visible()


def test_mlflows_ui_shows_who_is_there_and_signs_out(page: Page, guarded: Guarded, screenshot: Screenshot) -> None:
    sign_in(page, guarded)
    page.get_by_text("grace", exact=True).first.click()
    out = page.get_by_text("Log out").or_(page.get_by_text("Logout")).first
    expect(out).to_be_visible()
    screenshot("signed-in")
    out.click()
    expect(page.get_by_label("User name")).to_be_visible()
    page.goto(guarded.server.url + TOKENS)
    expect(page.get_by_label("User name")).to_be_visible()


def test_a_person_of_the_provider(page: Page, guarded: Guarded, provider: IdentityProvider) -> None:
    url = guarded.server.url
    page.goto(url + "/#/experiments")
    page.get_by_role("link", name="single sign-on").click()
    page.get_by_placeholder("Enter any login").fill("ada")
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("link", name="Default").first).to_be_visible()
    expect(page.get_by_text("ada@example.org").first).to_be_visible()
    [user] = guarded.database.query("SELECT name, role FROM headrace_users WHERE name LIKE 'ada%'")
    assert user == {"name": "ada@example.org", "role": "editor"}
    page.goto(url + TOKENS)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Yes").click()
    expect(page.get_by_label("User name")).to_be_visible()
    assert re.match(re.escape(url + SIGN_IN), page.url)
    page.get_by_role("link", name="single sign-on").click()
    expect(page.get_by_placeholder("Enter any login")).to_be_visible()  # there, too


def test_who_has_no_role_is_told_so(page: Page, guarded: Guarded, provider: IdentityProvider, visit: Visit) -> None:
    visit.expected = ("",)  # a 403
    page.goto(guarded.server.url + SIGN_IN)
    page.get_by_role("link", name="single sign-on").click()
    page.get_by_placeholder("Enter any login").fill("eve")
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("is in no group that has a role")).to_be_visible()


def test_machines_with_the_providers_tokens(guarded: Guarded, provider: IdentityProvider) -> None:
    token = provider.machine_token()
    assert guarded.status("POST", CREATE, token, json={"name": "of the trainer"}) == 200
    assert guarded.status("GET", SEARCH, token[:-8] + "AAAAAAAA") == 401
    [user] = guarded.database.query("SELECT role FROM headrace_users WHERE name = 'trainer'")
    assert user == {"role": "editor"}
    before = requests.get(f"{provider.url}/jwks", timeout=60).json()
    provider.rotate()
    assert requests.get(f"{provider.url}/jwks", timeout=60).json() != before
    rotated = provider.machine_token()
    wait_until(lambda: guarded.status("GET", SEARCH, rotated) == 200, "the new key is known")
