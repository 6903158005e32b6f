"""The one gate before everything: native answers, what passes through, files and event streams.

request -> who is it? -> what does the route need? -> the application, without the credentials
             | nobody         | more than they may
             +-> 401, or the sign-in page                +-> 403

Where a principal is known, both questions are a look in a dictionary.
"""

from __future__ import annotations

from collections.abc import Awaitable, MutableMapping
from typing import Any

from headrace.api.endpoint import Endpoint, Match, Router
from headrace.api.permits import permit_of
from headrace.asgi.responses import failure
from headrace.asgi.security import SAFE, SecurityPolicy
from headrace.asgi.types import MATCH, PERMIT, PRINCIPAL, Application, Receive, Scope, Send
from headrace.auth import sessions
from headrace.auth.access import Access
from headrace.auth.accounts import Accounts
from headrace.auth.authenticator import ASSERTION, HOW_TO, LOAD_BALANCER, SESSION, Authenticator
from headrace.auth.principals import Principal, Right
from headrace.errors import ApiError, Unauthenticated
from headrace.settings import Settings
from headrace.ui.identity import SIGNS_OUT
from headrace.ui.pages import Pages, address_of, check_origin
from headrace.ui.refusals import send_refusal, wants_page

OF_LOAD_BALANCER, DATA = b"x-amzn-oidc-", b"x-amzn-oidc-data"
AUTHORIZATION, AT_GATEWAY = b"authorization", b"x-mlflow-authorization"


class SignOut(Exception):
    """The request is the UI's way to end a session."""

    def __init__(self, principal: Principal | None) -> None:
        super().__init__()
        self.principal = principal


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: Application, settings: Settings, accounts: Accounts, router: Router) -> None:
        self._app = app
        self._authenticator = Authenticator(accounts, settings.admin_token, settings.admin_hashes, settings.jobs_token)
        self._access = Access(accounts, self._authenticator, settings.grants, settings.enable_workspaces)
        self._pages = Pages(settings.static_prefix, self._authenticator, accounts)
        self._pages.add_to(router)
        self._policy = SecurityPolicy(settings)
        self._asserts = bool(settings.alb_arn)
        if settings.oidc_issuer or settings.alb_arn:
            from headrace.ui.single_sign_on import set_up  # cryptography, which others do without

            set_up(settings, accounts, self._authenticator, self._pages, router)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself: the usual request costs none more."""
        if scope["type"] != "http":
            return self._app(scope, self._until_shutdown(receive), send)
        if self._passes(scope):
            return self._app(scope, receive, send)
        return self._guard(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        """Whether nothing needs to be looked up: a header of somebody whom we know, and a role that is enough."""
        endpoint: Endpoint = scope[MATCH].endpoint
        if _is_gateway(endpoint):
            return False
        shown = None
        for header in scope["headers"]:
            if header[0] == AUTHORIZATION:
                if shown is not None:
                    return False
                shown = header
            elif header[0] == b"cookie" or (self._asserts and header[0].startswith(OF_LOAD_BALANCER)):
                return False
        principal = None if shown is None else self._authenticator.known(shown[1])
        if principal is None:
            return False
        if endpoint.own_page or not self._access.allows_by_role(principal, endpoint.right):
            return False
        scope["headers"] = [header for header in scope["headers"] if header is not shown]
        scope[PRINCIPAL] = principal
        return True

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        try:
            principal = await self._admit(scope)
            page = self._pages.answers.get((method, scope["path"]))
            if page is not None:
                await page(scope, receive, send, principal)
                return
        except SignOut as by:
            await self._pages.sign_out_by_ui(scope, send, by.principal)
        except ApiError as error:
            is_asked = scope[MATCH].endpoint.right is not Right.OPEN  # where all may come, a login has failed
            if isinstance(error, Unauthenticated) and is_asked and method == "GET" and wants_page(scope):
                await self._pages.ask(scope, send)
            else:
                await send_refusal(scope, send, error)
        except Exception:
            await send_refusal(scope, send, failure(scope))
        else:
            await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> Principal | None:
        """Who sends the request, which they may. Raises ApiError, SignOut."""
        principal = scope[PRINCIPAL] = await self._principal(scope)
        if principal is not None and (principal.session_id is not None or principal.via == LOAD_BALANCER):
            self._check_page(scope)
        match: Match = scope[MATCH]
        if match.endpoint.right is Right.OPEN:
            return principal
        if principal is None:
            raise Unauthenticated(f"This server needs to know who you are. {HOW_TO}")
        scope[PERMIT] = permit_of(scope, self._access, principal, match.endpoint)
        return principal

    def _check_page(self, scope: Scope) -> None:
        """Raises Forbidden for what another site's page, or one on another port, made a signed-in browser send.

        A link may lead here; what a page reads for itself may not, unless --cors-allowed-origins names the page.
        """
        if scope["method"] in SAFE:
            headers = dict(scope["headers"])
            if headers.get(b"sec-fetch-mode") == b"navigate" or self._policy.is_listed(headers.get(b"origin", b"")):
                return
        check_origin(scope)

    async def _principal(self, scope: Scope) -> Principal | None:
        """Who sends the request; its credentials are taken out of it. None: it shows none."""
        authorization = cookie = assertion = None
        credential = _credential(scope)
        headers = []
        for header in scope["headers"]:
            name, value = header
            if name == credential:
                authorization = value if authorization is None else b""  # two of them: neither
                continue
            if name == b"cookie" and (session := sessions.cookie_of(value)) is not None:
                cookie = session
                value = sessions.without(value)
                if value:
                    headers.append((name, value))
                continue
            if self._asserts and name.startswith(OF_LOAD_BALANCER):
                assertion = value if name == DATA else assertion
                continue
            headers.append(header)
        if assertion is not None:
            scope["headers"] = headers
            if authorization is None and cookie is None:
                known = self._authenticator.known(assertion, ASSERTION)
                return known or await self._authenticator.identify_assertion(assertion)
        if authorization is None and cookie is None:
            return None
        scope["headers"] = headers
        if cookie is not None and authorization is not None and authorization.startswith(SIGNS_OUT):
            raise SignOut(await self._of_session(cookie))
        if authorization is None:
            assert cookie is not None
            return self._authenticator.known(cookie.encode(), SESSION) or await self._of_session(cookie)
        known = self._authenticator.known(authorization)
        return known or await self._authenticator.identify(authorization, address_of(scope))

    async def _of_session(self, cookie: str) -> Principal | None:
        """A session that has ended is as none: the browser is asked to sign in again."""
        try:
            return await self._authenticator.identify_session(cookie)
        except Unauthenticated:
            return None

    def _until_shutdown(self, receive: Receive) -> Receive:
        """The lifespan's messages; the authenticator works in between."""

        async def watched() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._authenticator.start()
            elif message["type"] == "lifespan.shutdown":
                await self._authenticator.stop()
            return message

        return watched


def _credential(scope: Scope) -> bytes:
    """The header that says who sends a request. At the gateway Authorization may be the client's for a provider.

    Source: mlflow/server/auth, _authenticate_fastapi_request.
    """
    if _is_gateway(scope[MATCH].endpoint) and any(name == AT_GATEWAY and value for name, value in scope["headers"]):
        return AT_GATEWAY
    return AUTHORIZATION


def _is_gateway(endpoint: Endpoint) -> bool:
    return endpoint.path.startswith("/gateway/")
