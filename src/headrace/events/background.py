"""One worker of each server tells what was noted, once there are subscriptions."""

from __future__ import annotations

from headrace.db.database import Database
from headrace.events.notes import Events
from headrace.settings import Settings


async def keep(db: Database, settings: Settings, events: Events) -> None:
    """Deliver until it is cancelled. Its HTTP client is not loaded before somebody has subscribed."""
    await events.subscribed.wait()
    from headrace.events import delivery

    await delivery.keep(db, settings, events)
