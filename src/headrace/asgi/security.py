"""Stock's rules of hosts and origins, and the headers of a native answer.

Source: mlflow/server/fastapi_security.py and security_utils.py. `http/shield.py` holds every request to them, and
leaves in its scope what a native answer says; what is left to stock is CORS in its odd corners.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from functools import lru_cache
from urllib.parse import urlsplit

from headrace.asgi.types import Headers
from headrace.settings import Settings

_LOCAL = ("localhost", "127.0.0.1", "[::1]", "0.0.0.0")  # noqa: S104  (hosts that may be named, not bound)
_PRIVATE = ("192.168.*", "10.*", *(f"172.{i}.*" for i in range(16, 32)), "fc00:*", "fd00:*")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_LOCAL_ORIGIN = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?\Z")


class SecurityPolicy:
    """Stock's host and origin rules for one server's settings."""

    def __init__(self, settings: Settings) -> None:
        self._off = settings.disable_security_middleware
        self._hosts = _listed(settings.allowed_hosts) or (
            *_LOCAL,
            *(f"{host}:*" for host in _LOCAL),
            *_PRIVATE,
        )
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

    def _answer(self, origin: bytes | None) -> Headers | None:
        """The security headers of a native answer to a request with this Origin; None: stock shall answer it."""
        if self._off:
            return ()
        if "*" in self._origins:
            return None if origin else self._base  # no credentials and other headers: stock knows how
        if not origin:
            return (*self._base, (b"vary", b"Origin"))
        name = origin.decode("latin-1")
        if not _LOCAL_ORIGIN.match(name) and name not in self._origins:
            return None
        return (
            *self._base,
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", b"*"),
            (b"access-control-allow-origin", origin),
            (b"vary", b"Origin"),
        )

    def _allows_host(self, host: bytes | None) -> bool:
        """Whether a request may name this host (security_utils.is_allowed_host_header)."""
        if self._off or "*" in self._hosts:
            return True
        name = (host or b"").decode("latin-1")
        return any(name == allowed or ("*" in allowed and fnmatch(name, _escape(allowed))) for allowed in self._hosts)

    def _allows_origin(self, origin: bytes) -> bool:
        """Whether pages of this origin may change something (security_utils.should_block_cors_request)."""
        if self._off or "*" in self._origins:
            return True
        name = origin.decode("latin-1")
        try:
            local = urlsplit(name).hostname in _LOCAL_NAMES
        except ValueError:
            local = False
        return local or any(name == allowed or ("*" in allowed and fnmatch(name, allowed)) for allowed in self._origins)

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


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",")) if text else ()


def _escape(pattern: str) -> str:
    """An IPv6 address's bracket is not a set of characters."""
    return pattern.replace("[", "[[]", 1) if pattern.startswith("[::") else pattern
