"""What no request may do, whoever sends it: before authentication, for native answers, pages and pass-through alike.

request -> from a proxy that is trusted? -> host -> page of another site? -> feature turned off? -> the application
                                             |            |                     |
                                             +-> 403      +-> 403, or           +-> 403, or, where the UI asks by
                                                              a preflight's answer  itself, that there is nothing

Hosts and origins are refused in stock's words, and the paths that stock forgets (/graphql, /v1/traces, /gateway) are
no exceptions here.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from headrace.address import plain_address
from headrace.asgi.responses import JSON, NATIVE, send_error
from headrace.asgi.responses import send as send_whole
from headrace.asgi.security import SAFE, SecurityPolicy
from headrace.asgi.types import PREFIX, SECURITY, Application, Headers, Receive, Scope, Send
from headrace.errors import ApiError, Forbidden
from headrace.settings import Settings

logger = logging.getLogger(__name__)

_TEXT = (b"content-type", b"text/plain")
# Starlette's CORSMiddleware adds them to the refusal, which it does not know to be one.
_CORS = (
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-expose-headers", b"*"),
    (b"vary", b"Origin"),
)
# security_utils.py
INVALID_HOST = b"Invalid Host header - possible DNS rebinding attack detected"
CROSS_ORIGIN = b"Cross-origin request blocked"
# What a page of another site may send without asking first (the Fetch standard's "safelisted" types).
_OF_FORMS = (b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", b"")
# What is decided here by its value, and read again behind: whose first one, or whose last one, counts there?
_ONCE = frozenset((b"host", b"origin", b"sec-fetch-site", b"content-type", b"content-encoding"))
_FORWARDED = frozenset((b"forwarded", *map(b"x-forwarded-".__add__, (b"for", b"proto", b"host", b"port", b"prefix"))))
_PREFIX = re.compile(r"(/[\w.~@:+=%-]+){1,20}/?", re.ASCII)


class Feature(NamedTuple):
    """A part of stock that is off unless its setting turns it on.

    `paths`: without the prefix, each slash once. `reads`: whether reading is refused, too. `nothing`: what the UI's
    pages ask of it below /ajax-api/ without being told to, and the answer of a server that has none of it.
    """

    setting: str
    what: str
    paths: re.Pattern[str]
    reads: bool
    nothing: Mapping[str, bytes]


def _below(path: str) -> re.Pattern[str]:
    """The path and all below it, with any letters: a server may take a newline or a slash at its end for none."""
    return re.compile(rf"{path}(?![\w.-]).*", re.DOTALL | re.IGNORECASE)


_API = r"/(ajax-)?api/[\d.]+/(preview/)?mlflow/"
FEATURES = (
    # What begins one; what there was is shown, and ends, all the same.
    Feature(
        "enable_jobs",
        "Jobs",
        re.compile(
            rf"({_API}(scorer/invoke|issues/invoke|genai/evaluate/invoke|prompt-optimization/jobs)"
            r"|/(ajax-)?api/[\d.]+/jobs)[/\s]*",
            re.IGNORECASE,
        ),
        False,
        {},
    ),
    Feature("enable_webhooks", "Webhooks", _below(rf"{_API}webhooks"), False, {"2.0/mlflow/webhooks": b"{}"}),
    Feature(
        "enable_assistant",
        "The assistant",
        _below(rf"{_API}assistant"),
        True,
        {
            "3.0/mlflow/assistant/config": b'{"providers":{},"projects":{},"remote_access_allowed":false}',
            "3.0/mlflow/assistant/providers": b'{"providers":[],"resolved":null,"gateway_vendor_options":{}}',
        },
    ),
    Feature(
        "enable_ai_gateway",
        "The AI gateway",
        _below("/gateway"),
        True,
        {
            f"3.0/mlflow/gateway/{what}/list": b"{}"
            for what in ("secrets", "endpoints", "endpoints/bindings", "model-definitions")
        }
        | {f"3.0/mlflow/gateway/supported-{what}": b'{"%b":[]}' % what.encode() for what in ("providers", "models")},
    ),
)


class Shield:
    """An ASGI application around another."""

    def __init__(self, app: Application, settings: Settings) -> None:
        self._app = app
        self._policy = SecurityPolicy(settings)
        self._off = settings.disable_security_middleware
        self._prefix = settings.static_prefix
        self._exempt = {f"{self._prefix}/{page}" for page in ("health", "ready", "version")}
        self._features = [feature for feature in FEATURES if not getattr(settings, feature.setting)]
        self._nothing = {
            f"{self._prefix}/ajax-api/{path}": answer
            for feature in self._features
            for path, answer in feature.nothing.items()
        }
        self._turned_off = lru_cache(maxsize=1024)(self._find_turned_off)
        self._is_proxy = proxies_of(settings)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself: the usual request costs none more."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]) and (name := _said_twice(scope["headers"])):
            text = b"The request has the header %b twice, with different values. Send it once." % name
            return send_whole(scope, send, 400, text, (_TEXT, NATIVE))
        if not _FORWARDED.isdisjoint(headers):
            self._from_proxy(scope)
        refusal = None if self._off else self._refusal(scope, headers)
        if refusal is not None:
            logger.warning("refused %s %r: %s", scope["method"], scope["path"], refusal.decode())
            cors = _CORS if refusal is CROSS_ORIGIN and b"origin" in headers else ()
            return send_whole(scope, send, 403, refusal, (_TEXT, NATIVE, *cors))
        if scope["method"] == "OPTIONS" and (answer := self._policy.preflight(headers)) is not None:
            return send_whole(scope, send, answer[0], answer[1], (_TEXT, NATIVE, *answer[2]))
        scope[SECURITY] = self._policy.answer(self._origin(scope, headers))
        if scope["method"] == "GET" and (nothing := self._nothing.get(scope["path"])) is not None:
            return send_whole(scope, send, 200, nothing, (JSON, NATIVE, *scope[SECURITY]))
        error = self._turned_off(scope["method"], scope["path"])
        if error is not None:
            return send_error(scope, send, error)
        return self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bytes | None:
        """Why a browser, or somebody who makes one send this, is refused; None: it is not."""
        host = headers.get(b"host")
        if not self._policy.allows_host(host) and scope["path"] not in self._exempt:
            return INVALID_HOST
        if scope["method"] in SAFE:
            return None
        if (origin := headers.get(b"origin")) is not None:
            if not self._policy.allows_origin(origin) and not self._policy.is_own_page(origin, host):
                return CROSS_ORIGIN
        elif (site := headers.get(b"sec-fetch-site")) is not None:
            if site not in (b"same-origin", b"none"):
                return CROSS_ORIGIN
        elif b"cookie" in headers and headers.get(b"content-type", b"").split(b";")[0].strip() in _OF_FORMS:
            return CROSS_ORIGIN  # a browser that does not say where it comes from
        return None

    def _origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bytes | None:
        """The Origin of a request that was not refused. Our own page's is taken out: stock does not know it."""
        origin = headers.get(b"origin")
        if origin is None or scope["method"] in SAFE or self._policy.allows_origin(origin):
            return origin
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"origin"]
        return None

    def _find_turned_off(self, method: str, path: str) -> ApiError | None:
        path = re.sub("/+", "/", path).removeprefix(self._prefix)
        for feature in self._features:
            if (feature.reads or method not in SAFE) and feature.paths.fullmatch(path):
                flag = feature.setting.replace("_", "-")
                return Forbidden(f"{feature.what} of MLflow are turned off here. --{flag} turns them on.")
        return None

    def _from_proxy(self, scope: Scope) -> None:
        """The client that a trusted proxy speaks for; what anybody else says of it is dropped."""
        client = scope.get("client")
        if client is None or not self._is_proxy(client[0]):
            scope["headers"] = [header for header in scope["headers"] if header[0] not in _FORWARDED]
            return
        chain = [v for name, v in scope["headers"] if name == b"x-forwarded-for"]
        for said in reversed(b",".join(chain).decode("latin-1").split(",")):
            address = plain_address(said)
            if address is None:
                break
            scope["client"] = (address, 0)
            if not self._is_proxy(address):
                break
        # The first of several was at the browser, and says how that came.
        protos = b",".join(v for name, v in scope["headers"] if name == b"x-forwarded-proto")
        proto = protos.partition(b",")[0].strip().lower()
        if proto in (b"http", b"https"):
            scope["scheme"] = proto.decode()
        # Each proxy adds its own at the end. One that keeps the path and says so all the same names --static-prefix.
        paths = b",".join(v for name, v in scope["headers"] if name == b"x-forwarded-prefix").decode("latin-1")
        prefix = "".join(part.strip().rstrip("/") for part in paths.split(","))
        if _PREFIX.fullmatch(prefix) and prefix != self._prefix:
            scope[PREFIX] = prefix


def _said_twice(headers: Headers) -> bytes:
    """A header of _ONCE that has two values; empty for none."""
    given: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ONCE and given.setdefault(name, value) != value:
            return name
    return b""


def proxies_of(settings: Settings) -> Callable[[str], bool]:
    """Whether an address is a proxy's of --trusted-proxies."""
    networks = [ipaddress.ip_network(network) for network in settings.trusted_proxies.split(",") if network]

    @lru_cache(maxsize=1024)
    def is_proxy(address: str) -> bool:
        try:
            return any(ipaddress.ip_address(address) in network for network in networks)
        except ValueError:
            return False

    return is_proxy
