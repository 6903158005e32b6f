"""/headrace/audit: who did what, for administrators."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from headrace.api.endpoint import Call, Response, endpoint
from headrace.api.message import Message
from headrace.auth.audit_table import AuditTable, Entry
from headrace.auth.objects import NOTHING
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.errors import InvalidParameter
from headrace.pages.layout import page, table
from headrace.settings.values import parse_age

MOST = 500


class OfAudit(Message):
    """`user`: only theirs. `since`: how far back, such as 12h."""

    user: str = ""
    since: str = "7d"


@endpoint("GET", "/headrace/audit", Right.ADMIN, NOTHING)
async def show_audit(call: Call, message: OfAudit) -> Response:
    """The newest entries of the table headrace_audit."""
    if not call.settings.protected:
        return page(
            "Who did what",
            "<p>This server asks nobody who they are, and keeps no audit log. <code>headrace serve --auth</code> asks, "
            "and <code>--audit-table</code> keeps it.</p>",
        )
    audit = AuditTable(call.db)
    if not await audit.exists():
        return page(
            "Who did what",
            "<p>This server keeps no table of it: each change is a line of its log. "
            "<code>headrace serve --audit-table</code> keeps both.</p>",
        )
    try:
        milliseconds = int(parse_age(message.since) * 1000)
    except (ValueError, OverflowError):
        raise InvalidParameter("since must be a time such as 30d, 12h, 90m.") from None
    entries = await audit.entries(max(0, now_ms() - milliseconds), message.user or None, MOST)
    head = ["When (UTC)", "Who", "By", "From", "What", "Answer", "On"]
    return page(
        "Who did what",
        f"""<form class="row"><div><label for="user">User</label>
<input id="user" name="user" value="{escape(message.user)}"></div>
<div><label for="since">How far back: 30m, 12h, 7d</label>
<input id="since" name="since" value="{escape(message.since)}" required></div>
<div><button>Show</button></div></form>
{table(head, map(_row, entries)) if entries else "<p>Nobody did anything in that time.</p>"}
{f"<p>The newest {MOST} are shown; headrace audit shows more.</p>" if len(entries) == MOST else ""}""",
    )


def _row(entry: Entry) -> list[str]:
    objects = " ".join(f"{key}={value}" for key, value in entry.objects.items())
    return [
        datetime.fromtimestamp(entry.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        escape(entry.user or "nobody"),
        escape(entry.via),
        escape(entry.address),
        f"<code>{escape(entry.method)} {escape(entry.path)}</code>",
        str(entry.status) if entry.status < 400 else f'<span class="bad">{entry.status}</span>',
        f"<code>{escape(objects)}</code>",
    ]
