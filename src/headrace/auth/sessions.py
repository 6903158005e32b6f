"""Sessions of browsers: a cookie that says who it is, signed with the database's secret, so that it is valid on every
worker and instance. It ends by time, by sign-out, with a new password, and with the user.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

import msgspec
from msgspec import Struct

COOKIE = "headrace_session"
LIFETIME_MS = 12 * 3600 * 1000
LINK_LIFETIME_MS = 3600 * 1000


class Session(Struct, frozen=True, array_like=True):
    """Times in milliseconds since 1970."""

    id: str
    user: str
    issued_at: int
    expires_at: int


def seal(session: Session, secret: bytes, kind: str = "session") -> str:
    """The cookie's value. A `link` is as good as a session for one thing: to begin another, once."""
    payload = base64.urlsafe_b64encode(msgspec.json.encode(session)).decode()
    return f"{payload}.{_signature(payload, secret, kind)}"


def unseal(value: str, secret: bytes, now: int, kind: str = "session") -> Session | None:
    """The session of a cookie; None for one that is forged, broken, too old, or of another kind."""
    payload, _, signature = value.partition(".")
    if not hmac.compare_digest(signature.encode(), _signature(payload, secret, kind).encode()):
        return None
    session = msgspec.json.decode(base64.urlsafe_b64decode(payload), type=Session)
    return session if session.issued_at <= now < session.expires_at else None


def _signature(payload: str, secret: bytes, kind: str) -> str:
    digest = hmac.new(secret, f"{kind} {payload}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode()


def cookie_of(header: bytes) -> str | None:
    """The session's value in a Cookie header."""
    for part in header.decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def without(header: bytes) -> bytes:
    """The Cookie header without the session."""
    parts = [part.strip() for part in header.split(b";")]
    return b"; ".join(part for part in parts if not part.startswith(COOKIE.encode() + b"="))
