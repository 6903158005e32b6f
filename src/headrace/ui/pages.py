"""Headrace's own pages, below /headrace/: sign in, sign out, and a user's own tokens.

A form is taken from our own pages only: the browser says where it comes from, and what needs a session also carries a
code that is signed for that session.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from headrace.api.endpoint import Router
from headrace.api.permits import Permit
from headrace.asgi.body import read_body
from headrace.asgi.responses import NATIVE
from headrace.asgi.responses import send as send_whole
from headrace.asgi.types import NAMED, PERMIT, PREFIX, Headers, Receive, Scope, Send
from headrace.auth import sessions
from headrace.auth.accounts import Accounts
from headrace.auth.authenticator import Authenticator
from headrace.auth.objects import Filtered
from headrace.auth.principals import ROLES, Principal, Right
from headrace.auth.setup_process import make_token
from headrace.clock import DAY_MS, now_ms
from headrace.errors import Forbidden, InvalidParameter, TooManyAttempts, Unauthenticated
from headrace.ui import html, identity

if TYPE_CHECKING:
    from headrace.ui.single_sign_on import SignOnPages

LOGIN, CALLBACK = "/headrace/oidc/login", "/headrace/oidc/callback"
SIGN_IN, SIGN_OUT, TOKENS, STYLE = "/headrace/sign-in", "/headrace/sign-out", "/headrace/tokens", "/headrace/style.css"
MAX_FORM_BYTES = 64 * 1024
MOST_OF_NEXT = 2000  # it goes to the provider and back in a cookie, of which browsers keep 4 KB


def _html(form_action: str = "'self'") -> Headers:
    """The headers of a page. `form_action`: where its forms may lead, redirects included."""
    return ((b"content-type", b"text/html; charset=utf-8"), *html.headers(form_action), NATIVE)


_HTML = _html()
_CSS = ((b"content-type", b"text/css"), (b"cache-control", b"public, max-age=3600"), NATIVE)
_SAFE_NEXT = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*\Z")


class Pages:
    """The pages of one worker; `add_to` puts their rights in the table of routes."""

    def __init__(self, prefix: str, authenticator: Authenticator, accounts: Accounts) -> None:
        self._prefix, self._authenticator, self._accounts = prefix, authenticator, accounts
        self.sign_on: SignOnPages | None = None
        self.answers: dict[tuple[str, str], Callable[[Scope, Receive, Send, Principal | None], Awaitable[None]]] = {
            ("GET", prefix + SIGN_IN): self._show_sign_in,
            ("POST", prefix + SIGN_IN): self._sign_in,
            ("POST", prefix + SIGN_OUT): self._sign_out,
            ("GET", prefix + TOKENS): self._show_tokens,
            ("POST", prefix + TOKENS): self._change_tokens,
            ("GET", prefix + STYLE): self._show_style,
        }
        for api in ("api", "ajax-api"):
            for path, what in identity.PATHS.items():
                self.answers["GET", f"{prefix}/{api}/{path}"] = partial(self._identify, what)
            self.answers["GET", f"{prefix}/{api}/{identity.USERS}"] = self._list_users

    def base(self, scope: Scope) -> str:
        """What every path of ours begins with where the browser is: a proxy in front may take off a part of it."""
        return f"{scope.get(PREFIX, '')}{self._prefix}"

    async def start_session(self, scope: Scope, name: str) -> Headers:
        """The headers that begin a session of a user who has proved who they are."""
        return self.set_cookie(scope, await self._authenticator.new_session(name))

    def _single(self, scope: Scope) -> str:
        """Where single sign-on begins, with the same `next`; empty where there is none."""
        query = scope["query_string"].decode("ascii", "replace")
        return f"{self.base(scope)}{LOGIN}{'?' if query else ''}{query}" if self.sign_on is not None else ""

    def add_to(self, router: Router) -> None:
        """Who may see them."""
        rights = {self._prefix + path: Right.OPEN for path in (SIGN_IN, SIGN_OUT, STYLE)}
        lists = [f"{self._prefix}/{api}/{identity.USERS}" for api in ("api", "ajax-api")]
        for method, path in self.answers:
            if path in lists:
                router.add_page(method, path, Right.EDIT, Filtered())
            else:
                router.add_page(method, path, rights.get(path, Right.SIGNED_IN))

    async def ask(self, scope: Scope, send: Send) -> None:
        """Send a browser to the page where one signs in, from where it comes back here."""
        here = scope.get(PREFIX, "") + scope["raw_path"].decode("ascii", "replace")
        if scope["query_string"]:
            here += "?" + scope["query_string"].decode("ascii", "replace")
        await self.redirect(scope, send, f"{self.base(scope)}{SIGN_IN}?next={quote(here, safe='')}")

    async def _show_style(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        await send_whole(scope, send, 200, html.STYLE, _CSS)

    async def _show_sign_in(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        link, error = _link_of(scope), None
        if link is not None:
            try:
                await self._send_link(scope, send, await self._authenticator.user_of_link(link))
            except Unauthenticated as used:
                error = used
            else:
                return
        page = html.sign_in(self.base(scope) + STYLE, str(error) if error else None, single=self._single(scope))
        await send_whole(scope, send, error.status if error else 200, page, _HTML)

    async def _send_link(self, scope: Scope, send: Send, name: str, error: str | None = None) -> None:
        """A page between the link and the session: what only looks at links, such as a mail filter, uses none up."""
        await send_whole(scope, send, 400 if error else 200, html.link(self.base(scope) + STYLE, name, error), _HTML)

    async def _sign_in_by_link(self, scope: Scope, send: Send, link: str, password: str) -> None:
        try:
            cookie = await self._authenticator.sign_in_by_link(link, password)
        except InvalidParameter as error:
            await self._send_link(scope, send, await self._authenticator.user_of_link(link), str(error))
        except Unauthenticated as error:
            page = html.sign_in(self.base(scope) + STYLE, str(error), single=self._single(scope))
            await send_whole(scope, send, error.status, page, _HTML)
        else:
            await self.redirect(scope, send, f"{self.base(scope)}/", self.set_cookie(scope, cookie))

    async def _sign_in(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        form = await _form(scope, receive)
        if "link" in form:
            await self._sign_in_by_link(scope, send, _link_of(scope) or "", form.get("password", ""))
            return
        name, password = form.get("name", ""), form.get("password", "")
        try:
            cookie = await self._authenticator.sign_in(name, password, address_of(scope))
            scope[NAMED] = name
        except (Unauthenticated, TooManyAttempts) as error:
            # a flood does not reach the database
            if isinstance(error, Unauthenticated) and await self._authenticator.is_user(name):
                scope[NAMED] = name
            page = html.sign_in(self.base(scope) + STYLE, str(error), name, self._single(scope))
            waits = tuple(header for header in error.headers if header[0] == b"retry-after")
            await send_whole(scope, send, error.status, page, (*_HTML, *waits))
            return
        await self.redirect(scope, send, self.next_of(scope), self.set_cookie(scope, cookie))

    async def _sign_out(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        form = await _form(scope, receive)
        if who is not None and who.session_id is not None:
            await self._check(form, who)
            await self._end(who)
        to = self.base(scope) + SIGN_IN
        if self.sign_on is not None:
            to = await self.sign_on.sign_out_address(scope, to)
        await self.redirect(scope, send, to, self.set_cookie(scope, ""))

    async def sign_out_by_ui(self, scope: Scope, send: Send, who: Principal | None) -> None:
        """The answer to the UI's logout, after which it loads its first page again."""
        check_origin(scope)
        if who is not None:
            await self._end(who)
        await send_whole(scope, send, 401, b"", (*self.set_cookie(scope, ""), NATIVE))

    async def _end(self, who: Principal) -> None:
        if who.session_id is not None:
            await self._accounts.end_session(who.session_id, int(who.expires * 1000))
            self._authenticator.forget()

    async def _identify(self, what: str, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        assert who is not None
        await identity.answer(what, scope, send, who)

    async def _list_users(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        assert who is not None
        users = await self._accounts.users()
        permit: Permit | None = scope[PERMIT]
        if permit is not None and permit.exact:
            users = identity.sharing(who, await permit.granted(), users, await self._accounts.grants())
        await identity.list_users(scope, send, users)

    async def _show_tokens(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        await self._send_tokens(scope, send, _of_session(who))

    async def _change_tokens(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        form, who = await _form(scope, receive), _of_session(who)
        await self._check(form, who)
        if form.get("action") == "revoke":
            await self._accounts.revoke_token(form.get("id", ""), who.user)
            self._authenticator.forget()
            await self.redirect(scope, send, self.base(scope) + TOKENS)
            return
        name, role, days = form.get("name", "").strip(), form.get("role", ""), form.get("days", "")
        if not name or len(name) > 256 or role not in _roles(who) or not re.fullmatch("[1-9][0-9]{0,3}", days):
            await self._send_tokens(
                scope, send, who, error="A token needs a name, a role of yours, and 1 to 9999 days."
            )
            return
        made = await make_token(self._accounts, who.user, name, role, now_ms() + int(days) * DAY_MS)
        await self._send_tokens(scope, send, who, made)

    async def _send_tokens(
        self, scope: Scope, send: Send, who: Principal, made: str | None = None, error: str | None = None
    ) -> None:
        page = html.tokens(
            self.base(scope) + STYLE,
            self.base(scope),
            who.user,
            await self._code(who),
            _roles(who),
            await self._accounts.tokens(who.user),
            made,
            error,
        )
        await send_whole(scope, send, 400 if error else 200, page, await self._page_headers(scope))

    async def _page_headers(self, scope: Scope) -> Headers:
        """Of a page with a way to sign out, which may lead to the provider."""
        if self.sign_on is None:
            return _HTML
        there = urlsplit(await self.sign_on.sign_out_address(scope, ""))
        return _html(f"'self' {there.scheme}://{there.netloc}") if there.netloc else _HTML

    def set_cookie(self, scope: Scope, value: str) -> Headers:
        """The session's cookie; an empty value removes it. Secure behind TLS, a proxy's too."""
        secure = "; Secure" if scope["scheme"] == "https" else ""
        age = sessions.LIFETIME_MS // 1000 if value else 0
        path = self.base(scope) or "/"
        ends = f"; Path={path}; Max-Age={age}; SameSite=Lax{secure}"
        return (
            (b"set-cookie", f"{sessions.COOKIE}={value}{ends}; HttpOnly".encode()),
            (b"set-cookie", f"{identity.UI_COOKIE}=1{ends}".encode()),
        )

    def next_of(self, scope: Scope) -> str:
        """Where to go after signing in: a path of this server, never another's."""
        query = parse_qs(scope["query_string"].decode("ascii", "replace"))
        wanted = query.get("next", [""])[0]
        return wanted if _SAFE_NEXT.match(wanted) and len(wanted) <= MOST_OF_NEXT else f"{self.base(scope)}/"

    async def redirect(self, scope: Scope, send: Send, to: str, headers: Headers = ()) -> None:
        """Lead a browser to another page."""
        location = (b"location", to.encode("ascii", "replace"))
        await send_whole(scope, send, 303, b"", (location, *headers, (b"cache-control", b"no-store"), NATIVE))

    async def _code(self, who: Principal) -> str:
        """What the forms of a session carry."""
        secret = await self._authenticator.secret()
        return hmac.new(secret, f"form {who.session_id}".encode(), hashlib.sha256).hexdigest()

    async def _check(self, form: dict[str, str], who: Principal) -> None:
        """Raises Forbidden for a form that is not from a page of this session."""
        if not hmac.compare_digest(form.get("csrf", "").encode(), (await self._code(who)).encode()):
            raise Forbidden("This form is not from a page of this session. Go back, load the page again, and repeat.")


def check_origin(scope: Scope) -> None:
    """What a browser sends with a session must come from our own pages. Raises Forbidden."""
    headers = dict(scope["headers"])
    site = headers.get(b"sec-fetch-site")
    origin = headers.get(b"origin")
    if site is not None:
        ours = site in (b"same-origin", b"none")
    else:
        ours = origin is None or origin.partition(b"://")[2] == headers.get(b"host")
    if not ours:
        raise Forbidden("A browser sent this request from a page of another site. Use a token for programs.")


def address_of(scope: Scope) -> str:
    """The client's address."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _link_of(scope: Scope) -> str | None:
    """The link that signs in, in the query."""
    found = parse_qs(scope["query_string"].decode("ascii", "replace")).get("link")
    return found[0] if found else None


def _roles(who: Principal) -> list[str]:
    return ["user", *(role for role, right in ROLES.items() if right <= who.role)]


def _of_session(who: Principal | None) -> Principal:
    """Tokens make no tokens. Raises Forbidden."""
    if who is None or who.session_id is None:
        raise Forbidden("This page is for people who have signed in with a password, not for tokens.")
    return who


async def _form(scope: Scope, receive: Receive) -> dict[str, str]:
    """The fields of a form of ours. Raises Forbidden for another site's, ApiError for one that is too large."""
    check_origin(scope)
    body = await read_body(receive, MAX_FORM_BYTES)
    if body is None:
        raise Forbidden("The connection ended.")
    if len(body) > MAX_FORM_BYTES:
        raise Forbidden("The form is too large.")
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0].replace("\0", "") for name, values in fields.items()}
