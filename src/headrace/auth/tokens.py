"""API tokens: 256 random bits after `hr_`. Only their SHA-256 is kept: what has that many bits needs no slow hash."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "hr_"


def new_token() -> str:
    """A token, to be shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def new_id() -> str:
    """What names a token, a session, in lists and logs."""
    return secrets.token_hex(8)


def hash_of(token: str) -> str:
    """What is kept of a token, 64 characters."""
    return hashlib.sha256(token.encode()).hexdigest()
