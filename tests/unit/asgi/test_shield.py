"""Hosts, origins, proxies and features that are off, in front of an application that says what it got."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec
import pytest

from headrace.asgi.shield import FEATURES, Feature, Shield
from headrace.asgi.types import PREFIX
from headrace.settings import Settings

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
EVIL = {"origin": "https://evil.example"}
WRITE = "/api/2.0/mlflow/experiments/create"


async def ask(
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    client: str = "192.0.2.1",
    again: tuple[tuple[str, str], ...] = (),
    **settings: Any,
) -> tuple[int, dict[str, Any]]:
    """The status, and what the application behind got (or what was answered instead)."""
    got: dict[str, Any] = {}

    async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        got.update(client=scope["client"][0], scheme=scope["scheme"], prefix=scope.get(PREFIX, ""))
        got["headers"] = {name.decode(): value.decode() for name, value in scope["headers"]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("the body is not looked at")

    given = {"host": "localhost:5000"} | dict(headers or {})
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": "http",
        "client": (client, 1234),
        "headers": [(name.encode(), value.encode()) for name, value in (*given.items(), *again)],
    }
    await Shield(application, msgspec.structs.replace(Settings(), **settings))(scope, receive, send)
    got.setdefault("body", sent[1]["body"])
    got["answered"] = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], got


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:5000", 200), ("127.0.0.1", 200), ("10.1.2.3:5000", 200), ("[::1]:5000", 200),
        ("evil.example", 403), ("localhost.evil.example", 403), ("", 403), ("xlocalhost:5000", 403),
    ],
)  # fmt: skip
async def test_hosts(host: str, status: int) -> None:
    assert (await ask("GET", "/", {"host": host}))[0] == status
    assert (await ask("GET", "/health", {"host": host}))[0] == 200
    assert (await ask("GET", "/", {"host": host}, disable_security_middleware=True))[0] == 200


# Names that somebody owns, and lets lead to an address of this network.
REBOUND = (
    *("10.evil.example", "10.1.2.3.evil.example", "192.168.1.1.evil.example", "172.16.evil.example", "10.1.2", "10."),
    *("fc00.evil.example", "127.0.0.1.evil.example", "0.0.0.0.evil.example", "10.0.0.1x", "[fc00::1].evil.example"),
    *("8.8.8.8", "[2001:db8::1]", "172.32.0.1", "192.169.0.1", "[::ffff:8.8.8.8]", "010.0.0.1"),
)


@pytest.mark.parametrize("host", REBOUND)
async def test_a_name_is_no_address(host: str) -> None:
    for port in ("", ":5000"):
        for method in ("GET", "POST", "OPTIONS"):
            assert (await ask(method, WRITE, {"host": host + port}))[0] == 403
    own = {"host": host, "origin": "http://" + host}
    assert (await ask("POST", WRITE, own))[0] == 403


@pytest.mark.parametrize("host", ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1", "[fc00::1]", "[fd12::1]"])
async def test_private_addresses(host: str) -> None:
    for port in ("", ":5000"):
        assert (await ask("GET", "/", {"host": host + port}))[0] == 200


async def test_a_pattern_of_addresses_names_no_names() -> None:
    for host, status in (("10.1.2.3:5000", 200), ("10.2.0.1", 403), ("10.1.evil.example", 403), ("10.1.2", 403)):
        assert (await ask("GET", "/", {"host": host}, allowed_hosts="10.1.*"))[0] == status
    for pattern in ("10.0.0.1*", "10*", "1?.0.0.*", "10.0.[0-9]*", "10.0.0.1*:*"):
        for host, status in (("10.0.0.1:80", 200), ("10.0.0.1.evil.example:80", 403), ("10.0.0.evil.example:80", 403)):
            assert (await ask("GET", "/", {"host": host}, allowed_hosts=pattern))[0] == status
            page = {"host": "localhost", "origin": f"http://{host}"}
            assert (await ask("POST", WRITE, page, cors_allowed_origins=f"http://{pattern}"))[0] == status
    for host, status in (("7.example", 200), ("7.example.com:80", 200), ("7.2.3.4", 403)):
        assert (await ask("GET", "/", {"host": host}, allowed_hosts="7.exa*"))[0] == status


async def test_preflights_are_answered_here() -> None:
    """Their body is not looked at, whatever its size: `receive` fails."""
    question = {"access-control-request-method": "POST", "access-control-request-headers": "x-a, content-type"}
    status, got = await ask("OPTIONS", WRITE, {"origin": "http://localhost:8888", **question})
    assert (status, got["body"], "headers" in got) == (200, b"OK", False)
    answered = got["answered"]
    assert answered["access-control-allow-origin"] == "http://localhost:8888"
    assert answered["access-control-allow-headers"] == "x-a, content-type"
    assert answered["access-control-allow-credentials"] == "true"
    status, got = await ask("OPTIONS", WRITE, EVIL | question)
    assert (status, got["body"]) == (400, b"Disallowed CORS origin")
    assert "access-control-allow-origin" not in got["answered"]
    status, got = await ask("OPTIONS", WRITE, EVIL | question, cors_allowed_origins="*")
    assert (status, got["answered"]["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in got["answered"]
    odd = {"origin": "http://localhost", "access-control-request-method": "BREW"}
    assert (await ask("OPTIONS", WRITE, odd))[1]["body"] == b"Disallowed CORS method"
    assert "headers" in (await ask("OPTIONS", WRITE, EVIL))[1]  # no preflight
    assert "headers" in (await ask("OPTIONS", WRITE, EVIL | question, disable_security_middleware=True))[1]


async def test_named_hosts() -> None:
    for host, status in (("mlflow.example", 200), ("a.mlflow.example", 200), ("localhost", 403)):
        answer = await ask("GET", "/", {"host": host}, allowed_hosts="mlflow.example, *.mlflow.example")
        assert answer[0] == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("mlflow.example", 200), ("mlflow.example:5000", 200), ("a.svc.local:4318", 200), ("[fd00::1]:80", 200),
        ("fixed.example:80", 200), ("fixed.example", 403), ("fixed.example:81", 403),
        ("mlflow.example.evil", 403), ("mlflow.example.evil:5000", 403), ("xmlflow.example:5000", 403),
        ("f:80", 403), ("evil.example:5000", 403),
    ],
)  # fmt: skip
async def test_a_name_without_a_port_means_every_port(host: str, status: int) -> None:
    allowed = "mlflow.example,*.svc.local,[fd00::1],fixed.example:80"
    assert (await ask("GET", "/", {"host": host}, allowed_hosts=allowed))[0] == status


@pytest.mark.parametrize("path", [WRITE, "/graphql", "/v1/traces", "/headrace/sign-in", "/no/such/path"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_another_sites_page_changes_nothing(method: str, path: str) -> None:
    for headers in (EVIL, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        status, got = await ask(method, path, headers)
        assert (status, got["body"]) == (403, b"Cross-origin request blocked")
    assert (await ask("GET", path, EVIL))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8888"},
        {"origin": "https://127.0.0.1"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"cookie": "a=b", **JSON},
        FORM,  # curl --data
    ],
)
async def test_who_may_change_something(headers: dict[str, str]) -> None:
    assert (await ask("POST", WRITE, headers))[0] == 200


async def test_a_browser_that_does_not_say_where_it_comes_from_sends_json() -> None:
    assert (await ask("POST", WRITE, {"cookie": "a=b", **FORM}))[0] == 403
    assert (await ask("POST", WRITE, {"cookie": "a=b"}))[0] == 403


async def test_our_own_page_by_an_allowed_name() -> None:
    """Stock would refuse it, so it does not see the header."""
    own = {"host": "mlflow.example", "origin": "https://mlflow.example"}
    status, got = await ask("POST", WRITE, own, allowed_hosts="mlflow.example")
    assert (status, "origin" in got["headers"]) == (200, False)
    assert (await ask("POST", WRITE, own | EVIL, allowed_hosts="mlflow.example"))[0] == 403
    # where any host may be named, only a session tells whose page it is
    assert (await ask("POST", WRITE, own, allowed_hosts="*"))[0] == 403
    assert (await ask("POST", WRITE, own, allowed_hosts="*", auth=True))[0] == 200


async def test_origins_that_are_allowed() -> None:
    allowed = "https://app.example,https://*.apps.example"
    for origin, status in (
        ("https://app.example", 200),
        ("https://one.apps.example", 200),
        ("http://app.example", 403),
    ):
        assert (await ask("POST", WRITE, {"origin": origin}, cors_allowed_origins=allowed))[0] == status
    assert (await ask("POST", WRITE, EVIL, cors_allowed_origins="*"))[0] == 200


@pytest.mark.parametrize(
    ("setting", "method", "path", "reading"),
    [
        ("enable_webhooks", "POST", "/api/2.0/mlflow/webhooks", 200),
        ("enable_webhooks", "PATCH", "/ajax-api/2.0/mlflow/webhooks/1", 200),
        ("enable_webhooks", "POST", "/api/2.0/mlflow/webhooks/1/test", 200),
        ("enable_assistant", "POST", "/ajax-api/3.0/mlflow/assistant/message", 403),
        ("enable_ai_gateway", "POST", "/gateway/chat/mlflow/invocations", 403),
        ("enable_jobs", "POST", "/ajax-api/3.0/mlflow/scorer/invoke", 200),
        ("enable_jobs", "POST", "/ajax-api/3.0/mlflow/issues/invoke", 200),
        ("enable_jobs", "POST", "/ajax-api/3.0/mlflow/genai/evaluate/invoke", 200),
        ("enable_jobs", "POST", "/ajax-api/3.0/mlflow/prompt-optimization/jobs", 200),
        ("enable_jobs", "POST", "/ajax-api/3.0/jobs/", 200),
    ],
)
async def test_features_that_are_off(setting: str, method: str, path: str, reading: int) -> None:
    status, got = await ask(method, path)
    assert status == 403
    assert "--" + setting.replace("_", "-") in msgspec.json.decode(got["body"])["message"]
    assert (await ask(method, "/prefix" + path, static_prefix="/prefix"))[0] == 403
    assert (await ask(method, path, disable_security_middleware=True))[0] == 403
    assert (await ask("GET", path))[0] == reading
    turned_on: dict[str, Any] = {setting: True}
    assert (await ask(method, path, **turned_on))[0] == 200


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.setting)
async def test_the_ui_is_told_that_there_is_nothing(feature: Feature) -> None:
    """Of a feature that is off: in an answer of the shield's own, to exactly these requests."""
    turned_on: dict[str, Any] = {feature.setting: True}
    for path, answer in feature.nothing.items():
        for prefix in ("", "/prefix"):
            status, got = await ask("GET", f"{prefix}/ajax-api/{path}", static_prefix=prefix)
            assert (status, got["body"], "headers" in got) == (200, answer, False)
        assert "headers" in (await ask("GET", f"/ajax-api/{path}", **turned_on))[1]
        assert (await ask("GET", f"/ajax-api/{path}", {"host": "evil.example"}))[0] == 403
    _, of_prompts = await ask("GET", "/ajax-api/3.0/mlflow/gateway/supported-providers")
    assert of_prompts["body"] == b'{"providers":[]}'
    assert (await ask("GET", "/ajax-api/3.0/mlflow/assistant/config/"))[0] == 403
    assert (await ask("PUT", "/ajax-api/3.0/mlflow/assistant/config"))[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "//api/2.0/mlflow/webhooks",
        "/api//2.0/mlflow///webhooks",
        "/api/2.0/mlflow/webhooks\n",
        "/api/2.0/mlflow/webhooks/\n",
        "/api/2.0/mlflow/webhooks/1\n/test",
        "/api/2.0/mlflow/webhooks/",
        "/api/2.0/preview/mlflow/webhooks",
        "/api/2.0/mlflow/Webhooks",
        "//ajax-api/3.0/mlflow/assistant/message",
        "/ajax-api/3.0/mlflow/assistant\n",
        "//gateway/chat",
        "/gateway/a\nb",
        "/gateway\n",
    ],
)
async def test_no_letters_turn_them_on(path: str) -> None:
    for prefix in ("", "/prefix", "//prefix", "/prefix/"):
        assert (await ask("POST", prefix + path, static_prefix=prefix.strip("/") and "/prefix"))[0] == 403
    for near in ("/api/2.0/mlflow/webhooks-of-mine", "/gateway.html", "/api/2.0/mlflow/experiments/webhooks"):
        assert (await ask("POST", near))[0] == 200


