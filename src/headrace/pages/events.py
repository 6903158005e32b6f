"""/headrace/events: who is told what, for administrators; what `headrace events` does, by the same functions."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec

from headrace.api.endpoint import Call, Response, endpoint
from headrace.api.message import Message
from headrace.auth.objects import NOTHING
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.errors import ApiError, ConfigurationError, Declined, InvalidParameter
from headrace.events.store import EventStore, listed, new_id, new_secret
from headrace.events.subscriptions import FORMATS, KINDS, METRIC, Subscription, chosen
from headrace.pages.layout import HTML, page, table
from headrace.ui import html

PATH = "/headrace/events"
_FORMATS = {"webhook": "a webhook, signed as MLflow's", "slack": "Slack", "teams": "Microsoft Teams"}


class Nothing(Message):
    """The message of a page that needs no word."""


class ChangeEvents(Message):
    """A form of the page. `action`: add, test or remove. `side` and `threshold`: of the metric."""

    action: str = ""
    name: str = ""
    url: str = ""
    format: str = "webhook"
    kinds: list[str] = msgspec.field(default_factory=list)
    experiment: str = ""
    metric: str = ""
    side: str = "above"
    threshold: str = ""
    link: str = ""


@endpoint("GET", PATH, Right.ADMIN, NOTHING)
async def show_events(call: Call, message: Nothing) -> Response:
    """The subscriptions, what became of their events, and a form for a new one."""
    return await _page(call, ChangeEvents())


@endpoint("POST", PATH, Right.ADMIN, NOTHING, form=True)
async def change_events(call: Call, message: ChangeEvents) -> Response:
    """Add, try or remove one. What can't be done is said on the page, with what was filled in."""
    store = EventStore(call.db)
    try:
        if message.action == "remove":
            await store.remove(message.name)
            return Response(b"", 303, HTML, ((b"location", b"events"),))
        if message.action == "test":
            return await _page(call, ChangeEvents(), said=escape(await _try(call, store, message.name)))
        secret = await _add(call, store, message)
    except (ApiError, ConfigurationError) as error:
        return await _page(call, message, str(error))
    except Declined as reason:
        return await _page(call, message, f"The database refused it: {reason}. Its role must be able to make tables.")
    said = f"{escape(message.name)} is told from now on; servers follow within 5 s."
    if secret:
        said += f" The secret that signs its requests, shown this once:<pre>{escape(secret)}</pre>"
    return await _page(call, ChangeEvents(), said=said)


async def _add(call: Call, store: EventStore, message: ChangeEvents) -> str:
    """The secret that signs. Raises InvalidParameter, AlreadyExists, ConfigurationError, Declined."""
    number = None
    if message.experiment and (number := await store.experiment(message.experiment)) is None:
        raise InvalidParameter(f"There is no experiment {message.experiment}.")
    threshold = None
    if message.metric:
        try:
            threshold = float(message.threshold)
        except ValueError:
            raise InvalidParameter("A metric needs a threshold, which is a number.") from None
    secret = new_secret() if message.format == "webhook" else ""
    metric = message.metric or None
    subscription = Subscription(
        id=new_id(), name=message.name, format=message.format, kinds=chosen(tuple(message.kinds), metric),
        created_at=now_ms(), url=message.url.strip(), secret=secret, experiment_id=number, metric=metric,
        above=threshold if message.side == "above" else None, below=threshold if message.side == "below" else None,
        link=message.link.strip(),
    )  # fmt: skip
    subscription.check(call.settings.events_allow_private)
    await store.add(subscription)
    return secret


async def _try(call: Call, store: EventStore, name: str) -> str:
    """Raises NotFound, ConfigurationError."""
    from headrace.events.delivery import Untold, try_out

    try:
        return f"{name} took it: {await try_out(store, name, None, call.settings.events_allow_private)}"
    except Untold as error:
        raise InvalidParameter(f"{name} did not take it: {error}") from None


async def _page(call: Call, filled: ChangeEvents, error: str = "", said: str = "") -> Response:
    found = await listed(EventStore(call.db))
    head = ["Name", "To", "Of", "Only", "Delivered", "Waiting", "Given up", "Last error", ""]
    subscriptions = (
        f"<p>What became of them in the last 30 days.</p>{table(head, map(_row, found), (4, 5, 6))}"
        if found
        else "<p>Nobody is told anything yet.</p>"
    )
    told = f'<section role="status"><p>{said}</p></section>' if said else ""
    kinds = "".join(
        f'<label><input type="checkbox" name="kinds" value="{kind}"{_if(kind in filled.kinds, " checked")}>'
        f"{kind}</label>"
        for kind in KINDS
        if kind != METRIC
    )
    formats = "".join(
        f'<option value="{each}"{_if(each == filled.format, " selected")}>{_FORMATS[each]}</option>' for each in FORMATS
    )
    sides = "".join(f"<option{_if(each == filled.side, ' selected')}>{each}</option>" for each in ("above", "below"))
    return page(
        "Events",
        f"""{html.alert(error)}{told}{subscriptions}
<h2>Tell somebody</h2>
<form method="post" class="column"><input type="hidden" name="action" value="add">
{_field("name", "Name", filled.name, " required maxlength=256")}
<label for="format">How</label><select id="format" name="format">{formats}</select>
{_field("url", "URL, which the receiver gave you", filled.url, " required")}
<fieldset><legend>Of what; of all, where nothing is ticked</legend>{kinds}</fieldset>
{_field("experiment", "Only runs of this experiment: its name or number", filled.experiment)}
<fieldset><legend>Of a metric that passes a threshold, once for each run</legend>
{_field("metric", "Metric", filled.metric)}
<label for="side">Value</label><select id="side" name="side">{sides}</select>
{_field("threshold", "Threshold", filled.threshold, ' inputmode="decimal"')}</fieldset>
{_field("link", "This server's address as people see it, for links in messages", filled.link)}
<button>Add</button></form>""",
        400 if error else 200,
    )


def _row(each: dict[str, Any]) -> list[str]:
    only = "" if each["experiment_id"] is None else each["experiment"] or f"experiment {each['experiment_id']}"
    if each["metric"] is not None:
        side = "above" if each["above"] is not None else "below"
        only += f" {each['metric']} {side} {each[side]:g}"
    name = escape(each["name"])
    buttons = "".join(
        f'<form method="post"><input type="hidden" name="action" value="{action}">'
        f'<input type="hidden" name="name" value="{name}">'
        f'<button class="quiet" aria-label="{word} {name}">{word}</button></form>'
        for action, word in (("test", "Try"), ("remove", "Remove"))
    )
    counts = [f"{each[what]:,}" for what in ("delivered", "waiting", "given_up")]
    to = f"{escape(each['format'])} <code>{escape(each['url'])}</code>"
    return [
        name,
        to,
        escape(", ".join(each["kinds"])),
        escape(only.strip()),
        *counts,
        escape(each["error"] or ""),
        buttons,
    ]


def _field(name: str, label: str, value: str, more: str = "") -> str:
    return f'<label for="{name}">{escape(label)}</label><input id="{name}" name="{name}" value="{escape(value)}"{more}>'


def _if(is_so: bool, text: str) -> str:
    return text if is_so else ""
