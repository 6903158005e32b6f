"""Events: what is sent and how it is signed, where nothing is ever sent, what can be asked for."""

from __future__ import annotations

import json
from typing import Any

import httpcore
import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from headrace.errors import InvalidParameter
from headrace.events import formats
from headrace.events.addresses import PublicOnly, Refused, is_public
from headrace.events.delivery import FIRST_WAIT, LONGEST_WAIT, Sender, Untold, wait_of
from headrace.events.formats import Event
from headrace.events.notes import NOBODY
from headrace.events.subscriptions import ALIAS, KINDS, METRIC, VERSION, Subscription


def subscription(**fields: Any) -> Subscription:
    known: dict[str, Any] = {"id": "1", "name": "n", "format": "webhook", "kinds": (VERSION,), "created_at": 1,
             "url": "https://hooks.example.com/x"}  # fmt: skip
    return Subscription(**known | fields)


def test_a_webhook_is_mlflows() -> None:
    event = Event(ALIAS, 1_700_000_000_000, formats.example(ALIAS))
    content = formats.body("webhook", event, "", None)
    assert json.loads(content) == {
        "entity": "model_version_alias",
        "action": "created",
        "timestamp": "2023-11-14T22:13:20+00:00",
        "data": {"name": "example", "alias": "champion", "version": "1"},
    }
    assert json.loads(formats.body("webhook", event, "", "blue"))["workspace"] == "blue"
    headers = dict(formats.headers("an-id", 1_700_000_000, content, "secret"))
    assert headers == {
        b"content-type": b"application/json",
        b"x-mlflow-delivery-id": b"an-id",
        b"x-mlflow-timestamp": b"1700000000",
        b"x-mlflow-signature": _generate_hmac_signature("secret", "an-id", "1700000000", content.decode()).encode(),
    }
    assert b"x-mlflow-signature" not in dict(formats.headers("an-id", 1, content, ""))


def test_people_read_a_line() -> None:
    told = [formats.title(Event(kind, 1, formats.example(kind))) for kind in KINDS]
    assert told == [
        "Run painted-carp-42 of experiment example has finished",
        "Run painted-carp-42 of experiment example has failed",
        "Run painted-carp-42 of experiment example has been killed",
        "Run painted-carp-42 of experiment example: loss is 0.25, below 0.3",
        "Model example has a new version, 1",
        "champion of model example is version 1 now",
    ]
    gone = {"run_id": "r", "status": "FAILED"}
    assert formats.title(Event("run.failed", 1, gone)) == "Run r has failed"


def test_slack_shows_a_name_and_mentions_nobody() -> None:
    data = formats.example("run.failed") | {"run_name": "<!channel> & <https://evil|click>"}
    event = Event("run.failed", 1, data)
    shown = "*Run &lt;!channel&gt; &amp; &lt;https://evil\u2758click&gt; of experiment example has failed*"
    assert json.loads(formats.body("slack", event, "", None)) == {"text": f"{shown}\nloss: 0.25"}
    linked = json.loads(formats.body("slack", event, "https://mlflow.example.com/", None))["text"]
    assert linked.startswith("<https://mlflow.example.com/#/experiments/1/runs/0123456789abcdef0123456789abcdef|Run ")