@pytest.mark.parametrize("name", ["host", "origin", "sec-fetch-site", "content-type"])
async def test_what_decides_is_said_once(name: str) -> None:
    """Who reads the request behind may go by the other one."""
    values = {"host": "localhost:5000", "origin": "http://localhost", "sec-fetch-site": "same-origin"} | JSON
    good = {name: values[name]}
    for other in ("evil.example", ""):
        assert (await ask("POST", WRITE, good, again=((name, other),)))[0] == 400
        assert (await ask("POST", WRITE, {name: other}, again=tuple(good.items())))[0] == 400
    assert (await ask("POST", WRITE, good, again=tuple(good.items())))[0] == 200
    assert (await ask("POST", WRITE, {"cookie": "a=b"} | JSON, again=(("cookie", "c=d"),)))[0] == 200


async def test_only_trusted_proxies_speak_for_others() -> None:
    forwarded = {"x-forwarded-for": "203.0.113.9, 198.51.100.7, 10.0.0.2", "x-forwarded-proto": "https"}
    forwarded["x-forwarded-prefix"] = "/team"
    _, got = await ask("GET", "/", forwarded, client="10.0.0.1", trusted_proxies="10.0.0.0/24")
    assert (got["client"], got["scheme"], got["prefix"]) == ("198.51.100.7", "https", "/team")
    for client, proxies in (("10.0.1.1", "10.0.0.0/24"), ("10.0.0.1", "")):
        _, got = await ask("GET", "/", forwarded, client=client, trusted_proxies=proxies)
        assert (got["client"], got["scheme"], got["prefix"]) == (client, "http", "")
        assert not forwarded.keys() & got["headers"].keys()


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711, 10.0.0.2:80", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9,::ffff:10.0.0.2", "203.0.113.9"),
        ("fe80::1%25eth0", "fe80::1"),
    ],
)
async def test_a_proxy_writes_an_address_as_it_likes(said: str, client: str) -> None:
    _, got = await ask("GET", "/", {"x-forwarded-for": said}, client="10.0.0.1", trusted_proxies="10.0.0.0/24")
    assert got["client"] == client


