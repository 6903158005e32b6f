"""Stock's rules of hosts and origins, and the headers of a native answer.

Source: mlflow/server/fastapi_security.py and security_utils.py. `asgi/shield.py` holds every request to them, and
leaves in its scope what a native answer says.

Where stock matches a private address as a text (`10.*` is 10.evil.example, too, whose owner lets it lead here: DNS
rebinding), a Host, and the one of an Origin, counts here if it is an address. A name that is allowed without a port
is allowed with any: clients that come past the proxy, such as an exporter of OpenTelemetry's in the same cluster, send
one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import lru_cache
from urllib.parse import urlsplit

from headrace.asgi.types import Headers
from headrace.settings import Settings

SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing (RFC 9110, 9.2.1)
_LOCAL = ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")  # noqa: S104  (hosts that may be named, not bound)
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
# A pattern that may be an address, its port aside, means addresses: 10.*, 10.0.0.1*, 172.1?.*, 192.168.[0-9]*
_OF_ADDRESSES = re.compile(r"(?=[^:]*\d)[\d.*?\[\]!-]+(:(\d+|\*))?\Z|\[?[0-9a-f]{1,4}:[0-9a-f:]*\*", re.ASCII)
_WITH_PORT = re.compile(r":(\d+|\*)\Z|\A\*\Z", re.ASCII)
_METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")
_ALL_METHODS = (b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_LOCAL_ORIGIN = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?\Z")


class SecurityPolicy:
    """Stock's host and origin rules for one server's settings."""

    def __init__(self, settings: Settings) -> None:
        self._off = settings.disable_security_middleware
        named = with_ports(settings.allowed_hosts)
        self._hosts = named or (*_LOCAL, *(f"{host}:*" for host in _LOCAL))
        self._networks = () if named else _PRIVATE
        self._origins = _listed(settings.cors_allowed_origins)
        frame = settings.x_frame_options.upper()
        self._base: Headers = (
            ()
            if self._off
            else (
                (b"x-content-type-options", b"nosniff"),
                *(((b"x-frame-options", frame.encode()),) if frame not in ("", "NONE") else ()),
            )
        )
        self.answer = lru_cache(maxsize=1024)(self._answer)
        self.allows_host = lru_cache(maxsize=1024)(self._allows_host)
        self.allows_origin = lru_cache(maxsize=1024)(self._allows_origin)
        # Where every host may be named, another's page can have our name (DNS rebinding), but never our cookies.
        self._trusts_own_pages = "*" not in self._hosts or settings.protected

    def _answer(self, origin: bytes | None) -> Headers:
        """The security headers of an answer to a request with this Origin (Starlette's CORSMiddleware)."""
        if self._off:
            return ()
        vary = (b"vary", b"Origin")
        if not origin:
            return (*self._base, vary)
        expose = (b"access-control-expose-headers", b"*")
        if "*" in self._origins:
            return (*self._base, (b"access-control-allow-origin", b"*"), expose, vary)
        credentials = (b"access-control-allow-credentials", b"true")
        name = origin.decode("latin-1")
        if not _LOCAL_ORIGIN.match(name) and name not in self._origins:
            return (*self._base, credentials, expose, vary)
        return (*self._base, credentials, expose, (b"access-control-allow-origin", origin), vary)

    def _allows_host(self, host: bytes | None) -> bool:
        """Whether a request may name this host (security_utils.is_allowed_host_header)."""
        if self._off or "*" in self._hosts:
            return True
        name = (host or b"").decode("latin-1")
        address = _address(name)
        if address is not None and any(address in network for network in self._networks):
            return True
        return any(_matches(name, allowed) for allowed in self._hosts)

    def _allows_origin(self, origin: bytes) -> bool:
        """Whether pages of this origin may change something (security_utils.should_block_cors_request)."""
        if self._off or "*" in self._origins:
            return True
        name = origin.decode("latin-1")
        try:
            local = urlsplit(name).hostname in _LOCAL_NAMES
        except ValueError:
            local = False
        return local or any(_matches(name, allowed) for allowed in self._origins)

    def is_listed(self, origin: bytes) -> bool:
        """Whether --cors-allowed-origins names this origin, or a pattern that is not every one."""
        name = origin.decode("latin-1")
        return any(_matches(name, each) for each in self._origins if each != "*")

    def preflight(self, headers: Mapping[bytes, bytes]) -> tuple[int, bytes, Headers] | None:
        """What a browser is told that asks before another site's page sends something (the Fetch standard's
        CORS-preflight): status, body, headers, as Starlette's CORSMiddleware has them. None: it is no such question.
        """
        origin, method = headers.get(b"origin"), headers.get(b"access-control-request-method")
        if self._off or origin is None or method is None:
            return None
        anybody = "*" in self._origins
        wanted = headers.get(b"access-control-request-headers")
        name = origin.decode("latin-1")
        allowed = anybody or bool(_LOCAL_ORIGIN.match(name)) or name in self._origins
        failures = [b"origin"] if not allowed else []
        if method not in (_ALL_METHODS if anybody else _METHODS):
            failures.append(b"method")
        if b"access-control-request-private-network" in headers:
            failures.append(b"private-network")
        answer = [(b"access-control-allow-methods", b", ".join(_ALL_METHODS if anybody else _METHODS))]
        answer.append((b"access-control-max-age", b"600"))
        answer.append((b"vary", b"Origin"))
        if not anybody:
            answer.append((b"access-control-allow-credentials", b"true"))
        if allowed:
            answer.append((b"access-control-allow-origin", b"*" if anybody else origin))
        if wanted is not None:
            answer.append((b"access-control-allow-headers", wanted))
        if failures:
            return 400, b"Disallowed CORS " + b", ".join(failures), tuple(answer)
        return 200, b"OK", tuple(answer)

    def is_own_page(self, origin: bytes, host: bytes | None) -> bool:
        """Whether a page of this origin is one that this server has sent, under an allowed name."""
        return self._trusts_own_pages and host is not None and origin in (b"http://" + host, b"https://" + host)


def page_headers(settings: Settings) -> Headers:
    """What the page of MLflow's UI says about what it may load, beside what every answer says.

    An HTML artifact is shown in a sandboxed frame of the page's own making (blob:), which takes over the page's policy:
    its scripts, written in the page or loaded from a CDN, are why scripts are not held to 'self'.
    """
    if settings.disable_security_middleware:
        return ()
    directives = {
        "default-src": "'self'",
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob: https:",
        "style-src": "'self' 'unsafe-inline' https:",
        "img-src": "'self' data: blob: https:",
        "font-src": "'self' data: https:",
        "media-src": "'self' data: blob:",
        "frame-src": "'self' data: blob:",
        "object-src": "'self' blob:",  # PDF
        "worker-src": "'self' blob:",
        # with direct, a download goes on to the bucket
        "connect-src": "'self' data: blob:" + (" https: http:" if settings.artifact_transfer == "direct" else ""),
        "form-action": "'self'",
        "base-uri": "'self'",
    }
    ancestors = {"SAMEORIGIN": "'self'", "DENY": "'none'"}.get(settings.x_frame_options.upper())
    if ancestors is not None:
        directives["frame-ancestors"] = ancestors
    policy = "; ".join(f"{name} {sources}" for name, sources in directives.items())
    return (
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    )


def with_ports(allowed_hosts: str | None) -> tuple[str, ...]:
    """The hosts of --allowed-hosts, and each that names no port with every port: what stock shall allow, too."""
    listed = _listed(allowed_hosts)
    return listed + tuple(f"{host.replace('[', '[[]', 1)}:*" for host in listed if host and not _WITH_PORT.search(host))


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",")) if text else ()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a Host header names, with a port or without one; None for a name."""
    text = re.sub(r":\d*\Z", "", host) if host.startswith("[") or host.count(":") == 1 else host
    try:
        return ipaddress.ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        return None


def _matches(name: str, pattern: str) -> bool:
    """Whether a host, or an origin, is one that an option names."""
    if "*" not in pattern:
        return name == pattern
    if not fnmatch(name, _escape(pattern)):
        return False
    host, hosts = (text.rpartition("://")[2] for text in (name, pattern))
    return not _OF_ADDRESSES.match(hosts) or _address(host) is not None


def _escape(pattern: str) -> str:
    """An IPv6 address's bracket is not a set of characters."""
    return pattern.replace("[", "[[]", 1) if pattern.startswith("[::") else pattern
