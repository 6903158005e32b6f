"""Signing in through an OpenID Connect provider: the authorization code flow with PKCE (RFC 6749, RFC 7636).

browser -> /headrace/oidc/login -> the provider -> /headrace/oidc/callback -> a session -> where it wanted to go

What a login needs to know when it comes back (state, nonce, verifier) is in a cookie that is signed for ten minutes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import ssl
from collections.abc import Awaitable, Callable
from functools import cached_property, partial
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import httpcore
import msgspec
from msgspec import Struct

from headrace.api.endpoint import Router
from headrace.asgi.types import PRINCIPAL, Receive, Scope, Send, header
from headrace.auth.accounts import Accounts
from headrace.auth.authenticator import Authenticator
from headrace.auth.jwt import LoadBalancer, Provider
from headrace.auth.principals import ROLES, Principal, Right
from headrace.auth.single_sign_on import Claims, SingleSignOn, roles_of
from headrace.clock import now_ms
from headrace.errors import Forbidden, Unauthenticated, Unavailable
from headrace.settings import Settings
from headrace.ui.pages import CALLBACK, LOGIN, Pages

COOKIE = "headrace_oidc"
LIFETIME_MS = 600_000
MAX_ANSWER = 1024 * 1024
TIMEOUT_SECONDS = 10.0

Page = Callable[[Scope, Receive, Send, Principal | None], Awaitable[None]]


def set_up(settings: Settings, accounts: Accounts, authenticator: Authenticator, pages: Pages, router: Router) -> None:
    """Let a provider's users in, and a load balancer's: each where its setting says so."""
    users = SingleSignOn(accounts, settings.oidc_user_claim, settings.oidc_groups_claim, roles_of(settings.oidc_roles))
    authenticator.single_sign_on = users
    if settings.alb_arn:
        authenticator.of_load_balancer = LoadBalancer(settings.alb_arn, fetch).claims
    if not settings.oidc_issuer:
        return
    provider = Provider(settings.oidc_issuer, fetch)
    if settings.oidc_audience:
        authenticator.of_jwt = partial(provider.claims, audience=settings.oidc_audience)
    if settings.oidc_client_id:
        pages.sign_on = SignOnPages(settings, authenticator, provider, users, pages)
        pages.answers |= pages.sign_on.answers
        for method, path in pages.sign_on.answers:
            router.add_page(method, path, Right.OPEN)


class Login(Struct, frozen=True, array_like=True):
    """A login that is under way. `expires_at`: milliseconds since 1970."""

    state: str
    nonce: str
    verifier: str
    next: str
    expires_at: int


class Tokens(Struct, frozen=True):
    """What the token endpoint answers."""

    id_token: str
    access_token: str = ""


class SignOnPages:
    """The pages of one worker."""

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        provider: Provider,
        users: SingleSignOn,
        pages: Pages,
    ) -> None:
        self._settings, self._prefix = settings, settings.static_prefix
        self._authenticator, self._provider, self._users = authenticator, provider, users
        self._pages = pages
        self.answers: dict[tuple[str, str], Page] = {
            ("GET", self._prefix + LOGIN): self._login,
            ("GET", self._prefix + CALLBACK): self._callback,
        }

    async def _login(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        """Send the browser to the provider."""
        address = (await self._provider.metadata()).authorization_endpoint
        if not address:
            raise Unavailable("The provider says of no page where one signs in.")
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        login = Login(state, nonce, verifier, self._pages.next_of(scope), now_ms() + LIFETIME_MS)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(login.verifier.encode()).digest()).rstrip(b"=")
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": self._own(scope, self._pages.base(scope) + CALLBACK),
            "scope": self._settings.oidc_scopes,
            "state": login.state,
            "nonce": login.nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        address += ("&" if "?" in address else "?") + urlencode(query)
        await self._pages.redirect(scope, send, address, (await self._cookie(scope, await self._seal(login)),))

    async def _callback(self, scope: Scope, receive: Receive, send: Send, who: Principal | None) -> None:
        """Take the code that the provider sent the browser with. Raises Unauthenticated, Forbidden, Unavailable."""
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("ascii", "replace")).items()}
        login = await self._unseal(scope)
        if login is None or not hmac.compare_digest(query.get("state", "").encode(), login.state.encode()):
            raise Forbidden("This login is not one that this browser began in the last ten minutes. Sign in again.")
        if "code" not in query:
            raise Unauthenticated(f"The provider did not sign you in: {query.get('error', 'no code')[:200]}.")
        claims = await self._redeem(query["code"], login, self._own(scope, self._pages.base(scope) + CALLBACK))
        user = await self._users.user(claims)
        scope[PRINCIPAL] = Principal(user.name, ROLES[user.role], via="single sign-on")  # for the audit log
        headers = await self._pages.start_session(scope, user.name)
        await self._pages.redirect(scope, send, login.next, (*headers, await self._cookie(scope, "")))

    async def _redeem(self, code: str, login: Login, redirect_uri: str) -> Claims:
        """The claims of the ID token that the code stands for."""
        metadata = await self._provider.metadata()
        client, secret = self._settings.oidc_client_id, self._settings.oidc_client_secret
        if not metadata.token_endpoint:
            raise Unavailable("The provider says of no address where a login is redeemed.")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": client,
            "code_verifier": login.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        # OpenID Connect Discovery 1.0, section 3, for a provider that names none
        ways = metadata.token_endpoint_auth_methods_supported or ("client_secret_basic",)
        if secret and "client_secret_basic" in ways:
            pair = f"{quote(client, safe='')}:{quote(secret, safe='')}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        elif secret:
            form["client_secret"] = secret
        body = await ask("POST", metadata.token_endpoint, headers, urlencode(form).encode())
        try:
            tokens = msgspec.json.decode(body, type=Tokens)
        except (ValueError, RecursionError):
            raise Unauthenticated("The provider answered the login without an ID token.") from None
        claims = await self._provider.claims(tokens.id_token, client, login.nonce)
        return await self._completed(claims, tokens.access_token, metadata.userinfo_endpoint)

    async def _completed(self, claims: Claims, access_token: str, endpoint: str | None) -> Claims:
        """The claims, with those that are only at the user info endpoint (OpenID Connect Core 1.0, section 5.3)."""
        wanted = (self._settings.oidc_user_claim, self._settings.oidc_groups_claim)
        if not endpoint or not access_token or all(name in claims for name in wanted):
            return claims
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
        try:
            found = msgspec.json.decode(await ask("GET", endpoint, headers, None), type=dict[str, Any])
        except (ValueError, RecursionError):
            return claims  # a signed answer; what is needed has to be in the ID token then
        if found.get("sub") != claims["sub"]:
            raise Unauthenticated("The provider's user info is of somebody else.")
        return found | claims

    async def sign_out_address(self, scope: Scope, after: str) -> str:
        """Where a browser ends its session at the provider, too; `after`, a path of ours, where that can't be done."""
        try:
            end = (await self._provider.metadata()).end_session_endpoint
        except Unavailable:
            end = None
        if not end:
            return after
        query = {"client_id": self._settings.oidc_client_id, "post_logout_redirect_uri": self._own(scope, after)}
        return f"{end}{'&' if '?' in end else '?'}{urlencode(query)}"

    def _own(self, scope: Scope, path: str) -> str:
        """The address of a path of this server, by the name that the browser used, which the shield has allowed."""
        host = (header(scope, b"host") or b"").decode("latin-1")
        return f"{scope['scheme']}://{host}{path}"

    async def _seal(self, login: Login) -> str:
        payload = base64.urlsafe_b64encode(msgspec.json.encode(login)).decode()
        return f"{payload}.{await self._signature(payload)}"

    async def _unseal(self, scope: Scope) -> Login | None:
        for name, value in scope["headers"]:
            if name == b"cookie":
                for part in value.decode("latin-1").split(";"):
                    key, _, sealed = part.strip().partition("=")
                    payload, _, signature = sealed.partition(".")
                    expected = await self._signature(payload)
                    if key == COOKIE and hmac.compare_digest(signature.encode(), expected.encode()):
                        login = msgspec.json.decode(base64.urlsafe_b64decode(payload), type=Login)
                        return login if login.expires_at > now_ms() else None
        return None

    async def _signature(self, payload: str) -> str:
        secret = await self._authenticator.secret()
        return hmac.new(secret, b"login " + payload.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    async def _cookie(self, scope: Scope, value: str) -> tuple[bytes, bytes]:
        secure = "; Secure" if scope["scheme"] == "https" else ""
        age = LIFETIME_MS // 1000 if value else 0
        path = f"{self._pages.base(scope)}/headrace/oidc"
        return (
            b"set-cookie",
            f"{COOKIE}={value}; Path={path}; Max-Age={age}; SameSite=Lax{secure}; HttpOnly".encode(),
        )


class _Client:
    """One for all, made when it is needed."""

    @cached_property
    def pool(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(ssl_context=ssl.create_default_context(), max_keepalive_connections=0)


_client = _Client()


async def fetch(address: str) -> bytes:
    """GET. Raises Unavailable."""
    return await ask("GET", address, {"Accept": "application/json, */*"}, None)


async def ask(method: str, address: str, headers: dict[str, str], body: bytes | None) -> bytes:
    """The body of an answer 200 of a provider; redirects are not followed. Raises Unavailable."""
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),  # for all of it: a provider may send a byte now and then
            _client.pool.stream(method, address, headers=list(headers.items()), content=body) as response,
        ):
            found = b""
            async for chunk in response.aiter_stream():
                found += chunk
                if len(found) > MAX_ANSWER:
                    raise Unavailable(f"{address} answers with too much.")
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise Unavailable(f"{address} does not answer: {error or type(error).__name__}.") from error
    if response.status == 400 and method == "POST":
        raise Unauthenticated("The provider does not take this login. Sign in again.")
    if response.status != 200:
        raise Unavailable(f"{address} answers {response.status}.")
    return found