@pytest.mark.parametrize("text", ["", "x", "1.2.3.4.5", "203.0.113.9, x", "1.2.3.4:x", "[::1", "[]:1", "1.2.3.4:1:1"])
async def test_a_proxy_that_makes_no_sense_speaks_for_itself(text: str) -> None:
    _, got = await ask("GET", "/", {"x-forwarded-for": text}, client="10.0.0.1", trusted_proxies="10.0.0.1/32")
    assert got["client"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        (("https",), "https"),
        (("HTTPS",), "https"),
        (("https, http",), "https"),
        (("https,https",), "https"),
        (("http, https",), "http"),
        (("https", "http"), "https"),
        (("ftp",), "http"),
        (("", "https"), "http"),
    ],
)
async def test_the_browsers_scheme_is_what_the_first_proxy_says(said: tuple[str, ...], scheme: str) -> None:
    first, *more = said
    again = tuple(("x-forwarded-proto", each) for each in more)
    options: dict[str, Any] = {"client": "10.0.0.1", "trusted_proxies": "10.0.0.1/32"}
    _, got = await ask("GET", "/", {"x-forwarded-proto": first}, again=again, **options)
    assert got["scheme"] == scheme


@pytest.mark.parametrize(
    ("said", "prefix"),
    [
        ("/a/", "/a"),
        ("/a, /b.c-d_e~1", "/a/b.c-d_e~1"),
        ("/user/ada@example.com/proxy/5000:1", "/user/ada@example.com/proxy/5000:1"),
        ("/user/ada%40example.com+1", "/user/ada%40example.com+1"),
        ("/", ""),
        ("//evil.example", ""),
        ("/a//b", ""),
        ("https://evil.example", ""),
        ("/a?b", ""),
        ("/a;Domain=x", ""),
        ('/"><script>', ""),
        ("/\u00e9", ""),
        ("/kept", ""),  # that of --static-prefix: the path has it still
    ],
)
async def test_a_prefix_is_a_plain_path(said: str, prefix: str) -> None:
    options: dict[str, Any] = {"client": "10.0.0.1", "trusted_proxies": "10.0.0.1/32", "static_prefix": "/kept"}
    _, got = await ask("GET", "/kept/", {"x-forwarded-prefix": said}, **options)
    assert got["prefix"] == prefix