def test_teams_gets_a_card() -> None:
    event = Event(VERSION, 1, formats.example(VERSION) | {"name": "[a](https://evil)"})
    message = json.loads(formats.body("teams", event, "https://m", None))
    assert message["type"] == "message"
    [card] = message["attachments"]
    assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert card["content"]["body"][0]["text"] == r"Model \[a\]\(https://evil\) has a new version, 1"
    assert card["content"]["actions"][0]["url"] == "https://m/#/models/%5Ba%5D%28https%3A%2F%2Fevil%29/versions/1"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
     "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
     "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
     "2002:7f00:1::", "2001:db8::1", "fec0::1", "192.0.0.192", "192.0.0.8", "192.88.99.1", "2001:2::1", "2001:1ff::1",
     "3fff::1", "64:ff9b:1::7f00:1", "::127.0.0.1"],
)  # fmt: skip
def test_nothing_is_sent_there(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_that_is_public(address: str) -> None:
    assert is_public(address)


async def test_a_name_is_looked_up_once_and_all_its_addresses_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    asked: list[str] = []

    async def two(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("8.8.8.8", port)), (2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two, raising=False)
    with pytest.raises(Refused, match=r"rebinding\.example is 127\.0\.0\.1"):
        await PublicOnly(False).connect_tcp("rebinding.example", 443, timeout=1)
    assert asked == ["rebinding.example"]
    network = PublicOnly(True)
    connected: list[str] = []

    class Network(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, host: str, *_: Any, **__: Any) -> Any:
            connected.append(host)
            if host == "8.8.8.8":
                raise httpcore.ConnectError
            return "stream"

    monkeypatch.setattr(network, "_network", Network())
    stream: Any = await network.connect_tcp("rebinding.example", 443)
    assert stream == "stream"
    assert connected == ["8.8.8.8", "127.0.0.1"], "addresses, never the name again"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": " "}, "printable"),
        ({"format": "mail"}, "one of webhook, slack, teams"),
        ({"kinds": ()}, "what to tell of"),
        ({"kinds": ("run.lost",)}, "no event 'run.lost'"),
        ({"url": "http://hooks.example.com"}, "must be https://"),
        ({"url": "https://"}, "must be https://"),
        ({"url": "https://x\ny"}, "must be https://"),
        ({"url": "https://h:99999"}, "can't be read"),
        ({"url": "https://user:pw@hooks.example.com"}, "must not hold a user"),
        ({"url": "https://10.0.0.1/x"}, "10.0.0.1 is not a public address"),
        ({"url": "https://[::1]:8443/x"}, "::1 is not a public address"),
        ({"link": "javascript:x"}, "server's address"),
        ({"kinds": (METRIC,)}, "needs a metric"),
        ({"kinds": (METRIC,), "metric": "m", "above": 1.0, "below": 2.0}, "needs a metric and one threshold"),
        ({"kinds": (METRIC,), "metric": "m", "above": float("nan")}, "finite"),
        ({"kinds": (VERSION,), "metric": "m", "above": 1.0}, "for metric.passed only"),
    ],
)
def test_what_cannot_be_asked_for(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidParameter, match=why):
        subscription(**fields).check()


def test_what_can_be_asked_for() -> None:
    subscription().check()
    subscription(kinds=(METRIC,), metric="m", below=0.0).check()
    subscription(url="http://10.0.0.1:8080/hook").check(allow_private=True)
    assert subscription(url="https://hooks.slack.com/services/T/B/key").address == "https://hooks.slack.com/..."


@pytest.mark.parametrize(
    ("fields", "value", "passes"),
    [
        ({"above": 1.0}, 1.0, False),
        ({"above": 1.0}, 1.1, True),
        ({"below": 0.0}, 0.0, False),
        ({"below": 0.0}, -1, True),
    ],
)
def test_thresholds(fields: dict[str, float], value: float, passes: bool) -> None:
    assert subscription(**fields).passes(value) is passes


def test_attempts_come_ever_later() -> None:
    assert FIRST_WAIT * 0.75 <= wait_of(1) <= FIRST_WAIT * 1.25
    assert wait_of(5) > wait_of(1)
    assert wait_of(1000) <= LONGEST_WAIT * 1.25


async def test_a_scheme_in_capital_letters() -> None:
    to = subscription(url="HTTPS://127.0.0.1/x")
    with pytest.raises(Untold, match="not a public address"):
        await Sender(False).tell(to, "an-id", Event(VERSION, 1, formats.example(VERSION)))


async def test_where_nobody_has_subscribed_nothing_is_noted() -> None:
    assert not NOBODY.by_kind
    assert not NOBODY.by_metric
    await NOBODY.run_changed("r", "FAILED", 1)
