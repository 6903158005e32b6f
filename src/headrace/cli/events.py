"""`headrace events`: who is told when a run ends, a metric passes a threshold, a model has a new version or alias."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headrace.cli.accounts import as_json, print_table
from headrace.cli.stores import with_settings
from headrace.errors import ApiError, ConfigurationError, Declined
from headrace.events.subscriptions import FORMATS, KINDS, Subscription, chosen
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.events.store import EventStore


@click.group()
def events() -> None:
    """Tell Slack, Microsoft Teams or a webhook when a run ends, a metric passes a threshold, a model changes.

    Works on the server's database, with the server running or not; running servers follow within 5 seconds.
    """


def _run(settings: Settings, work: Callable[[EventStore], Awaitable[None]]) -> None:
    from headrace.database import check
    from headrace.db import connected
    from headrace.events.store import EventStore

    check(settings)

    async def on_store() -> None:
        async with connected(settings) as database:
            await work(EventStore(database))

    try:
        asyncio.run(on_store())
    except Declined as reason:
        raise ConfigurationError(f"The database refused it: {reason}. Its role must be able to make tables.") from None
    except ApiError as error:
        raise ConfigurationError(str(error)) from None


@events.command()
@click.argument("name")
@click.argument("url", metavar="URL|-")
@click.option(
    "--on", "kinds", multiple=True, type=click.Choice(KINDS), help="What to tell of; can be repeated.  [default: all]"
)
@click.option("--format", "style", type=click.Choice(FORMATS), default="webhook", show_default=True,
              help="MLflow's webhook, signed; or what Slack and Teams take.")  # fmt: skip
@click.option("--experiment", metavar="NAME|ID", help="Only runs of this one.")
@click.option("--metric", help="With --above or --below: tell once for each run whose metric passes it.")
@click.option("--above", type=float, help="The threshold that --metric passes upwards.")
@click.option("--below", type=float, help="The threshold that --metric passes downwards.")
@click.option("--link", default="", metavar="URL", help="The server's address as people see it, for links in messages.")
@click.option("--secret-stdin", is_flag=True, help="Read the secret that signs webhooks; without it one is made.")
@as_json
@with_settings("backend_store_uri", "events_allow_private")
def add(settings: Settings, name: str, url: str, kinds: tuple[str, ...], style: str, experiment: str | None,
        metric: str | None, above: float | None, below: float | None, link: str, secret_stdin: bool,
        json: bool) -> None:  # fmt: skip
    """Add a subscription. URL is what the receiver gave you; - reads it from the standard input, hidden from `ps`."""
    from headrace.clock import now_ms
    from headrace.events.store import new_id, new_secret

    if url == "-":
        url = sys.stdin.readline().strip()
    secret = ""
    if style == "webhook":
        secret = sys.stdin.readline().strip() if secret_stdin else new_secret()
        if not secret:
            raise click.UsageError("--secret-stdin is set, but there is nothing to read.")

    async def work(store: EventStore) -> None:
        number = None
        if experiment is not None and (number := await store.experiment(experiment)) is None:
            raise ConfigurationError(f"There is no experiment {experiment}. `headrace usage` shows which there are.")
        subscription = Subscription(
            id=new_id(), name=name, format=style, kinds=chosen(kinds, metric), created_at=now_ms(), url=url,
            secret=secret, experiment_id=number, metric=metric, above=above, below=below, link=link,
        )  # fmt: skip
        subscription.check(settings.events_allow_private)
        await store.add(subscription)

    _run(settings, work)
    if json:
        click.echo(msgspec.json.encode({"name": name, "secret": secret or None}).decode())
        return
    click.echo(f"{name} is told from now on (servers follow within 5 s). Try it: headrace events test {name}")
    if secret and not secret_stdin:
        click.echo(f"the secret that signs its requests, shown this once:\n  {secret}")


@events.command("list")
@as_json
@with_settings("backend_store_uri")
def show(settings: Settings, json: bool) -> None:
    """List the subscriptions, and what became of their events in the last 30 days."""

    async def work(store: EventStore) -> None:
        from headrace.events.store import listed

        print_table(await listed(store), json)

    _run(settings, work)


@events.command()
@click.argument("name")
@click.option("--on", "kind", type=click.Choice(KINDS), help="Which event to make up.  [default: its first]")
@as_json
@with_settings("backend_store_uri", "events_allow_private")
def test(settings: Settings, name: str, kind: str | None, json: bool) -> None:
    """Tell of an event that never was, from here, and say what came back."""
    result: dict[str, Any] = {}

    async def work(store: EventStore) -> None:
        from headrace.events.delivery import Untold, try_out

        try:
            result["status"] = await try_out(store, name, kind, settings.events_allow_private)
        except Untold as error:
            result["error"] = str(error)

    _run(settings, work)
    if json:
        click.echo(msgspec.json.encode(result).decode())
    elif "status" in result:
        click.echo(f"{name} took it: {result['status']}")
    if "error" in result:
        if not json:
            click.echo(f"headrace: {name} did not take it: {result['error']}", err=True)
        sys.exit(1)


@events.command()
@click.argument("name")
@with_settings("backend_store_uri")
def remove(settings: Settings, name: str) -> None:
    """Remove a subscription, and what waits to be told."""

    async def work(store: EventStore) -> None:
        if not await store.remove(name):
            raise ConfigurationError(f"There is no subscription {name}. `headrace events list` shows which there are.")

    _run(settings, work)
    click.echo(f"{name} is told nothing from now on (servers follow within 5 s).")
