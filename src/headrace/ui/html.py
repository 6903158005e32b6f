"""Headrace's own pages as HTML: sign in, and a user's tokens. No script: they work with a keyboard and without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from headrace.asgi.types import Headers

if TYPE_CHECKING:
    from headrace.auth.accounts import Token

STYLE = b"""\
:root { color-scheme: light dark; --accent: light-dark(#0b5fa5, #7cc0ff); --line: light-dark(#8a949e, #69727b);
  --bad: light-dark(#b00020, #ff8a95); }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 0 auto; padding: 2rem 1rem; }
body.narrow { max-width: 24rem; }
body.wide { max-width: 80rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
label { display: block; margin: .8rem 0 .2rem; }
input, select { font: inherit; width: 100%; padding: .5rem; border: 1px solid var(--line); border-radius: 4px; }
button { font: inherit; padding: .5rem 1rem; margin-top: 1rem; border: 1px solid var(--accent); border-radius: 4px;
  background: var(--accent); color: light-dark(#fff, #000); cursor: pointer; }
a.button { display: block; text-align: center; padding: .5rem 1rem; border: 1px solid var(--accent);
  border-radius: 4px; text-decoration: none; }
button.quiet { background: none; color: var(--accent); margin: 0; padding: .2rem .6rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
a { color: var(--accent); }
nav { display: flex; justify-content: space-between; align-items: center; gap: 1rem; }
table { border-collapse: collapse; width: 100%; }
@media (max-width: 48rem) { table { display: block; overflow-x: auto; } }
th, td { text-align: left; padding: .4rem .6rem .4rem 0; border-bottom: 1px solid var(--line); }
code { font-size: .9rem; overflow-wrap: anywhere; }
pre { border: 1px solid var(--line); border-radius: 4px; padding: .8rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
form.row { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: end; }
form.row > div { flex: 1 1 12rem; }
fieldset { border: 1px solid var(--line); border-radius: 4px; margin: .8rem 0; }
fieldset label { margin: .2rem 0; }
input[type=checkbox] { width: auto; margin-right: .5rem; }
form.column { max-width: 32rem; }
td form { display: inline-block; margin: 0 .3rem .2rem 0; }
.plots { display: flex; flex-wrap: wrap; align-items: end; gap: 1rem 2rem; }
figure { margin: 0; flex: 0 1 22rem; }
svg { width: 100%; height: auto; }
svg.share { width: 8rem; height: .7rem; }
rect { fill: var(--accent); }
rect.ground { fill: none; stroke: var(--line); }
text { fill: currentColor; font-size: 9.5px; text-anchor: middle; }
.bad { color: var(--bad); overflow-wrap: anywhere; }
"""


def headers(form_action: str = "'self'") -> Headers:
    """Those of a page. `form_action`: where its forms may lead, redirects included."""
    policy = f"default-src 'none'; style-src 'self'; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    return (
        (b"cache-control", b"no-store"),
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"same-origin"),
    )


def sign_in(style: str, error: str | None, name: str = "", single: str = "") -> bytes:
    """The form posts to the address that it was loaded from, which keeps `next` and the UI's fragment.

    `single`: the address of single sign-on, where there is one.
    """
    focus_name, focus_password = ("", " autofocus") if name else (" autofocus", "")
    return page(
        "Sign in",
        style,
        f"""<h1>MLflow</h1>
{alert(error)}{_single(single)}<form method="post">
<label for="name">User name</label>
<input id="name" name="name" autocomplete="username" required value="{escape(name)}"{focus_name}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required{focus_password}>
<button>Sign in</button>
</form>""",
        narrow=True,
    )


def link(style: str, name: str, error: str | None) -> bytes:
    """What a link that signs in leads to. The form posts to the address with the link in it."""
    return page(
        "Sign in",
        style,
        f"""<h1>MLflow</h1>
{alert(error)}<p>This link signs you in as <b>{escape(name)}</b>. It works once.</p>
<form method="post"><input type="hidden" name="link" value="1">
<input name="name" autocomplete="username" value="{escape(name)}" hidden>
<label for="password">New password, if you want one (12 characters or more)</label>
<input id="password" name="password" type="password" autocomplete="new-password" autofocus>
<button>Sign in</button>
</form>""",
        narrow=True,
    )


def tokens(
    style: str,
    base: str,
    user: str,
    csrf: str,
    roles: Sequence[str],
    found: Iterable[Token],
    made: str | None = None,
    error: str | None = None,
) -> bytes:
    """A user's tokens, a form for a new one, and, once, the token that was just made."""
    hidden = f'<input type="hidden" name="csrf" value="{escape(csrf)}">'
    rows = "".join(_row(token, hidden) for token in found)
    table = (
        '<table><thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">Made</th>'
        f'<th scope="col">Expires</th><th scope="col">Last used</th><th></th></tr></thead><tbody>{rows}</tbody></table>'
    )
    shown = (
        '<section role="status"><h2>Your new token</h2><p>Copy it now: it is not shown again.</p>'
        f"<pre>export MLFLOW_TRACKING_TOKEN={escape(made)}</pre></section>"
        if made
        else ""
    )
    options = "".join(
        f'<option value="{role}">{"whatever I may" if role == "user" else role}</option>' for role in roles
    )
    return page(
        "Tokens",
        style,
        f"""<nav><a href="{escape(base)}/">MLflow</a>
<form method="post" action="{escape(base)}/headrace/sign-out">{hidden}<span>{escape(user)}</span>
<button class="quiet">Sign out</button></form></nav>
<h1>Tokens</h1>
{alert(error)}{shown}
{table if rows else "<p>You have no tokens yet.</p>"}
<h2>New token</h2>
<form method="post">{hidden}<input type="hidden" name="action" value="create">
<label for="name">Name, such as the machine that uses it</label>
<input id="name" name="name" required maxlength="256">
<label for="role">The most that it may do</label><select id="role" name="role">{options}</select>
<label for="days">Days until it expires</label>
<input id="days" name="days" type="number" min="1" max="9999" value="90" required>
<button>Make a token</button>
</form>""",
    )


def _row(token: Token, hidden: str) -> str:
    return (
        f"<tr><td>{escape(token.name)}</td><td>{escape(token.role)}</td><td>{_day(token.created_at)}</td>"
        f"<td>{_day(token.expires_at, 'never')}</td><td>{_day(token.last_used_at, 'not yet')}</td>"
        f'<td><form method="post">{hidden}<input type="hidden" name="action" value="revoke">'
        f'<input type="hidden" name="id" value="{escape(token.id)}">'
        f'<button class="quiet" aria-label="Revoke {escape(token.name)}">Revoke</button></form></td></tr>'
    )


def _day(milliseconds: int | None, otherwise: str = "") -> str:
    return otherwise if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")


def _single(address: str) -> str:
    return f'<p><a class="button" href="{escape(address)}">Sign in with single sign-on</a></p>\n' if address else ""


def alert(error: str | None) -> str:
    """A fault, said where a screen reader hears it."""
    return f'<p class="bad" role="alert">{escape(error)}</p>\n' if error else ""


def own_page(title: str, body: str, wide: bool = False, up: str = "") -> bytes:
    """One of /headrace/, below a way back. `up`: as many "../" as it is deeper than the others."""
    above = f'<nav><a href="{up}../">MLflow</a><a href="{up}./">Headrace</a></nav>'
    return page(title, f"{up}style.css", f"{above}\n<h1>{escape(title)}</h1>\n{body}", wide=wide)


def page(title: str, style: str, body: str, narrow: bool = False, wide: bool = False) -> bytes:
    """A whole page around its body."""
    width = ' class="narrow"' if narrow else ' class="wide"' if wide else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)} - MLflow</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{escape(style)}"></head>
<body{width}><main>
{body}
</main></body></html>
""".encode()
